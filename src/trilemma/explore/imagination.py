"""What `imagine` gives, the pipeline that it draws with, and its picture of several images."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trilemma.explore.prompted import Request, receipt_of, sums_of
from trilemma.pictures.grid import grid
from trilemma.pretrained.fetch import Place, locate
from trilemma.pretrained.pipeline import Pipeline, check_lora, load_pipeline

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Imagination:
    """The picture, the file of each image, and the images (n, 3, H, W) in [0, 1]; of one image both files are one.

    animation: of a film, whose frames the images are; or of an object that turns. mesh: of an object, if it has one.
    """

    picture: Path
    files: list[Path]
    images: Tensor
    animation: Path | None = None
    mesh: Path | None = None


def load_for(request: Request, model: str | Place, device: str = "auto") -> Pipeline:
    """The pipeline of a request, with its LoRA."""
    lora = None if request.lora is None else Path(request.lora)
    if lora is not None:
        check_lora(lora)
    place = locate(model) if isinstance(model, str) else model
    pipeline = load_pipeline(place, device, verb="imagine", frames=request.frames is not None)
    if lora is not None:
        pipeline.load_lora(lora)
    return pipeline


def sheet(request: Request, images: list[Tensor]) -> "Image.Image":
    """The picture of several images."""
    texts = [request.text_of(cell) for cell in request.cells]
    return grid(torch.stack(images), columns=request.columns, scale=1, pad=4, texts=texts)


def sheet_receipt(pipeline: Pipeline, request: Request, images: list[Tensor]) -> dict[str, Any]:
    """How it is made."""
    pipeline.use_scheduler(request.scheduler)  # where cells vary it, each says its own
    return receipt_of(pipeline, request, sums_of(request), list(images[0].shape[1:]))
