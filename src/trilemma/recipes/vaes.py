"""Presets of the variational autoencoders, with their training and the values they must reach."""

import math

from trilemma.autoencoders.discrete import DiscreteConfig, DiscreteVAE
from trilemma.autoencoders.hierarchical import HierarchicalConfig, HierarchicalVAE
from trilemma.autoencoders.vae import VAE, VAEConfig
from trilemma.autoencoders.vq import VQConfig, make_vq
from trilemma.recipes.published import SPECIFICATION, on_fashion
from trilemma.registry import Published, Recipe, register

COMMON = {"schedule": "cosine", "monitor": "valid_rmse"}
COMMON_NATS = COMMON | {"monitor": "valid_neg_elbo_nats"}

register(
    Recipe(
        name="vae",
        family="vae",
        summary="variational autoencoder with a standard normal prior",
        suits="8 to 64 px, grey or colour; from 200 images; a code to walk over",
        first_samples_s=40,
        source="Kingma & Welling 2014",
        build=VAE,
        config=VAEConfig(),
        # The large batch needs the long warm-up, or it leaves fewer units in use.
        training={
            "epochs": 20,
            "batch": 256,
            "lr": 0.01,
            "warmup_images": 110_000,
            **COMMON,
            "schedule": "linear",
        },
        published=on_fashion({"lr": 0.001, "epochs": 20}, valid_rmse=0.148),
        targets={"valid_rmse": 0.148},
    )
)

register(
    Recipe(
        name="vae-mnist",
        family="vae",
        summary="variational autoencoder with a Bernoulli decoder, in nats",
        suits="8 to 28 px, black and white; a likelihood in nats",
        first_samples_s=80,
        source="Kingma & Welling 2014",
        build=VAE,
        config=VAEConfig(hidden=(400,), latent=20, reconstruction="bce"),
        training={"epochs": 10, "batch": 128, "lr": 0.006, "optimizer": "adam", **COMMON_NATS, "schedule": "linear"},
        data="mnist",
        published=Published(
            SPECIFICATION,
            "mnist",
            {"optimizer": "adam", "lr": 0.001, "lr_schedule": "constant", "batch": 128, "epochs": 10},
            {"train_neg_elbo_nats": 105},
        ),
        targets={"valid_neg_elbo_nats": 105},
    )
)

register(
    Recipe(
        name="vae-conv",
        family="vae",
        summary="convolutional variational autoencoder with 2 numbers to a code: a plane to walk over",
        suits="28 px, grey; a map of the images in two dimensions",
        first_samples_s=math.inf,
        source="Kingma & Welling 2014",
        build=VAE,
        # The published loss is B * D * mse + KL with B = 1000. Divided by B * D it is mse + KL / (B * D): beta = 1 / B.
        config=VAEConfig(network="strided", latent=2, beta=0.001),
        # 20 epochs suit a laptop. Weight decay is apart from the gradient (AdamW), so that the scale of the loss does
        # not matter to it.
        training={"epochs": 20, "batch": 256, "lr": 0.004, "optimizer": "adamw", "weight_decay": 1e-5, **COMMON},
        data="mnist",
        published=Published(
            SPECIFICATION,
            "mnist",
            {
                "optimizer": "adam",
                "lr": 0.001,
                "weight_decay": 1e-5,
                "batch": 256,
                "epochs": 500,
                "valid": 0.2,
                "beta": 0.001,
            },
        ),
    )
)

register(
    Recipe(
        name="vae-beta",
        family="vae",
        summary="beta-VAE: a heavier KL divergence, for units that stand for one factor each; also capacity_nats=25",
        suits="28 to 64 px; looking for units that follow one factor",
        first_samples_s=math.inf,
        source="Higgins et al. 2017; Burgess et al. 2018 (controlled capacity)",
        build=VAE,
        # A Bernoulli of these colours is so soft that beta=4 leaves 5 nats of a code, less than the factors have (8).
        config=VAEConfig(network="strided", latent=10, beta=4, reconstruction="gaussian", variance=0.02),
        # The last weights: no value on held-out images follows the weighted loss.
        training={"epochs": 30, "batch": 128, "lr": 0.002, "optimizer": "adam", "schedule": "cosine", "monitor": None},
        data="shapes",
    )
)

register(
    Recipe(
        name="vae-conditional",
        family="vae",
        summary="variational autoencoder that is given the label and draws the class asked for",
        suits="28 px, images with classes; draws the class you ask for",
        first_samples_s=40,
        source="Sohn et al. 2015",
        build=VAE,
        # The heavier the divergence, the less of the class is left in the code, which then has to come from the label:
        # with beta=1 and hidden=400 only 79% of the samples were of the class asked for.
        config=VAEConfig(hidden=(512, 512), latent=20, beta=4, reconstruction="bce", conditional=True, n_classes=10),
        training={"epochs": 20, "batch": 128, "lr": 0.002, "optimizer": "adam", "schedule": "linear", "monitor": None},
        data="mnist",
        targets={"class_obeyed": 0.95},
    )
)

register(
    Recipe(
        name="vae-discrete",
        family="vae",
        summary="variational autoencoder whose code is 32 choices of 16 categories",
        suits="28 px, grey; codes of choices, for compression",
        first_samples_s=math.inf,
        source="Jang, Gu & Poole 2017; Maddison, Mnih & Teh 2017",
        build=DiscreteVAE,
        config=DiscreteConfig(),
        # Without the warm-up, rates from 0.006 on lose every variable in the first steps.
        training={"epochs": 20, "batch": 64, "lr": 0.004, "warmup_images": 20_000, **COMMON},
        published=on_fashion({"lr": 0.001, "epochs": 20}, valid_rmse=0.168),
        targets={"valid_rmse": 0.168},
    )
)

register(
    Recipe(
        name="vae-vq",
        family="vae",
        summary="vector-quantised autoencoder, samples through an autoregressive prior over its codes",
        suits="28 to 64 px; tens of thousands of images; sharper than vae",
        first_samples_s=math.inf,
        source="van den Oord, Vinyals & Kavukcuoglu 2017",
        build=make_vq,
        config=VQConfig(),
        as_part={"prior": False, "dim": 4},  # as many numbers at a place as of ae-kl
        # No value to keep the best weights by: while the autoencoder learns, the prior is untrained.
        training={
            "epochs": 20,
            "batch": 128,
            "lr": {"autoencoder": 0.002, "prior": 0.002},
            "optimizer": "adam",
            "betas": (0.9, 0.99),
            "warmup_images": 5_000,
            "schedule": "cosine",
        },
    )
)

register(
    Recipe(
        name="vae-hierarchical",
        family="vae",
        summary="variational autoencoder with a chain of codes; structure=ladder for a top-down posterior",
        suits="28 px, black and white; codes on several levels",
        source="Rezende, Mohamed & Wierstra 2014; Sonderby et al. 2016 (warm-up, ladder)",
        build=HierarchicalVAE,
        config=HierarchicalConfig(warmup=0.2, free_nats=0.5),
        training={
            "epochs": 50,
            "batch": 128,
            "lr": 0.002,
            "optimizer": "adamw",
            "weight_decay": 0.01,
            "clip": 200,
            "warmup_images": 10_000,
            "ema_halflife_images": 50_000,
            **COMMON_NATS,
        },
        data="mnist-binary",
    )
)

register(
    Recipe(
        name="vae-ladder",
        family="vae",
        summary="convolutional ladder of codes at three sizes, several to a size",
        suits="28 px, black and white; the best likelihood here, the longest training",
        source="Sonderby et al. 2016; Kingma et al. 2016; Child 2021",
        build=HierarchicalVAE,
        config=HierarchicalConfig(
            structure="ladder",
            network="residual",
            levels=(2, 8, 16),
            hidden=(32, 64, 64),
            depth=(1, 3, 2),
            free_nats=1.0,
        ),
        training={
            "epochs": 100,
            "batch": 64,
            "lr": 0.002,
            "optimizer": "adamw",
            "weight_decay": 0.01,
            "clip": 200,
            "warmup_images": 10_000,
            "ema_halflife_images": 100_000,
            "channels_last": True,
            **COMMON_NATS,
        },
        data="mnist-binary",
        targets={"bound_nats": -83},
    )
)
