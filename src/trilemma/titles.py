"""What the values of a log are called on plots and pages.

The validation logs a mean square and its root. Curves show the square, which training logs, too; a single value is
given as its root, which is in the unit of the pixels.
"""

TITLES = {
    "mse": "squared error per pixel",
    "rmse": "error (RMSE)",
    "bce": "cross-entropy",
    "bce_nats": "cross-entropy (nats)",
    "gaussian_nats": "reconstruction error (nats)",
    "huber": "Huber error",
    "eps_mse": "squared error of the noise",
    "noise_mse": "squared error of the noise",
    "noise_rmse": "error of the noise (RMSE)",
    "denoising_mse": "loss of denoising",
    "denoising_rmse": "error of denoising (RMSE)",
    "linear_denoising_mse": "loss of denoising, linear estimate",
    "linear_denoising_rmse": "error of denoising, linear estimate (RMSE)",
    "loss_by_noise": "loss by noise level",
    "loss_clean": "loss, little noise",
    "loss_middle": "loss, medium noise",
    "loss_noisy": "loss, much noise",
    "bits_per_dim": "bound on bits per dimension",
    "mean_code_rmse": "error from the mean code (RMSE)",
    "best_code_rmse": "error from the likeliest code (RMSE)",
    "kl_nats": "KL divergence (nats)",
    "kl_by_level_nats": "KL divergence by level (nats)",
    "neg_elbo_nats": "negative ELBO (nats)",
    "prior_nats": "prior of the codes (nats)",
    "nats": "loss per code (nats)",
    "perplexity": "codes in use (perplexity)",
    "used_codes": "codes in use (share)",
    "images": "held-out images measured",
    "active_units": "active units of the code",
    "d_real": "D(real image)",
    "d_fake": "D(generated image)",
    "critic_output": "critic's output (1 is real)",
    "logit_real": "critic's logit, real images",
    "logit_fake": "critic's logit, generated images",
    "critic_logit": "critic's mean logit",
    "auroc": "real above generated (AUROC)",
    "gradient_norm": "norm of the gradient",
    "critic_overfit": "overfit of the critic (1: by heart)",
    "penalty": "penalty on the critic's slope",
}


def title(part: str) -> str:
    """A part of the loss, or a validation value without "valid_", in words.

    >>> title("kl_nats"), title("new_part_nats"), title("new_mse")
    ('KL divergence (nats)', 'new part (nats)', 'new mse')
    """
    return TITLES.get(part, part.replace("_nats", " (nats)").replace("_", " "))


def root_of(name: str) -> str | None:
    """The name of the root of a mean square; None if it is not a mean square.

    >>> root_of("valid_noise_mse"), root_of("valid_noise_rmse"), root_of("loss")
    ('valid_noise_rmse', None, None)
    """
    return f"{name.removesuffix('mse')}rmse" if name.endswith("mse") and not name.endswith("rmse") else None


def square_of(name: str) -> str | None:
    """The name of the mean square of a root; None if it is not a root.

    >>> square_of("valid_rmse"), square_of("valid_mse")
    ('valid_mse', None)
    """
    return f"{name.removesuffix('rmse')}mse" if name.endswith("rmse") else None
