"""Settings under which the large presets are small enough for tests of every model."""

from typing import Any

_UNET = {"width": 8, "multipliers": (1, 2), "depth": 1}
SMALL: dict[str, dict[str, Any]] = {
    "diffusion": _UNET,
    "diffusion-flow": _UNET,
    "diffusion-edm": _UNET,
    "diffusion-dit": {"width": 32, "depth": 2, "heads": 2},
    "diffusion-cifar": _UNET,
    **{name: {"latent": 8, "width": 8} for name in ("gan-dcgan", "gan-wgan", "gan-wgan-gp", "gan-r3")},
    "diffusion-text": {**_UNET, "text_width": 32, "text_depth": 1},
    "diffusion-upscale": _UNET,
    "diffusion-inpaint": _UNET,
    "ae-kl": {"width": 8, "blocks": 1, "feature_loss": 0.0},
    "diffusion-latent": {**_UNET, "check": False},
    "gan-style": {"width": 4, "latent": 8, "styles": 8, "penalty_every": 2, "path_every": 3},
}
# the U-Net of "diffusion", by other settings
ALIKE = ("diffusion-flow", "diffusion-edm", "diffusion-cifar", "diffusion-inpaint")

# what their tests see, those of another preset see, too: they are trained among the slow tests
PLAIN = [
    "ae-conv",
    "ae-denoising",
    "ae-recurrent",
    "ae-residual",
    "ae-sparse",
    "ae-tied",
    "vae-beta",
    "vae-conv",
    "vae-hierarchical",
    "vae-ladder",
    "vae-mnist",
    "gan-dcgan",
    "gan-dcgan-28",
    "gan-r3",
    "gan-wgan",
    "diffusion-small",
    "diffusion-dit",
    "diffusion-upscale",
]


def small(name: str) -> dict[str, Any]:
    """The settings of a preset in tests: those that make it small, {} for one that is."""
    return SMALL.get(name, {})
