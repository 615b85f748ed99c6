"""Edits of an image: by arithmetic on its code here, by drawing it again in redraw.py. Attribute vectors:

    v = mean of e(x) over the images of one group - mean of e(x) over the images of another,
    x_s = d(e(x) + s v)

for several shifts s (Larsen et al. 2016, "Autoencoding beyond pixels using a learned similarity metric"; White
2016, "Sampling generative networks"). s = 0 is the reconstruction; s = 1 moves a code by the whole distance between
the groups' means.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from trilemma import rng
from trilemma.data import Data
from trilemma.data.load import Images, Source, slug
from trilemma.data.selection import Selection, all_splits, one_split
from trilemma.data.sources.labels import class_number
from trilemma.data.sources.npy import read_array
from trilemma.errors import UserError, unknown_key, with_hint
from trilemma.explore.by_pipeline import EditKeys, edit_by_pipeline, keys_of
from trilemma.explore.codes import condition_for, decode_alike, note_search
from trilemma.explore.images import choose, is_own, name_of, run_receipt, source_of, take
from trilemma.explore.naming import find_code, image_word
from trilemma.explore.redraw import Redrawing, redraw
from trilemma.explore.sample import label_name
from trilemma.files import user_path
from trilemma.keys import Caption, FilmFormat, Label, RunOrPipelinePicture, Seed
from trilemma.pictures.animation import check_film
from trilemma.pictures.grid import grid
from trilemma.pretrained.table import pipeline_name
from trilemma.results import Results, place
from trilemma.run.run import Run, RunOrPipeline, as_run
from trilemma.types import Batch, Decodes, Encodes, Inverts
from trilemma.values import checked_call

Group = str | int | Path
MOVING = ("away", "shift", "steps", "data", "label", "caption", "out")  # keys beside towards
GROUP, INVERTED_GROUP = 2000, 64  # images of a group whose codes are averaged; of a model whose codes are noise
NOISE = "a number above 0 and up to 1 (for levels of 255 give 25/255 = 0.098)"  # that an image can have


@dataclass(frozen=True)
class Edit:
    """The row of pictures (the image itself if it was given, then one for each shift) and what they were made from.

    vector: (Z,), also in `file`, which later edits take in place of a group; counts: images averaged for it on
    either side, none for a vector from a file; images: (steps, C, H, W) in [0, 1].
    """

    picture: Path
    file: Path
    vector: Tensor
    shifts: tuple[float, ...]
    counts: tuple[int, int] | None
    images: Tensor


@checked_call
def edit(
    run: RunOrPipeline,
    image: Annotated[
        str | int | Path | Tensor,
        Field(description="an image file, the number of a held-out image, a code, or with strength= a folder"),
    ],
    *,
    towards: Annotated[
        Group | None, Field(description="a class, a folder of images, or a vector saved before (.npy)")
    ] = None,
    away: Annotated[Group | None, Field(description="the opposite group (default: all other images)")] = None,
    shift: Annotated[
        float, Field(description="factor of the vector in the last picture; 1: the full difference between the groups")
    ] = 1.0,
    steps: Annotated[
        int | None, Field(ge=1, description="pictures from 0 to shift (default: 7), or steps of the sampler")
    ] = None,
    strength: Annotated[
        float | None, Field(ge=0, le=1, description="diffusion: noise to draw the image again from, 0 none to 1 all")
    ] = None,
    mask: Annotated[
        str | None,
        Field(
            description="diffusion: where to draw again: left,top,right,bottom px, outside:..., or an image file, "
            "white there (transparent counts as black)"
        ),
    ] = None,
    noise: Annotated[
        Annotated[float, Field(gt=0, le=1, title=NOISE)] | Literal["auto"] | None,
        Field(description="diffusion: the noise of the image, to take out, of values in [0, 1]; auto: estimated"),
    ] = None,
    rounds: Annotated[
        int | None, Field(ge=1, description="with mask: how often to take each step (default: 5)")
    ] = None,
    animate: Annotated[bool, Field(description="with strength: also an animation, from none of it to all")] = False,
    film: FilmFormat = "gif",
    n: Annotated[
        int | None,
        Field(ge=1, le=64, description="diffusion: images to draw (default: 4; with noise= 1; of a folder 64 at most)"),
    ] = None,
    seed: Seed = 0,
    first: Annotated[int, Field(ge=0, description="number of the first image, as for sample")] = 0,
    data: Images = None,
    label: Label = None,
    caption: Caption = None,
    out: RunOrPipelinePicture = None,
    **settings: Any,
) -> Edit | Redrawing:
    """Change an image: move its code towards a group of images, or let a diffusion model draw it again.

    Args:
        run: or pipeline:NAME, a published checkpoint, with caption= and strength=, mask= or both.
        image: the number of a held-out image, an image file, or with towards= a code, see `find_code`; or with
            strength= a folder, whose images are each drawn again.
        towards: the name or number of a class, a source of images (a folder, ...), or a vector saved by an earlier
            edit.
        away: another group (default: every other class; for a source of images, the run's training images).
        shift: factor of the vector in the last picture; the first has 0, the plain reconstruction. Negative values move
            the image away from the group.
        strength: how much noise the image is drawn again from: small things change first.
        mask: a rectangle, or a black and white image of the model's size or the image's, white where pixels are drawn
            (what is transparent in it counts as black); all others stay bit-identical. With strength= they begin from
            less noise.
        noise: the standard deviation of noise that the image has, of values in [0, 1].
        animate, film: whether an animation of strengths from 0 to `strength` lies beside the picture, and its format.
        n, seed, first: how many images are drawn again, and the numbers of their noise; of a folder also of its images.
        data: other images than the run's own, whose classes and images are meant.
        label: the image's class, for a model that takes one and an image without a label; or the class to draw.
        caption: what to draw, or with towards= what the image shows, for a model that reads captions.
        out: the picture to write (default: RUN/edit-IMAGE-TOWARDS.png, with the vector as .npy beside it, or
            RUN/edit-IMAGE-mask.png and the like, with the images beside it as NAME-0.png).
        settings: of a diffusion model's sampler.
    Raises:
        UserError: the model does not encode and decode, or does not draw images again; a group is unknown or empty; a
            vector has another length than the model's codes; a mask has another size, or no pixel.
    """
    if (name := pipeline_name(run)) is not None:
        return edit_by_pipeline(name, image, keys_of(EditKeys, edit, locals()))
    run = as_run(run)
    again = {"strength": strength, "mask": mask, "noise": noise, "rounds": rounds}
    if towards is None:
        _check_again(again, away, shift)
        if animate and (strength is None or mask is not None):
            raise UserError("animate=true shows strengths from 0 to strength=; give strength=, and no mask=")
        check_film(film, animate)
        if isinstance(image, Tensor):
            raise UserError("give the image as a file or by its number")
        drawn = settings if steps is None else {**settings, "steps": steps}
        what: dict[str, Any] = {"n": n, "seed": seed, "first": first, "label": label, "data": data, "out": out}
        what |= {"caption": caption, "film": film if animate else None}
        return redraw(run, image, **again, **what, settings=drawn, verb=edit)
    drawing = {"n": n, "seed": seed or None, "first": first or None, "film": None if film == "gif" else film}
    _refuse_both({**again, "animate": animate or None, **drawing}, settings)
    steps = 7 if steps is None else steps
    if steps < 2:
        raise UserError(f"steps={steps}: with towards= at least 2 pictures are made, from 0 to shift")
    run.coder("change images by their codes", Encodes, Decodes)
    own = "" if out is not None else f"edit-{_image_name(image)}-{_name_of(run, towards, data)}.png"
    picture, within = place(out, run.path, own)
    file = picture.with_suffix(".npy")
    files = Results(picture, [file], verb="edit", within=within)
    code, condition, original = find_code(run, image, data, label, caption)  # (1, Z)
    vector, counts = _vector(run, code.shape[1], towards, away, data)
    shifts = torch.linspace(0, shift, steps, dtype=code.dtype)
    images = decode_alike(run, code + shifts[:, None] * vector, condition)
    before = images[:0] if original is None else original
    texts = ["original"] * len(before) + [f"{s:.3g}" for s in shifts.tolist()]
    asked = {"towards": str(towards), "away": None if away is None else str(away), "shift": shift, "steps": steps}
    asked |= {"label": label, "caption": caption, "data": name_of(data)}
    sheet = grid(torch.cat([before, images]), columns=len(texts), texts=texts)
    files.write(sheet, run_receipt(run, "edit", image=str(image), **asked), {file: array_file(vector)})
    return Edit(picture, file, vector, tuple(shifts.tolist()), counts, images)


def _check_again(again: Mapping[str, Any], away: Group | None, shift: float) -> None:
    """Whether what is asked of a model that draws an image again fits together."""
    asked = [f"{key}={value}" for key, value in again.items() if value is not None]
    if not asked or asked == [f"rounds={again['rounds']}"]:
        raise UserError(
            "edit needs towards=, a class or a group of images; or for a diffusion model strength=, mask= or noise="
        )
    if away is not None or shift != 1:
        raise UserError(
            f"away= and shift= belong to towards=; {', '.join(asked)} draws the image again: leave them out"
        )
    if again["noise"] is not None and (again["strength"] is not None or again["mask"] is not None):
        raise UserError("noise= takes out the noise of the image itself; leave strength= and mask= out")
    if again["rounds"] is not None and again["mask"] is None:
        raise UserError("rounds= belongs to mask=; leave it out")


def _refuse_both(again: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Whether a movement of the code is asked for what only a drawing takes."""
    asked = [key for key, value in again.items() if value is not None]
    if asked:
        raise UserError(
            f"towards= moves the code of the image, and {asked[0]}= is for images that are drawn again; leave one out"
        )
    if settings:
        raise unknown_key(next(iter(settings)), {"edit towards=": MOVING})


def _image_name(image: str | int | Path | Tensor) -> str:
    """An image or a code as part of a file's name."""
    return "code" if isinstance(image, Tensor) else image_word(image)


def _name_of(run: Run, group: Group, data: Source | None) -> str:
    """A group as part of a file's name."""
    classes = _classes(run, data)
    return slug(Path(str(group))) if class_number(group, classes) is None else label_name(str(group), classes)


def _classes(run: Run, data: Source | None) -> Sequence[str]:
    """The names of the classes; the run knows its own without its data."""
    return run.config["classes"] if data is None else source_of(run, data).classes


def array_file(values: Tensor) -> bytes:
    """The content of a .npy file of a vector (Z,)."""
    import io

    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, values.numpy(), allow_pickle=False)
    return buffer.getvalue()


def load_vector(path: Path, length: int) -> Tensor | None:
    """The vector in a .npy file, float32 (Z,); None if the file is none or holds images.

    Raises:
        UserError: if it has another length than a code, or holds no finite numbers.
    """
    import numpy as np

    if path.suffix != ".npy" or not path.is_file():
        return None
    values = read_array(path)
    if values.ndim != 1:
        return None
    if len(values) != length or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise UserError(
            f"{path} holds {len(values)} values of type {values.dtype}; a code of this model is {length} finite "
            "numbers: give a vector saved by `edit` with a run of the same model"
        )
    return torch.from_numpy(np.array(values, np.float32))


def _vector(
    run: Run, length: int, towards: Group, away: Group | None, data: Source | None
) -> tuple[Tensor, tuple[int, int] | None]:
    """The difference of the groups' mean codes, (Z,), and their sizes; or a vector from its file."""
    saved = load_vector(user_path(str(towards)), length)
    if saved is not None:
        if away is not None:
            raise UserError(f"{towards} is a whole attribute vector; leave away out")
        return saved, None
    one = _group(run, towards, data)
    other = _group(run, away, data) if away is not None else _rest(run, towards, data)
    note_search(run)
    means = [run.encode(batch.image, condition=condition_for(run, batch)).mean(0) for batch in (one, other)]
    return means[0] - means[1], (len(one.image), len(other.image))


def _group(run: Run, word: Group, data: Source | None) -> Batch:
    """Images of a class, or of a source of its own, at most `_most`; see `_averaged`.

    Raises:
        UserError: if it is neither, or the class has no images.
    """
    classes = _classes(run, data)
    index = class_number(word, classes)
    if index is not None:
        return _of_classes(run, source_of(run, data), {index})
    try:
        source = source_of(run, str(word))
    except UserError as error:
        if not classes or Path(str(word)).exists():
            raise
        text = f'"{word}" is neither a class ({", ".join(classes)}) nor a source of images: {error}'
        raise UserError(with_hint(text, str(word), classes)) from None
    return choose(run, _averaged(run, source), _most(run), seed=0)


def _rest(run: Run, towards: Group, data: Source | None) -> Batch:
    """What a group stands out from: the other classes, or the images of all classes if it is not a class."""
    source = source_of(run, data)
    index = class_number(towards, source.classes)
    if index is None:
        return choose(run, _averaged(run, source), _most(run), seed=0)
    return _of_classes(run, source, set(range(len(source.classes))) - {index})


def _most(run: Run) -> int:
    """Images of a group: the codes of a diffusion model take many calls each."""
    return INVERTED_GROUP if isinstance(run.model, Inverts) and not isinstance(run.model, Encodes) else GROUP


def _averaged(run: Run, source: Data) -> Selection:
    """What a mean is taken over: the training images of the run's own data, whose held-out ones are there to be
    edited; all images of any other."""
    return one_split(source, "train") if is_own(run, source) else all_splits(source)


def _of_classes(run: Run, source: Data, numbers: set[int]) -> Batch:
    """At most `_most` images of some classes, spread over them; see `_averaged`."""
    part = _averaged(run, source)
    labels = part.labels
    if labels is None:
        raise UserError(f"some images of {source.name} have no class, so no class can be averaged over; give a folder")
    where = torch.isin(labels, torch.tensor(sorted(numbers))).nonzero()[:, 0]
    if not len(where):
        names = ", ".join(source.classes[k] for k in sorted(numbers)) or "any other class"
        raise UserError(f"{source.name} has no images of {names} to average over; a group needs at least one")
    return take(run, part, where[rng.permutation(len(where), 0, "group")[: _most(run)]])
