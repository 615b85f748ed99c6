"""A run as files that other programs read: graphs of ONNX, or a folder of diffusers."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from trilemma.files import write_atomic
from trilemma.modes import own_modes
from trilemma.pretrained.libraries import load_diffusers
from trilemma.run.run import Run, RunLike, as_run
from trilemma.sharing.diffusers_folder import parts_of, write_folder
from trilemma.sharing.folder import claim_export, write_export
from trilemma.sharing.graphs import graphs_of
from trilemma.sharing.onnx_graphs import check_installed, convert
from trilemma.sharing.parity import TOLERANCE
from trilemma.types import DiffusersParts
from trilemma.values import checked_call


@dataclass(frozen=True)
class Exported:
    """The folder, its record, and for each file, or for the images (of an autoencoder its codes, too), the largest
    difference to the model, over its largest value where that is more than 1."""

    folder: Path
    record: Path
    parity: Mapping[str, float]


@checked_call
@own_modes()
def export(
    run: RunLike,
    *,
    to: Annotated[
        Literal["onnx", "diffusers"],
        Field(
            description="onnx: a graph for each thing that the model does; diffusers: a folder that its classes load"
        ),
    ],
    out: Annotated[str | Path | None, Field(description="folder to write (default: RUN/export/TO)")] = None,
) -> Exported:
    """Write a trained model as files that other programs read, each compared with the model.

    Args:
        to: onnx: encoder, decoder, generator, denoiser and critic, as far as the model has them, each a graph with a
            batch of any size; needs the extra export. diffusers: U-Net, scheduler and autoencoder, where its classes
            have the same layers (a model trained with portable=true); needs the extra pretrained.
        out: a folder that does not exist, or was written by the same command and not changed since.
    Raises:
        UserError: the model has no counterpart there, with the models that have; a file differs from the model by more
            than 1e-4 of its largest value, or of 1; or the folder holds files of others.
    """
    run = as_run(run)
    check_installed() if to == "onnx" else load_diffusers()
    folder = claim_export(out, run, to)
    model, parity = _on_cpu(run), dict[str, float]()
    write = _writer_of_graphs(run, model, parity) if to == "onnx" else _writer_of_folder(run, model, parity)
    return Exported(folder, write_export(folder, run, to, write), parity)


Write = Callable[[Path], dict[str, Any]]  # into a folder, what the record says


def _writer_of_graphs(run: Run, model: nn.Module, parity: dict[str, float]) -> Write:
    graphs = graphs_of(model, run.recipe.name, run.shape)

    def write(place: Path) -> dict[str, Any]:
        about = {}
        for graph in graphs:
            converted, file = convert(model, graph, str(run.path)), f"{graph.name}.onnx"
            write_atomic(place / file, converted.content)
            about[file], parity[file] = converted.about, converted.about["parity"]
        return {"tolerance": TOLERANCE, "torch": torch.__version__, "graphs": about}

    return write


def _writer_of_folder(run: Run, model: nn.Module, parity: dict[str, float]) -> Write:
    parts = parts_of(model, run.recipe.name)
    compared = "images" if isinstance(parts, DiffusersParts) else "codes and their images"

    def write(place: Path) -> dict[str, Any]:
        about = write_folder(place, model, parts, str(run.path))
        parity[compared] = about["parity"]
        return {"tolerance": TOLERANCE, **about}

    return write


def _on_cpu(run: Run) -> nn.Module:
    """The model, or a copy of it where it is elsewhere."""
    model = run.model if run.device.type == "cpu" else deepcopy(run.model).cpu()
    return model.eval()
