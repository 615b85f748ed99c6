"""Pipelines of each kind with random weights and a few thousand parameters, built from settings without the network."""

import torch

from trilemma.pretrained.libraries import load_diffusers, silence

CHANNELS = {"norm_num_groups": 2, "block_out_channels": (4, 8)}
CROSS = {
    "layers_per_block": 1, "sample_size": 32, "cross_attention_dim": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip
LINEAR = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
    "set_alpha_to_one": False, "steps_offset": 1,
}  # fmt: skip


def save(build, folder):
    """The folder, with the pipeline that `build` makes in it; the caller's random numbers stay as they are."""
    with torch.random.fork_rng(), silence():
        torch.manual_seed(0)
        build().save_pretrained(folder)
    return folder


def clip_text():
    """A text encoder and its tokeniser, whose tokens are letters."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(k) for k in range(33, 127)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    text = CLIPTextConfig(
        hidden_size=8, intermediate_size=16, num_attention_heads=2, num_hidden_layers=2, vocab_size=1000,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    tokeniser = CLIPTokenizer(vocab={word: k for k, word in enumerate(words)}, merges=[], model_max_length=16)
    return {"text_encoder": CLIPTextModel(text), "tokenizer": tokeniser}


def autoencoder():
    """Of 4 channels at half the size."""
    return load_diffusers().AutoencoderKL(
        **CHANNELS, down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
    )  # fmt: skip


def tiny_pipeline():
    """Text to image."""
    diffusers = load_diffusers()
    torch.manual_seed(0)
    return diffusers.StableDiffusionPipeline(
        unet=diffusers.UNet2DConditionModel(**CHANNELS, **CROSS), vae=autoencoder(),
        scheduler=diffusers.DDIMScheduler(**LINEAR), **clip_text(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def upscaling():
    """From an image to one of twice its sides, for its autoencoder has half of them."""
    diffusers = load_diffusers()
    return diffusers.StableDiffusionUpscalePipeline(
        unet=diffusers.UNet2DConditionModel(**CHANNELS, **CROSS, in_channels=7, num_class_embeds=1000),
        vae=autoencoder(), scheduler=diffusers.DDIMScheduler(**LINEAR), low_res_scheduler=diffusers.DDPMScheduler(),
        **clip_text(), safety_checker=None, feature_extractor=None, watermarker=None,
    )  # fmt: skip


def sdxl():
    """Text to image with two text encoders, and as many embeddings."""
    diffusers = load_diffusers()
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    text = clip_text()
    second = CLIPTextConfig(**{**text["text_encoder"].config.to_dict(), "projection_dim": 8})
    unet = diffusers.UNet2DConditionModel(
        **CHANNELS, **{**CROSS, "cross_attention_dim": 16}, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 8, use_linear_projection=True,
    )  # fmt: skip
    return diffusers.StableDiffusionXLPipeline(
        unet=unet, vae=autoencoder(), scheduler=diffusers.DDIMScheduler(**LINEAR), **text,
        text_encoder_2=CLIPTextModelWithProjection(second), tokenizer_2=text["tokenizer"],
    )  # fmt: skip


def inpainting():
    """Under a mask alone: its network reads the mask and what is outside of it beside the noise."""
    diffusers = load_diffusers()
    return diffusers.StableDiffusionInpaintPipeline(
        unet=diffusers.UNet2DConditionModel(**CHANNELS, **CROSS, in_channels=4 + 1 + 4), vae=autoencoder(),
        scheduler=diffusers.DDIMScheduler(**LINEAR), **clip_text(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


KINDS = {"tiny": tiny_pipeline, "upscaling": upscaling, "sdxl": sdxl, "inpainting": inpainting}
