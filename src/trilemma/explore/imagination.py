"""What `imagine` gives, the pipeline that it draws with, and its picture of several images."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trilemma.explore.prompted import Request, receipt_of, sums_of
from trilemma.pictures.grid import grid
from trilemma.pretrained.fetch import Place, locate, locate_adapter
from trilemma.pretrained.pipeline import Pipeline, check_lora, load_pipeline

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Imagination:
    """The picture, the file of each image, and the images (n, 3, H, W) in [0, 1]; of one image both files are one.

    Images of several sizes are white on the right and at the bottom, up to the largest; their files are not.
    animation: of a film, whose frames the images are; or of an object that turns. mesh: of an object, if it has one.
    """

    picture: Path
    files: list[Path]
    images: Tensor
    animation: Path | None = None
    mesh: Path | None = None


def load_for(request: Request, model: str | Place, device: str = "auto") -> Pipeline:
    """The pipeline of a request, with its motion adapter and the LoRA of its first cell; those of the others were
    loaded, too, and fit."""
    loras = [None if name is None else Path(name) for name in dict.fromkeys(cell.lora for cell in request.cells)]
    for lora in loras:
        if lora is not None:
            check_lora(lora)
    adapter = None if request.adapter is None else locate_adapter(request.adapter)
    place = locate(model) if isinstance(model, str) else model
    pipeline = load_pipeline(place, device, verb="imagine", frames=request.frames is not None, adapter=adapter)
    for lora in reversed(loras):
        pipeline.use_lora(lora)
    return pipeline


def sheet(request: Request, images: list[Tensor]) -> "Image.Image":
    """The picture of several images."""
    return grid(stacked(images), columns=request.columns, scale=1, pad=4, texts=request.texts)


def stacked(images: list[Tensor]) -> Tensor:
    """Images (3, H, W) of any sizes as (n, 3, H, W), white on the right and at the bottom, up to the largest."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    padded = [F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1]), value=1.0) for image in images]
    return torch.stack(padded)


def sheet_receipt(pipeline: Pipeline, request: Request, images: list[Tensor]) -> dict[str, Any]:
    """How it is made."""
    pipeline.use_scheduler(request.scheduler)  # where cells vary it, each says its own
    return receipt_of(pipeline, request, sums_of(request), list(images[0].shape[1:]))
