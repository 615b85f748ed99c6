"""Pipelines of films with random weights, one of each kind, built from settings without the network."""

from pretrained.pipelines import LINEAR, clip_text

from trilemma.pretrained.libraries import load_diffusers

EIGHT = {"norm_num_groups": 2, "block_out_channels": (8, 8)}


def t5_text(kind="T5"):
    """A text encoder and its tokeniser, whose tokens are letters."""
    import transformers

    pieces = ["<pad>", "</s>", "<unk>", "\u2581", *(chr(k) for k in range(33, 127))]
    config = getattr(transformers, f"{kind}Config")(
        d_model=32, d_ff=16, d_kv=8, num_heads=2, num_layers=1, vocab_size=200, relative_attention_num_buckets=8,
    )  # fmt: skip
    tokeniser = transformers.T5Tokenizer(vocab=[(piece, -float(k)) for k, piece in enumerate(pieces)], extra_ids=0)
    return {"text_encoder": getattr(transformers, f"{kind}EncoderModel")(config).eval(), "tokenizer": tokeniser}


def stable_diffusion():
    """Parts of one, without a scheduler, that the motion adapter fits."""
    diffusers = load_diffusers()
    unet = diffusers.UNet2DConditionModel(
        **EIGHT, layers_per_block=2, sample_size=8, cross_attention_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        **EIGHT, down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
    )  # fmt: skip
    return {"unet": unet, "vae": vae, **clip_text(), "feature_extractor": None}


def motion_adapter():
    """Layers between frames."""
    return load_diffusers().MotionAdapter(
        block_out_channels=(8, 8), motion_layers_per_block=2, motion_norm_num_groups=2, motion_num_attention_heads=4
    )


def animatediff(parts=None, adapter=None, **schedule):
    """A Stable Diffusion with layers between frames; any number of frames."""
    diffusers = load_diffusers()
    scheduler = diffusers.DDIMScheduler(**{**LINEAR, "beta_schedule": "linear", **schedule})
    return diffusers.AnimateDiffPipeline(
        **(parts or stable_diffusion()), motion_adapter=adapter or motion_adapter(), scheduler=scheduler,
        image_encoder=None,
    )  # fmt: skip


def save_adapted(folder):
    """Folders of a Stable Diffusion, of a motion adapter for it, and of the pipeline of both."""
    diffusers = load_diffusers()
    parts, adapter = stable_diffusion(), motion_adapter()
    plain = {"scheduler": diffusers.DDIMScheduler(**LINEAR), "safety_checker": None, "requires_safety_checker": False}
    diffusers.StableDiffusionPipeline(**parts, **plain).save_pretrained(folder / "plain")
    adapter.save_pretrained(folder / "adapter")
    animatediff(parts, adapter, timestep_spacing="linspace").save_pretrained(folder / "both")


def ltx():
    """8 k + 1 frames."""
    diffusers = load_diffusers()
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=4, attention_head_dim=8, cross_attention_dim=32,
        num_layers=1, caption_channels=32,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1, 1),
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return diffusers.LTXPipeline(transformer=transformer, vae=vae, scheduler=scheduler, **t5_text())


def wan():
    """4 k + 1 frames."""
    diffusers = load_diffusers()
    transformer = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
        text_dim=32, freq_dim=256, ffn_dim=32, num_layers=2, cross_attn_norm=True, rope_max_seq_len=32,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0)
    return diffusers.WanPipeline(
        transformer=transformer, vae=vae, scheduler=scheduler, transformer_2=None, **t5_text("UMT5")
    )


def cogvideox():
    """4 k + 1 frames."""
    diffusers = load_diffusers()
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=4, attention_head_dim=8, in_channels=4, out_channels=4, time_embed_dim=2,
        text_embed_dim=32, num_layers=1, sample_width=2, sample_height=2, sample_frames=9, patch_size=2,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2
    )
    return diffusers.CogVideoXPipeline(
        transformer=transformer, vae=vae, scheduler=diffusers.CogVideoXDDIMScheduler(), **t5_text()
    )


def svd():
    """From an image; any number of frames."""
    diffusers = load_diffusers()
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    unet = diffusers.UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 64), layers_per_block=2, sample_size=32, cross_attention_dim=32,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), num_attention_heads=8,
        projection_class_embeddings_input_dim=96, addition_time_embed_dim=32,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=[32, 64], down_block_types=["DownEncoderBlock2D"] * 2, latent_channels=4
    )
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", interpolation_type="linear",
        prediction_type="v_prediction", use_karras_sigmas=True, timestep_type="continuous", sigma_max=700.0,
        sigma_min=0.002,
    )  # fmt: skip
    encoder = CLIPVisionConfig(
        hidden_size=32, projection_dim=32, num_hidden_layers=1, num_attention_heads=4, image_size=224,
        intermediate_size=37, patch_size=32,
    )  # fmt: skip
    return diffusers.StableVideoDiffusionPipeline(
        unet=unet, vae=vae, scheduler=scheduler, image_encoder=CLIPVisionModelWithProjection(encoder),
        feature_extractor=CLIPImageProcessor(crop_size=224, size=224),
    )  # fmt: skip


FILMS = {"animatediff": animatediff, "ltx": ltx, "wan": wan, "cogvideox": cogvideox, "svd": svd}
