"""The way from one image to another through the codes of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from trilemma.data.load import Images
from trilemma.explore.codes import in_space
from trilemma.explore.images import run_receipt
from trilemma.explore.naming import Named, find_code
from trilemma.interpolation import WAYS, linear
from trilemma.keys import Film, FilmFormat, Label, Picture
from trilemma.pictures.animation import animated, check_film, frame
from trilemma.pictures.table import table
from trilemma.results import Results, place
from trilemma.run.run import Run, RunLike, as_run
from trilemma.types import Condition, Decodes, Encodes
from trilemma.values import checked_call

FINER = 4  # steps of the animation for one of the grid
STEP_MS, REST_MS = 60, 600  # time of a step of the animation, and of its two ends


@dataclass(frozen=True)
class Interpolation:
    """The picture, the animation if there is one, and the images of each way: (frames, C, H, W)."""

    picture: Path
    animation: Path | None
    frames: dict[str, Tensor]


@checked_call
def interpolate(
    run: RunLike,
    a: Annotated[
        Named,
        Field(
            description="an image file, the number of a held-out image, or a code (1.5,-0.3,..., .npy, .npz, or seed:3)"
        ),
    ],
    b: Annotated[Named, Field(description="the other end, given in the same way")],
    *,
    frames: Annotated[int, Field(ge=2, description="images in a row, including both ends")] = 7,
    how: Annotated[Literal["linear", "spherical", "both"], Field(description="path between the codes")] = "both",
    space: Annotated[
        Literal["z", "w"] | None, Field(description="codes of a model with styles: z, or w (default: w)")
    ] = None,
    data: Images = None,
    animate: Annotated[bool, Field(description="also write an animation")] = True,
    film: FilmFormat = "gif",
    label: Label = None,
    out: Picture = None,
) -> Interpolation:
    """Decode the codes between two images or two codes: a picture with a row for each way, and an animation.

    Args:
        a, b: each an image file, the number of a held-out image, or a code: its numbers with commas between them, a
            .npy file of them, the .npz file of `invert`, or seed:3 for what image 0 of that seed is drawn from, or of a
            model that encodes, for the code of that image. Between two images, a last row blends their pixels, for
            comparison.
        space: z for the latents of a model that makes styles w of them; default: w where there are any.
        data: the images that numbers count in; default: the run's own.
        label: the class to decode, for a conditional model; default: the class of the nearer end.
        out: the picture to write; default: RUN/interpolation.png. The animation lies beside it.
    Raises:
        UserError: the model does not encode and decode, or a or b has another shape than the run's, or lacks a class.
    """
    check_film(film)
    run = in_space(as_run(run), space)
    run.coder("interpolate", Encodes, Decodes)
    picture, within = place(out, run.path, "interpolation.png")
    picture = picture.with_suffix(".png") if picture.suffix.lower() == f".{film}" else picture
    animation = picture.with_suffix(f".{film}") if animate else None
    files = Results(picture, [animation] if animation else [], verb="interpolate", within=within)
    ends = [find_code(run, what, data, label) for what in (a, b)]
    ways = list(WAYS) if how == "both" else [how]
    fine = torch.linspace(0, 1, (frames - 1) * FINER + 1, dtype=torch.float64)
    start, end = (code[0].double() for code, _, _ in ends)
    moving = {way: _decoded(run, WAYS[way](start, end, fine), ends) for way in ways}
    rows = {way: images[::FINER] for way, images in moving.items()}
    lines, (first, last) = dict(rows), (image for _, _, image in ends)
    if first is not None and last is not None:
        blend = linear(first.flatten().double(), last.flatten().double(), fine[::FINER])
        lines["pixels"] = blend.float().unflatten(1, run.model_config.shape)
    receipt = run_receipt(run, "interpolate", a=_word(a), b=_word(b), frames=frames, how=how, space=space, label=label)
    heads = [f"{t:.2f}" for t in fine[::FINER].tolist()]
    sheet = table(torch.cat(list(lines.values())), list(lines), heads)
    files.write(sheet, receipt, {animation: _animated(moving, film)} if animation else {})
    return Interpolation(picture, animation, rows)


def _decoded(run: Run, codes: Tensor, ends: Sequence[tuple[Tensor, Condition, Tensor | None]]) -> Tensor:
    """Images of the codes from one end to the other, each with the class of the nearer end: (N, C, H, W)."""
    (_, first, _), (_, last, _) = ends
    half = (len(codes) + 1) // 2
    if first.label is None or last.label is None:
        return run.decode(codes.float())
    label = torch.cat([first.label.expand(half), last.label.expand(len(codes) - half)])
    return run.decode(codes.float(), condition=Condition(label))


def _animated(ways: dict[str, Tensor], film: Film) -> bytes:
    """An animation that goes there and back for ever, the ways side by side."""
    there = [frame(torch.stack(images), columns=len(images)) for images in zip(*ways.values(), strict=True)]
    pictures = [*there, *there[-2:0:-1]]
    rest = {0, len(there) - 1}
    times = [REST_MS if k in rest else STEP_MS for k in range(len(pictures))]
    return animated(pictures, times, film)


def _word(what: Named) -> str:
    """What stood for an end, in words."""
    return str(what) if isinstance(what, str | int | Path) else "given values"
