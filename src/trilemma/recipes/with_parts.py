"""Presets with parts: diffusion on the codes of an autoencoder, and what is tuned from a trained model, with a critic
or without."""

from collections.abc import Mapping

from torch import nn

from trilemma.diffusion.few import FewConfig, FewSteps
from trilemma.diffusion.latent import LatentDiffusion, LatentDiffusionConfig
from trilemma.gans.adversary import Adversary
from trilemma.recipes.diffusion import BUDGET, WITH_OUTLINES
from trilemma.registry import Recipe, register

register(
    Recipe(
        name="diffusion-latent",
        family="diffusion",
        summary="diffusion on the codes of an autoencoder, which is trained first: quicker to draw",
        suits="64 px and more; thousands of images",
        source="Rombach et al. 2022; Karras et al. 2022 (prediction, density of t)",
        build=LatentDiffusion,
        config=LatentDiffusionConfig(
            data_std=1.0,  # the codes are standardised
            **WITH_OUTLINES,
            clip_x0=False,
        ),
        training=BUDGET,
        parts={"autoencoder": "ae-kl"},
    )
)


def few_steps(config: FewConfig, parts: Mapping[str, nn.Module]) -> FewSteps:
    """Consistency tuning, with a critic of the GANs' where adversarial= asks for one."""
    return FewSteps(config, parts, Adversary)


register(
    Recipe(
        name="diffusion-few",
        family="diffusion",
        summary="a trained diffusion model tuned to draw in 1, 2 or 4 network calls; init=RUN",
        suits="as the model that it begins with; quick to draw",
        source="Song et al. 2023; Geng et al. 2025; Sauer et al. 2023 (adversarial=)",
        build=few_steps,
        config=FewConfig(),
        training={
            "epochs": 10,
            "batch": 32,
            "lr": 0.001,
            "optimizer": "muon",
            "betas": (0.9, 0.99),
            "clip": 1.0,
            "schedule": "cosine",
            "warmup_images": 5_000,
            "ema_halflife_images": 30_000,
            "channels_last": True,
        },
        parts={"init": "diffusion"},
    )
)
