"""Shap-E with random weights, from a text and from an image, built from settings without the network."""

from pretrained.pipelines import clip_text

from trilemma.pretrained.libraries import load_diffusers

WIDTH = 16  # of a description, and of the text


def parts():
    """What both have: the network, the scheduler and the renderer."""
    diffusers = load_diffusers()
    from diffusers.pipelines.shap_e import ShapERenderer

    prior = diffusers.PriorTransformer(
        num_attention_heads=2, attention_head_dim=16, embedding_dim=WIDTH, num_embeddings=32,
        embedding_proj_dim=WIDTH, time_embed_dim=64, num_layers=1, clip_embed_dim=2 * WIDTH, additional_embeddings=0,
        time_embed_act_fn="gelu", norm_in_type="layer", encoder_hid_proj_type=None, added_emb_type=None,
    )  # fmt: skip
    scheduler = diffusers.HeunDiscreteScheduler(
        beta_schedule="exp", num_train_timesteps=1024, prediction_type="sample", use_karras_sigmas=True,
        clip_sample=True, clip_sample_range=1.0,
    )  # fmt: skip
    renderer = ShapERenderer(
        param_shapes=((8, 93), (8, 8), (8, 8), (8, 8)), d_latent=WIDTH, d_hidden=8, n_output=12,
        background=(0.1, 0.1, 0.1),
    )  # fmt: skip
    return {"prior": prior, "scheduler": scheduler, "shap_e_renderer": renderer}


def from_text():
    """A text encoder with a projection, as Shap-E has it."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        hidden_size=WIDTH, projection_dim=WIDTH, intermediate_size=16, num_attention_heads=2, num_hidden_layers=1,
        vocab_size=1000, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    text = {**clip_text(), "text_encoder": CLIPTextModelWithProjection(config)}
    return load_diffusers().ShapEPipeline(**parts(), **text)


def from_image():
    """An image encoder."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=WIDTH, image_size=32, intermediate_size=16, num_attention_heads=2, num_hidden_layers=1,
        patch_size=8, projection_dim=WIDTH,
    )  # fmt: skip
    processor = CLIPImageProcessor(crop_size=32, size=32)
    return load_diffusers().ShapEImg2ImgPipeline(
        **parts(), image_encoder=CLIPVisionModel(config), image_processor=processor
    )


SOLIDS = {"shap-e": from_text, "shap-e-image": from_image}
