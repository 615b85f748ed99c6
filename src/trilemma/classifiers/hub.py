"""Feature networks of the Hugging Face hub: DINOv2 (Oquab et al. 2024) and CLIP (Radford et al. 2021), by transformers.

Features are the normalised class token of DINOv2, and the projected embedding of an image of CLIP. Images come to 224
px by bicubic interpolation with antialiasing, and to the mean and the deviation that each was trained with. "dinov2"
and "clip" take the repositories below; "dinov2:PLACE" and "clip:PLACE" another repository, or a folder. The commit is
noted.
"""

import hashlib
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trilemma.classifiers.bundled import FeatureNetwork
from trilemma.errors import UserError
from trilemma.extras import install_line
from trilemma.hardware import pick_device

SIDE = 224  # px, of networks that do not say


class Kind(NamedTuple):
    """Repository, the class of transformers, the output that is taken, mean and deviation of the inputs."""

    repository: str
    model: str
    output: str
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


KINDS = {
    "dinov2": Kind(
        "facebook/dinov2-base", "Dinov2Model", "pooler_output", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ),
    "clip": Kind(
        "openai/clip-vit-base-patch32",
        "CLIPVisionModelWithProjection",
        "image_embeds",
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
    ),
}


class HubNetwork(nn.Module):
    """A network of transformers whose inputs are images in [0, 1]."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, model: nn.Module, kind: Kind) -> None:
        super().__init__()
        self.model, self.output = model, kind.output
        for name, values in (("mean", kind.mean), ("deviation", kind.deviation)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1))

    def features(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> (B, D)."""
        result: Any = self.model(pixel_values=(image - self.mean) / self.deviation)
        return result[self.output]


def is_hub_name(name: str) -> bool:
    """Whether a feature network is one of these.

    >>> is_hub_name("dinov2"), is_hub_name("clip:my/folder"), is_hub_name("clips")
    (True, True, False)
    """
    return name.partition(":")[0] in KINDS


def load_hub_network(name: str, *, note: str = "") -> FeatureNetwork:
    """A network by its name, from the hub or a folder, on the first device.

    Raises:
        UserError: transformers is not installed, or the place holds no such network.
    """
    word, _, place = name.partition(":")
    kind, place = KINDS[word], place or KINDS[word].repository
    try:
        import transformers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(f"features={name} needs the package transformers ({error}): {install_line('hub')}") from None
    try:
        kind_of_model = getattr(transformers, kind.model)
        model, info = kind_of_model.from_pretrained(place, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreadable(name, place, str(error).strip().partition("\n")[0]) from None
    if missing := [*info["missing_keys"], *info["mismatched_keys"]]:
        raise _unreadable(name, place, f"{len(missing)} of its weights are not there, such as {missing[0]}")
    device, side = pick_device(), getattr(model.config, "image_size", SIDE)
    side = SIDE if word == "dinov2" and side > SIDE else side  # trained at 518 px last, and used at 224 for features
    network = HubNetwork(model.float(), kind).requires_grad_(False).eval().to(device)
    commit = getattr(model.config, "_commit_hash", None)
    note = f"{note} ({place}{f' at commit {commit[:12]}' if commit else ''})" if note else ""
    shown = word if place == kind.repository else f"{word}-{place.rstrip('/').rpartition('/')[2]}"
    return FeatureNetwork(shown, network, (3, side, side), _digest(model), note, "bicubic-antialias", str(device))


def _unreadable(name: str, place: str, why: str) -> UserError:
    word = name.partition(":")[0]
    return UserError(
        f"features={name}: {place} cannot be read as a network of this kind ({why}); give a repository of the hub or a "
        f"folder, as in features={word}:PLACE"
    )


def _digest(model: nn.Module) -> str:
    """A hash of the weights."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
