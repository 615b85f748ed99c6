"""Presets of the diffusion models, with their training and the values they must reach."""

import math

from trilemma.diffusion.config import PixelDiffusionConfig
from trilemma.diffusion.denoiser import Diffusion, DiffusionConfig
from trilemma.diffusion.model import PixelDiffusion
from trilemma.recipes.published import on_fashion
from trilemma.registry import Published, Recipe, register

register(
    Recipe(
        name="diffusion-small",
        family="diffusion",
        summary="denoising diffusion with a small U-Net; 50 network calls per image unless steps= says otherwise",
        suits="8 to 32 px; thousands of images; varied, slow to draw",
        first_samples_s=math.inf,
        source="Ho, Jain & Abbeel 2020; Nichol & Dhariwal 2021 (schedule); Song, Meng & Ermon 2021 (sampler)",
        build=Diffusion,
        config=DiffusionConfig(loss="mse"),  # with the published loss it stays at 0.2855 (docs/results.md)
        training={
            "epochs": 20,
            "batch": 32,
            "lr": 0.003,
            "optimizer": "nadam",
            "clip": 1.0,
            "schedule": "cosine",
            "warmup_images": 10_000,
            "ema_halflife_images": 30_000,
            "monitor": "valid_noise_rmse",
            "channels_last": True,
        },
        published=on_fashion({"loss": "huber", "lr": 0.003, "epochs": 20}, valid_noise_rmse=0.285),
        targets={"valid_noise_rmse": 0.285},
    )
)

BUDGET = {  # of a few minutes to hours on one machine
    "epochs": 20,
    "batch": 32,
    "lr": 0.004,
    "optimizer": "muon",
    "betas": (0.9, 0.99),
    "clip": 1.0,
    "schedule": "cosine",
    "warmup_images": 10_000,
    "ema_halflife_images": 30_000,
    "monitor": "valid_denoising_rmse",
    "channels_last": True,
}

# the noise that a network of minutes to hours is trained on (docs/diffusion.md, the search for settings)
MODERN = {"density": "log-normal", "density_mean": -0.9, "density_std": 1.2}
WITH_OUTLINES = {**MODERN, "density_mean": -1.5}  # of images whose outlines are given; and of codes

register(
    Recipe(
        name="diffusion",
        family="diffusion",
        summary="diffusion with a modern U-Net; 10 network calls per image unless steps= says otherwise",
        suits="28 to 64 px, tuned on grey 28 px; hundreds of images or more; sharp and varied",
        first_samples_s=80,
        source="Karras et al. 2022 (prediction, density of t); Nichol & Dhariwal 2021 (schedule); Jordan et al. 2024 "
        "(optimiser); Zhao et al. 2023 (sampler)",
        build=PixelDiffusion,
        config=PixelDiffusionConfig(**MODERN),
        training=BUDGET,
    )
)

register(
    Recipe(
        name="diffusion-flow",
        family="diffusion",
        summary="flow matching along straight lines, with the same U-Net",
        suits="28 to 64 px, tuned on grey 28 px; hundreds of images or more; sharp and varied",
        source="Lipman et al. 2023; Liu et al. 2023; Esser et al. 2024 (density of t)",
        build=PixelDiffusion,
        config=PixelDiffusionConfig(schedule="flow", prediction="flow", density="logit-normal"),
        training=BUDGET,
    )
)

register(
    Recipe(
        name="diffusion-edm",
        family="diffusion",
        summary="noise that is added to images of full strength, with the same U-Net",
        suits="28 to 64 px, tuned on grey 28 px; hundreds of images or more; sharp and varied",
        source="Karras et al. 2022",
        build=PixelDiffusion,
        config=PixelDiffusionConfig(
            schedule="edm", prediction="edm", density="log-normal", density_mean=-1.2, density_std=1.2
        ),
        training=BUDGET,
    )
)

register(
    Recipe(
        name="diffusion-dit",
        family="diffusion",
        summary="diffusion with a transformer over patches",
        suits="sides that 4 divides; a GPU",
        source="Peebles & Xie 2023",
        build=PixelDiffusion,
        config=PixelDiffusionConfig(network="dit", width=192, depth=6),
        training={**BUDGET, "channels_last": False, "optimizer": "adamw", "batch": 64, "lr": 0.0005},
    )
)

register(
    Recipe(
        name="diffusion-cifar",
        family="diffusion",
        summary="the published setting for CIFAR-10 at its full length, for GPUs",
        suits="32 px in colour; days on a GPU",
        source="Karras et al. 2022, table 7",
        build=PixelDiffusion,
        config=PixelDiffusionConfig(
            shape=(3, 32, 32),
            schedule="edm",
            prediction="edm",
            density="log-normal",
            density_mean=-1.2,
            density_std=1.2,
            data_std=0.5,
            width=128,
            multipliers=(2, 2, 2),
            depth=4,
            attention_px=16,
            dropout=0.13,
            augment_p=0.12,
        ),
        training={
            "images": 200_000_000,
            "batch": 512,
            "lr": 0.001,
            "optimizer": "adam",
            "clip": None,
            "schedule": "constant",
            "warmup_images": 10_000_000,
            "ema_halflife_images": 500_000,
        },
        data="cifar10",
        published=Published("Karras et al. 2022, table 2", "cifar10", values={"FID, 35 calls": 1.97}),
    )
)
register(
    Recipe(
        name="diffusion-text",
        family="diffusion",
        summary="draws what a caption says, learned from the captions of one's own images",
        suits="28 to 64 px; thousands of images with captions; a few hundred words",
        source="Rombach et al. 2022 (cross-attention); Ho & Salimans 2022 (guidance); Karras et al. 2022; Provilkov et "
        "al. 2020 (spelling)",
        build=PixelDiffusion,
        config=PixelDiffusionConfig(**MODERN, captions=True, spelling_p=0.02, attention_px=16),
        training=BUDGET,
        data="scenes",
    )
)

register(
    Recipe(
        name="diffusion-upscale",
        family="diffusion",
        summary="enlarges images upscale=2, 4 or 8 times; larger ones than in training tile by tile",
        suits="28 to 64 px; thousands of images; see trilemma upscale",
        source="Saharia et al. 2021; Bar-Tal et al. 2023 (tiles); Karras et al. 2022",
        build=PixelDiffusion,
        config=PixelDiffusionConfig(**WITH_OUTLINES, upscale=4),
        training=BUDGET,
    )
)

register(
    Recipe(
        name="diffusion-inpaint",
        family="diffusion",
        summary="draws what is under a mask, in the light of what is outside; see trilemma edit mask=",
        suits="28 to 64 px; thousands of images",
        source="Rombach et al. 2022 (section 4.5); Saharia et al. 2022 (Palette); Karras et al. 2022",
        build=PixelDiffusion,
        config=PixelDiffusionConfig(**WITH_OUTLINES, inpaint=True),
        training=BUDGET,
    )
)
