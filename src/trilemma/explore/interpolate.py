"""The way from one image to another through the codes of a model."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from trilemma.data.load import Images
from trilemma.errors import UserError, unknown_key
from trilemma.explore.between_prompts import BetweenKeys, interpolate_by_pipeline
from trilemma.explore.by_pipeline import keys_of
from trilemma.explore.codes import in_space
from trilemma.explore.images import name_of, run_receipt
from trilemma.explore.interpolation import FINER, Interpolation, animated_ways
from trilemma.explore.naming import Named, find_code
from trilemma.interpolation import WAYS, linear
from trilemma.keys import Caption, FilmFormat, Label, RunOrPipelinePicture
from trilemma.pictures.animation import check_film
from trilemma.pictures.table import table
from trilemma.pretrained.table import pipeline_name
from trilemma.results import Results, place
from trilemma.run.run import Run, RunOrPipeline, as_run
from trilemma.types import Condition, Decodes, Encodes, join_conditions
from trilemma.values import checked_call


@checked_call
def interpolate(
    run: RunOrPipeline,
    a: Annotated[
        Named,
        Field(
            description="an image file, the number of a held-out image, or a code (1.5,-0.3,..., .npy, .npz, or "
            "seed:3); of a pipeline: a prompt"
        ),
    ],
    b: Annotated[Named, Field(description="the other end, given in the same way; of a pipeline: a prompt")],
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
    caption: Caption = None,
    seed: Annotated[
        int | None,
        Field(ge=0, description="of a pipeline: noise of images 0 and 1 of this seed (default: 0)"),
    ] = None,
    out: RunOrPipelinePicture = None,
    **settings: Any,
) -> Interpolation:
    """Decode the codes between two images or two codes: a picture with a row for each way, and an animation.

    Args:
        run: or pipeline:NAME, a published checkpoint, which goes from prompt a to prompt b, and from noise to noise.
        a, b: each an image file, the number of a held-out image, or a code: its numbers with commas between them, a
            .npy file of them, the .npz file of `invert`, or seed:3 for what image 0 of that seed is drawn from, or of a
            model that encodes, for the code of that image. Between two images, a last row blends their pixels, for
            comparison.
        space: z for the latents of a model that makes styles w of them; default: w where there are any.
        data: the images that numbers count in; default: the run's own.
        label: the class to decode, for a conditional model; default: the class of the nearer end.
        caption: what the images show, for a model that reads captions, or both ends with | between them; default: the
            caption of the nearer end, of a model that was never without, else none.
        out: the picture to write; default: RUN/interpolation.png. The animation lies beside it.
        settings: of a pipeline: steps, guidance, negative, size, scheduler.
    Raises:
        UserError: the model does not encode and decode, or a or b has another shape than the run's, or lacks a class or
            caption.
    """
    if (name := pipeline_name(run)) is not None:
        return interpolate_by_pipeline(name, a, b, keys_of(BetweenKeys, interpolate, locals()))
    _refuse_settings(seed, settings)
    captions = _captions_of_ends(caption)
    check_film(film, animate)
    run = in_space(as_run(run), space)
    run.coder("interpolate", Encodes, Decodes)
    picture, within = place(out, run.path, "interpolation.png")
    picture = picture.with_suffix(".png") if picture.suffix.lower() == f".{film}" else picture
    animation = picture.with_suffix(f".{film}") if animate else None
    files = Results(picture, [animation] if animation else [], verb="interpolate", within=within)
    ends = [find_code(run, what, data, label, own) for what, own in zip((a, b), captions, strict=True)]
    ways = list(WAYS) if how == "both" else [how]
    fine = torch.linspace(0, 1, (frames - 1) * FINER + 1, dtype=torch.float64)
    start, end = (code[0].double() for code, _, _ in ends)
    moving = {way: _decoded(run, WAYS[way](start, end, fine), ends) for way in ways}
    rows = {way: images[::FINER] for way, images in moving.items()}
    lines, (first, last) = dict(rows), (image for _, _, image in ends)
    if first is not None and last is not None:
        blend = linear(first.flatten().double(), last.flatten().double(), fine[::FINER])
        lines["pixels"] = blend.float().unflatten(1, run.model_config.shape)
    asked = {"label": label, "caption": caption, "data": name_of(data)}
    receipt = run_receipt(run, "interpolate", a=_word(a), b=_word(b), frames=frames, how=how, space=space, **asked)
    heads = [f"{t:.2f}" for t in fine[::FINER].tolist()]
    sheet = table(torch.cat(list(lines.values())), list(lines), heads)
    files.write(sheet, receipt, {animation: animated_ways(moving, film)} if animation else {})
    return Interpolation(picture, animation, rows)


def _decoded(run: Run, codes: Tensor, ends: Sequence[tuple[Tensor, Condition, Tensor | None]]) -> Tensor:
    """Images of the codes from one end to the other, each as the nearer end is decoded: (N, C, H, W)."""
    half = (len(codes) + 1) // 2
    counts = half, len(codes) - half
    rows = [
        condition.rows(torch.zeros(n, dtype=torch.int64)) for n, (_, condition, _) in zip(counts, ends, strict=True)
    ]
    return run.decode(codes.float(), condition=join_conditions(rows))


def _refuse_settings(seed: int | None, settings: dict[str, Any]) -> None:
    """Raises UserError where a run is given what only a pipeline takes."""
    if settings:
        raise unknown_key(next(iter(settings)), {"interpolate": [*inspect.signature(interpolate).parameters][3:-1]})
    if seed is not None:
        raise UserError(f"seed={seed} is for a pipeline; a code of this run is drawn as seed:{seed}")


def _captions_of_ends(caption: str | None) -> tuple[str | None, str | None]:
    """That of each end.

    Raises:
        UserError: there are more than two.
    """
    parts = [None] if caption is None else caption.split("|")
    if len(parts) > 2:
        raise UserError(f"caption={caption}: {len(parts)} captions, and a walk has two ends; give one or two")
    return parts[0], parts[-1]


def _word(what: Named) -> str:
    """What stood for an end, in words."""
    return str(what) if isinstance(what, str | int | Path) else "given values"
