"""From images to the codes that a model without an encoder draws them from, and how near their images are.

    PSNR = -10 log10(mean over pixels of (g(z) - x)**2) dB,    for pixels in [0, 1]

A GAN searches for z, or for the styles w where it has them (gans/inversion.py); a diffusion model follows its path up
to the noise (diffusion/inversion.py), also where it draws codes and has an encoder, whose codes are others. The file of
the codes says which they are. What is far from all that a model can draw has no code of a high PSNR.
"""

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from trilemma.data.load import Images, Source
from trilemma.explore.codes import ASKED, codes_content, condition_of_codes, inverted_kind
from trilemma.explore.images import name_of, pick_images, run_receipt
from trilemma.explore.naming import folder_of, pick_image
from trilemma.files import json_text
from trilemma.keys import Caption, Label, Picture, Seed
from trilemma.metrics.cost import counted_rows
from trilemma.metrics.reconstruction import psnr_db
from trilemma.pictures.pairs import pairs
from trilemma.results import Results, place
from trilemma.run.run import Run, RunLike, as_run
from trilemma.types import Batch, Condition, Inverts, codes_need, drawing_needs, join_conditions, sampling_network
from trilemma.values import checked_call

TITLE = "PSNR: -10 log10 of the mean squared error over the pixels, which lie in [0, 1]; dB"


@dataclass(frozen=True)
class Inversion:
    """The picture, the codes (n, Z), and the images that are drawn from them, (n, C, H, W) in [0, 1].

    kind: of the codes, noise, z or w; names: of the images; psnr_db: (n,), infinite where an image comes back exactly.
    seconds: of the search for all codes; calls_per_image: of the network that draws images, with and without gradients.
    codes_file: the codes as .npz, one array (n, Z) whose name is their kind; file: JSON with the values of each image.
    """

    picture: Path
    codes: Tensor
    kind: str
    images: Tensor
    names: tuple[str, ...]
    psnr_db: Tensor
    seconds: float
    calls_per_image: float
    codes_file: Path
    file: Path


@checked_call
def invert(
    run: RunLike,
    *images: Annotated[
        str | int | Path,
        Field(description="image files, folders, numbers of held-out images (default: the first n held-out images)"),
    ],
    n: Annotated[int, Field(ge=1, description="images of a folder, or held-out images, at most")] = 16,
    steps: Annotated[
        int | None, Field(ge=1, description="network calls for each image (default: 200 of a GAN, 50 of diffusion)")
    ] = None,
    seed: Seed = 0,
    data: Images = None,
    label: Label = None,
    caption: Caption = None,
    out: Picture = None,
) -> Inversion:
    """Search for the codes of images; lay what is drawn from them below, with the PSNR of each and the cost.

    Args:
        images: files and folders are brought to the size that the run was trained on; numbers count in `data`.
        steps: more of them cost more, and bring the images nearer.
        seed: of the codes that a search starts from; a diffusion model has none.
        data: other images that numbers count in; default: the run's own, held out.
        label: the class of all of them, for a conditional model; default: each image's own.
        caption: what they show, for a model that reads captions, several with | between them in turns; default: each
            image's own, of a model that was never without, else none.
        out: the picture to write, with the codes as .npz and the values as JSON beside it; default: RUN/inversion.png.
    Raises:
        UserError: the model does not invert images (one that encodes has reconstruct), or an image cannot be read.
    """
    run = as_run(run)
    model = run.require("invert images", Inverts)
    picture, within = place(out, run.path, "inversion.png")
    codes_file, file = picture.with_suffix(".npz"), picture.with_suffix(".json")
    files = Results(picture, [codes_file, file], verb="invert", within=within)
    targets, condition, names = _targets(run, images, n, data, label, caption)
    begin = time.perf_counter()
    with counted_rows(sampling_network(run.model)) as rows:
        codes = run.invert(targets, condition=condition, steps=steps, seed=seed)
    seconds, calls = time.perf_counter() - begin, rows.total / len(targets)
    results = run.apply(model.generate, codes, condition)
    values = psnr_db((results.double() - targets.cpu().double()).square().flatten(1).mean(1))
    sheet = pairs(targets.cpu(), results, [f"{v:.1f}" for v in values.tolist()], ("image", "drawn", "PSNR"), TITLE)
    asked = {"n": n, "steps": steps, "seed": seed, "label": label, "caption": caption, "data": name_of(data)}
    receipt = run_receipt(run, "invert", images=[str(what) for what in images], **asked)
    each = [{"image": name, "psnr_db": _finite(value)} for name, value in zip(names, values.tolist(), strict=True)]
    kind = inverted_kind(model)
    facts: dict[str, Any] = {"codes": kind, "seconds": seconds, "calls_per_image": calls}
    document = json_text({**receipt, **facts, "values": each})
    files.write(sheet, receipt, {codes_file: codes_content(codes, kind), file: document})
    return Inversion(picture, codes, kind, results, tuple(names), values, seconds, calls, codes_file, file)


def _targets(
    run: Run,
    images: tuple[str | int | Path, ...],
    n: int,
    data: Source | None,
    label: str | int | None,
    caption: str | None,
) -> tuple[Tensor, Condition, list[str]]:
    """The images, what they need to be drawn from their codes, also where an encoder needs nothing, and their names."""
    batches = [_batch(run, what, n, data) for what in images] or [pick_images(run, data, n)]
    names = [name for what, batch in zip(images or ("",), batches, strict=True) for name in _names(str(what), batch)]
    image, own = torch.cat([batch.image for batch in batches]), join_conditions([batch.condition for batch in batches])
    needs = {*codes_need(run.model), *drawing_needs(run.model)}
    return image, condition_of_codes(run, own, len(image), label, caption, advise=ASKED, fields=needs), names


def _batch(run: Run, what: str | int | Path, n: int, data: Source | None) -> Batch:
    """The images of a folder, or the one that is named."""
    folder = folder_of(what)
    return pick_image(run, what, data) if folder is None else pick_images(run, folder, n)


def _names(what: str, batch: Batch) -> list[str]:
    """What the images are called: as one was named, or by their numbers in a folder or the data."""
    if what and len(batch.image) == 1:
        return [what]
    assert batch.index is not None
    return [os.path.join(what, str(k)) for k in batch.index.tolist()]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
