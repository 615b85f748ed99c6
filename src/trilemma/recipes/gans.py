"""Presets of the generative adversarial networks, with their training."""

import math

from trilemma.gans.config import GANConfig
from trilemma.gans.gan import GAN
from trilemma.gans.style import StyleGAN, StyleGANConfig
from trilemma.recipes.published import SPECIFICATION, on_fashion
from trilemma.registry import Published, Recipe, register

RATES = {"critic": 0.0005, "generator": 0.001}
PUBLISHED = {"lr": RATES, "betas": (0.9, 0.999), "epochs": 20}

register(
    Recipe(
        name="gan",
        family="gan",
        summary="fully connected GAN; one network call per image",
        suits="28 px, grey; the idea of a GAN, not its best samples",
        first_samples_s=40,
        source="Goodfellow et al. 2014",
        build=GAN,
        config=GANConfig(network="mlp", latent=32, width=128),
        # In batches of 256 the published betas gave a recall of 0.001, these 0.05.
        training={
            "epochs": 20,
            "batch": 256,
            "lr": RATES,
            "optimizer": "nadam",
            "betas": (0.5, 0.999),
            "clip": 1.0,
            "schedule": "constant",
            "ema_halflife_images": 10_000,
        },
        published=on_fashion(PUBLISHED, **{"critic/loss": 0.9, "generator/loss": 1.7}),
    )
)

register(
    Recipe(
        name="gan-dcgan",
        family="gan",
        summary="deep convolutional GAN; one network call per image",
        suits="28 to 64 px, grey or colour; thousands of images; sharp samples",
        first_samples_s=math.inf,
        source="Radford, Metz & Chintala 2016",
        build=GAN,
        # In 4 minutes of MNIST on 2 cores the published batches of 128, width 64 and rates of 0.0002 gave a Frechet
        # distance of 13.9, these 2.1: a step takes a seventh of the time (docs/gans.md).
        config=GANConfig(width=32),
        training={
            "epochs": 10,
            "batch": 32,
            "lr": {"critic": 0.0005, "generator": 0.0005},
            "optimizer": "adam",
            "betas": (0.5, 0.999),
            "clip": None,
            "schedule": "constant",
            "ema_halflife_images": 10_000,
            "channels_last": True,
        },
        published=Published(
            SPECIFICATION,
            "mnist",
            {"optimizer": "adam", "lr": 0.0002, "betas": (0.5, 0.999), "batch": 128, "width": 64},
        ),
        data="mnist",
    )
)

register(
    Recipe(
        name="gan-dcgan-28",
        family="gan",
        summary="small convolutional GAN for 28x28 images",
        suits="28 px, grey; a small GAN for a slow machine",
        first_samples_s=math.inf,
        source="Radford, Metz & Chintala 2016, reduced to two stages",
        build=GAN,
        config=GANConfig(network="dcgan-28"),
        training={
            "epochs": 20,
            "batch": 32,
            "lr": RATES,
            "optimizer": "nadam",
            "clip": 1.0,
            "schedule": "constant",
            "channels_last": True,
        },
        published=on_fashion(PUBLISHED, **{"critic/loss": 0.67, "generator/loss": 1.71}),
    )
)

register(
    Recipe(
        name="gan-wgan",
        family="gan",
        summary="Wasserstein GAN with clipped weights; its critic's estimate follows the quality",
        suits="28 to 64 px, grey or colour; to learn from, gan-wgan-gp trains better",
        source="Arjovsky, Chintala & Bottou 2017",
        build=GAN,
        config=GANConfig(network="plain", loss="wasserstein", weight_clip=0.01, critic_steps=5),
        training={
            "epochs": 50,
            "batch": 64,
            "lr": 5e-5,
            "optimizer": "rmsprop",
            "clip": None,
            "schedule": "constant",
            "ema_halflife_images": 10_000,
        },
        published=Published(
            "Arjovsky et al. 2017, algorithm 1",
            "LSUN bedrooms, 64x64",
            {"optimizer": "rmsprop", "lr": 5e-5, "batch": 64, "critic_steps": 5, "weight_clip": 0.01},
        ),
        data="mnist",
    )
)

register(
    Recipe(
        name="gan-wgan-gp",
        family="gan",
        summary="Wasserstein GAN with a penalty on the critic's slope; its critic's estimate follows the quality",
        suits="28 to 64 px, grey or colour; thousands of images; steady but slow training",
        source="Gulrajani et al. 2017",
        build=GAN,
        config=GANConfig(loss="wasserstein", penalty="gradient", critic_steps=5),
        training={
            "epochs": 50,
            "batch": 64,
            "lr": 1e-4,
            "optimizer": "adam",
            "betas": (0.0, 0.9),
            "clip": None,
            "schedule": "constant",
            "ema_halflife_images": 10_000,
        },
        published=Published(
            # Their code for MNIST has betas of 0.5 and 0.9, batches of 50 and other networks.
            "Gulrajani et al. 2017, algorithm 1, and their code for 64x64 images",
            "ImageNet, 64x64",
            {
                "optimizer": "adam",
                "lr": 1e-4,
                "betas": (0.0, 0.9),
                "batch": 64,
                "critic_steps": 5,
                "penalty": "gradient",
                "penalty_weight": 10.0,
            },
        ),
        data="mnist",
    )
)

register(
    Recipe(
        name="gan-r3",
        family="gan",
        summary="relativistic GAN with penalised slopes and no normalisation, after R3GAN; one network call per image",
        suits="28 to 64 px, grey or colour; thousands of images; varied, steady training",
        source="Huang et al. 2024",
        build=GAN,
        # Of these networks, and of network=r3, which is published: docs/gans.md. The published weight, 0.05, is of
        # images in [-1, 1]; for images in [0, 1] it would be 0.0125.
        config=GANConfig(
            network="plain", latent=64, width=32, loss="relativistic", penalty="r1r2", penalty_weight=0.05
        ),
        training={
            "epochs": 30,
            "batch": 32,
            "lr": 1e-3,
            "optimizer": "adam",
            "betas": (0.0, 0.99),
            "clip": None,
            "schedule": "constant",
            "ema_halflife_images": 10_000,
            "channels_last": True,
        },
        # What no key says: over the first 20 million images, along cosines, the rate falls to 0.00005, the second beta
        # rises from 0.9, the half-life of the average from 0, and the probability of augmentation from 0 to 0.55.
        published=Published(
            "Huang et al. 2024, settings for CIFAR-10",
            "cifar10",
            {
                "network": "r3",
                "group": 8,
                "width": 768,
                "latent": 64,
                "loss": "relativistic",
                "penalty": "r1r2",
                "penalty_weight": 0.0125,
                "penalty_end": 0.1,
                "optimizer": "adam",
                "lr": 2e-4,
                "betas": (0.0, 0.99),
                "batch": 512,
                "ema_halflife_images": 5_000_000,
            },
        ),
        data="mnist",
    )
)

register(
    Recipe(
        name="gan-style",
        family="gan",
        summary="StyleGAN2, small; styles that can be mixed, edited and drawn towards their average",
        suits="28 to 64 px, grey or colour; thousands of images; samples steered by styles",
        source="Karras et al. 2019, 2020",
        build=StyleGAN,
        config=StyleGANConfig(),
        training={
            "epochs": 10,
            "batch": 32,
            "lr": 0.0025,
            "optimizer": "adam",
            "betas": (0.0, 0.99),
            "clip": None,
            "schedule": "constant",
            "ema_halflife_images": 10_000,
        },
        # What no key says: the critic has no residual connections.
        published=Published(
            "Karras et al. 2020 (adaptive augmentation), settings for CIFAR-10",
            "cifar10",
            {
                "mapping_layers": 2,
                "deviation_group": 32,
                "penalty": "r1",
                "penalty_weight": 0.0025,
                "penalty_every": 16,
                "mixing": 0.0,
                "path_weight": 0.0,
                "critic_augment": "adaptive",
                "optimizer": "adam",
                "lr": 0.0025,
                "betas": (0.0, 0.99),
                "batch": 64,
                "ema_halflife_images": 500_000,
            },
        ),
        data="mnist",
    )
)
