"""A tiny Stable Diffusion with random weights, built without the network and saved as a folder: 64x64 images."""

import pytest
import torch

from trilemma.pretrained.libraries import load_diffusers, silence


def tiny_pipeline():
    """Text to image; the network of U-Net, text encoder and autoencoder have a few thousand numbers."""
    diffusers = load_diffusers()
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(k) for k in range(33, 127)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    torch.manual_seed(0)
    channels = {"norm_num_groups": 2, "block_out_channels": (4, 8)}
    unet = diffusers.UNet2DConditionModel(
        **channels, layers_per_block=1, sample_size=32, cross_attention_dim=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        **channels, down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    text = CLIPTextConfig(
        hidden_size=8, intermediate_size=16, num_attention_heads=2, num_hidden_layers=2, vocab_size=1000,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    tokeniser = CLIPTokenizer(vocab={word: k for k, word in enumerate(words)}, merges=[], model_max_length=16)
    return diffusers.StableDiffusionPipeline(
        vae=vae, unet=unet, scheduler=scheduler, text_encoder=CLIPTextModel(text), tokenizer=tokeniser,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The folder of the pipeline."""
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("pipelines") / "tiny"
    with torch.random.fork_rng(), silence():
        tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def lora(tiny, tmp_path_factory):
    """Weights of a LoRA for its U-Net."""
    peft = pytest.importorskip("peft")
    diffusers, folder = load_diffusers(), tmp_path_factory.mktemp("lora")
    with torch.random.fork_rng(), silence():
        torch.manual_seed(1)
        unet = diffusers.UNet2DConditionModel.from_pretrained(tiny / "unet")
        unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
        layers = peft.get_peft_model_state_dict(unet)
        diffusers.StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
    return folder / "pytorch_lora_weights.safetensors"
