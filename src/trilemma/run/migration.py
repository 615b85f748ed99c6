"""A config.json of an earlier version, in the form of this one.

Format 1 had the keys of the data among those of the training, not all of them in every version, and wrote "optimal" for
each variance that was not given. No model had parts. Up to format 2, a patch that was not given could have more numbers
than the width of a diffusion model.
"""

import math
from typing import Any

from trilemma.config import VARIANCE

FORMAT = 3
DISCRETE = {"variables", "categories", "hard"}  # settings of vae-discrete
DATA_KEYS = ("size", "channels", "valid", "split_seed", "split_rule", "frames")
NEW_KEYS = {"frames": "first", "split_seed": 0, "split_rule": "tenth", "valid": None, "warmup_share": 0.1}
# that the first versions of format 1 did not write, with what they did


def migrated(config: dict[str, Any]) -> dict[str, Any]:
    """The content of a config.json as this version writes it; of a later format, as it is.

    Raises:
        LookupError, TypeError, AttributeError: it is not that of a run.
    """
    if config["format"] > 1:
        settings = with_present_names(config["model_config"])
        settings = with_default_prediction(settings) if config["format"] < 3 else settings
        config = {**config, "parts": with_present_parts(config.get("parts", {}))}
        is_as_before = config["format"] > 2 or config.get("parts")  # that of codes followed their shape
        return {**config, "model_config": settings if is_as_before else with_stated_patch(settings)}
    settings = with_stated_patch(stated_variance(config["model_config"]))
    shape = settings.get("shape")
    channels = shape[0] if isinstance(shape, list) and shape else None
    written = {**NEW_KEYS, "channels": channels, **config["training"]}
    data = {key: written.pop(key, None) for key in DATA_KEYS}
    new = {"format": FORMAT, "model_config": settings, "data_config": data, "training": written, "parts": {}}
    return {**config, **new}


def with_present_names(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a model as they are called now: a U-Net's had the heads of a transformer, which it has not, and a
    weighting was called "soft". Consistency tuning took its targets from the data alone. The numbers at a place of
    ae-kl were called channels, as those of the images."""
    if settings.keys() >= {"code_noise", "channels"}:
        return {"dim" if key == "channels" else key: value for key, value in settings.items()}
    if "gap" in settings and "targets" not in settings:
        return {**settings, "targets": "data"}
    if "weighting" not in settings:
        return settings
    unet = settings.get("network") == "unet"
    kept = {key: value for key, value in settings.items() if not (unet and key == "heads")}
    return {**kept, "weighting": "soft-min-snr" if kept["weighting"] == "soft" else kept["weighting"]}


def with_present_parts(parts: dict[str, Any]) -> dict[str, Any]:
    """The parts of a model, whose settings are called as they are now."""
    return {
        name: {**part, "settings": with_present_names(part["settings"])}
        if isinstance(part, dict) and isinstance(part.get("settings"), dict)
        else part
        for name, part in parts.items()
    }


def with_default_prediction(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a diffusion model, of which `edm` was the default, that of a size for which it still is."""
    is_default = settings.get("prediction") == "edm" and settings.get("schedule") != "edm"
    is_small = max(settings.get("shape", [0])[1:], default=0) <= 32
    return {**settings, "prediction": None} if is_default and is_small else settings


def with_stated_patch(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a diffusion model, where a patch that follows another rule now is written out."""
    is_given = settings.get("patch") is not None or settings.get("portable")
    if is_given or not settings.keys() >= {"patch", "network", "width", "shape"}:
        return settings
    channels, *sides = settings["shape"]
    is_dit = settings["network"] == "dit"
    patch = 2 ** max(0, round(math.log2(max(sides) / (7 if is_dit else 28))))
    patch = math.gcd(patch, *sides) if is_dit else patch
    return settings if channels * patch**2 <= settings["width"] else {**settings, "patch": patch}


def stated_variance(settings: dict[str, Any]) -> dict[str, Any]:
    """A model's settings, where the default variance is written in one way: behind a squared error, "optimal" meant
    VARIANCE; elsewhere None means the same. For vae-discrete none was written, and it was VARIANCE."""
    if settings.get("variance") not in (None, "optimal") or not ("variance" in settings or settings.keys() >= DISCRETE):
        return settings
    return {**settings, "variance": VARIANCE if settings.get("reconstruction", "mse") == "mse" else None}
