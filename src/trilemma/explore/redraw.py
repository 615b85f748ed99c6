"""An image drawn again by a diffusion model: as a whole from a strength of noise on, under a mask, or out of its own
noise. Outside a mask every pixel stays as it is, bit for bit.

The noise of a photograph is estimated by its second differences, which see little of anything else
(Immerkaer 1996, "Fast noise variance estimation").
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trilemma.data.decoding.decode import decode
from trilemma.data.decoding.pixels import Item, header, open_file
from trilemma.data.decoding.size import text as size_text
from trilemma.data.load import Source
from trilemma.errors import UserError, check_finite
from trilemma.explore.images import load, name_of, numbered_contents, numbered_paths, run_receipt, take, unseen
from trilemma.explore.naming import folder_of, image_word, number_of, pick_image
from trilemma.files import user_path
from trilemma.keys import Film
from trilemma.pictures.animation import animated, frame
from trilemma.pictures.grid import grid
from trilemma.pictures.levels import hide
from trilemma.pictures.pairs import pairs
from trilemma.progress import OnStep, drawing_progress
from trilemma.results import Results, place
from trilemma.run.compute import MOST_NUMBERS, in_batches, one_algorithm
from trilemma.run.run import Run, end_of
from trilemma.text import note
from trilemma.types import Redraw, Redraws

if TYPE_CHECKING:
    from PIL import Image

SECOND_DIFFERENCES = ((1.0, -2.0, 1.0), (-2.0, 4.0, -2.0), (1.0, -2.0, 1.0))  # their squares add up to 36
IMAGES, MOST = 4, 64  # that are drawn where nothing is said: of one image; of a folder, at most
OUTSIDE = "outside:"  # before a rectangle that stays
AUTO = "auto"  # noise that is estimated
COLUMNS = 8  # of the picture, at most
FRAMES, STEP_MS, REST_MS = 25, 80, 1200  # of an animation: strengths, and the time of one and of both ends


@dataclass(frozen=True)
class Redrawing:
    """The picture, the animation if there is one, the file of each image, and what they show: the source (1, C, H, W),
    or of a folder (n, C, H, W), the mask (1, 1, H, W) if there is one, and the images (n, C, H, W) in [0, 1]; noise:
    the standard deviation that was taken out, if that was asked for."""

    picture: Path
    animation: Path | None
    files: list[Path]
    source: Tensor
    mask: Tensor | None
    images: Tensor
    noise: float | None


def redraw(
    run: Run,
    image: str | int | Path,
    *,
    strength: float | None,
    mask: str | None,
    noise: float | str | None,
    rounds: int | None,
    n: int | None,
    seed: int,
    first: int,
    label: str | int | None,
    caption: str | None,
    film: Film | None,
    data: Source | None,
    out: str | Path | None,
    settings: dict[str, Any],
    verb: Callable[..., Any],
) -> Redrawing:
    """See `edit`, the verb."""
    model = run.require("draw an image again", Redraws)
    keys = run.sampling(settings, verb)
    folder = folder_of(image)
    if folder is None:
        n, source = _count(n, keys, noise), pick_image(run, image, data).image
    else:
        _check_strength_alone(folder, mask, noise)
        source = _images_in(run, folder, first, n)
        n = len(source)
    end_of(first, n)
    picture, within = place(out, run.path, f"edit-{image_word(image)}-{how_redrawn(strength, mask, noise)}.png")
    animation = None if film is None else picture.with_suffix(f".{film}")
    paths = numbered_paths(picture, first, n)
    files = Results(picture, [*paths, *([animation] if animation else [])], verb="edit", within=within)
    file = user_path(str(image)) if number_of(image) is None else None
    area = None if mask is None else read_mask(mask, run.shape, file).to(source.device)
    std = _noise(source, noise, file)
    full = 1.0 if strength is None else strength
    strengths = [share * full for share in torch.linspace(0, 1, FRAMES).tolist()] if animation else [full]
    each, areas = source.expand(n, -1, -1, -1), None if area is None else area.expand(n, -1, -1, -1)
    guides = run.guides(keys)
    condition = run.condition(label, n, classifier=guides.classifier, caption=caption, first=first).to(run.device)

    def draw(strength: float, rows: slice, on_step: OnStep) -> Tensor:
        how = Redraw(strength, None if areas is None else areas[rows], rounds, std)
        asked: dict[str, Any] = {"condition": condition.rows(rows), "keys": keys, "guides": guides}
        return model.redraw(each[rows], how, seed=seed, first=first + rows.start, **asked, on_step=on_step).float()

    sets = _draw_sets(draw, strengths, n, max(1, MOST_NUMBERS // source[0].numel()))
    drawn = sets[-1]
    check_finite(drawn, "images", "train again with a lower lr=")
    images = drawn if area is None else torch.where(area > 0, drawn, source)
    asked: dict[str, Any] = {"strength": strength, "mask": mask, "noise": std, "rounds": rounds}
    asked |= {"n": n, "seed": seed, "first": first}
    asked |= {"label": label, "caption": caption, "settings": keys.given(), "guide": run.guide_origin(keys)}
    receipt = run_receipt(run, "edit", image=str(image), data=name_of(data), **asked)
    contents = numbered_contents(paths, images.cpu(), receipt, first)
    if animation and film:
        contents[animation] = _animated([one.cpu() for one in sets], film)
    page = redrawing_page(source, area, images, first) if folder is None else _folder_page(source, images, first, full)
    files.write(page, receipt, contents)
    return Redrawing(picture, animation, paths, source.cpu(), None if area is None else area.cpu(), images.cpu(), std)


def _draw_sets(
    draw: Callable[[float, slice, OnStep], Tensor], strengths: Sequence[float], n: int, together: int
) -> list[Tensor]:
    """n images of each strength, (n, C, H, W), so many computed together; how far that is, is shown."""
    parts = -(-n // together)  # of the images of a strength
    with torch.no_grad(), one_algorithm(), drawing_progress(len(strengths) * parts, "part") as on_steps_of:

        def compute(k: int, start: int, count: int) -> Tensor:
            return draw(strengths[k], slice(start, start + count), on_steps_of(k * parts + start // together))

        every = [in_batches(partial(compute, k), 0, n, together) for k in range(len(strengths))]
        return [torch.cat([part for _, part in batches]) for batches in every]


def _check_strength_alone(folder: Path, mask: str | None, noise: float | str | None) -> None:
    """Raises UserError where the images of a folder are to be drawn again in another way."""
    if mask is not None or noise is not None:
        raise UserError(f"{folder} is a folder: its images take strength= alone; with mask= or noise= give one image")


def _images_in(run: Run, folder: Path, first: int, n: int | None) -> Tensor:
    """The images of a folder from number `first` on, in the order of their names, at most n or MOST, (N, C, H, W).

    Raises:
        UserError: it has fewer.
    """
    part = unseen(run, load(run, folder))
    if first >= len(part):
        raise UserError(f"first={first}: {folder} has {len(part)} images, numbered from 0")
    end = min(first + (n or MOST), len(part))
    if n is None and end < len(part):
        note(f"{folder}: images {first} to {end - 1} of {len(part)} are drawn again; for the next give first={end}")
    return take(run, part, torch.arange(first, end)).image


def _count(n: int | None, keys: Any, noise: float | str | None) -> int:
    """How many images are drawn.

    Raises:
        UserError: several are asked for, and nothing is random in them.
    """
    alike = noise is not None and not keys.adds_noise
    if n is not None and n > 1 and alike:
        other = ", or add sampler=ddpm" if "sampler" in type(keys).model_fields else ""
        raise UserError(f"n={n}: nothing is random where noise is taken out; leave n= out{other}")
    return (1 if alike else IMAGES) if n is None else n


def _animated(images: list[Tensor], film: Film) -> bytes:
    """From none of the strength to all of it, and a rest at both ends."""
    pictures = [frame(batch, columns=min(COLUMNS, len(batch))) for batch in images]
    return animated(pictures, [REST_MS, *[STEP_MS] * (len(pictures) - 2), REST_MS], film)


def _noise(source: Tensor, noise: float | str | None, file: Path | None) -> float | None:
    """The standard deviation of the noise to take out, None if that is not asked for.

    Args:
        file: that the image is from; where it was resized, its noise has changed, which is said.
    Raises:
        UserError: it is to be estimated, and there is none.
    """
    if noise is None:
        return None
    if noise != AUTO:
        if file is not None and _is_scaled(file, source):
            note(
                f"noise={noise:g} is taken out of {file.name} after it was resized, where its noise is about "
                f"{noise_of(source):.2g}; noise=auto takes out that"
            )
        return float(noise)
    if (std := noise_of(source)) > 0:
        return std
    raise UserError("noise=auto: no noise is seen in this image; give noise= as a number, or another image")


def noise_of(image: Tensor) -> float:
    """The estimated standard deviation of the noise of an image (1, C, H, W) in [0, 1], on average over the channels.

    sqrt(pi / 2) / 6 times the mean size of the second differences: 0 for a plane, too large where an image has much
    fine detail.
    """
    kernel = torch.tensor(SECOND_DIFFERENCES, dtype=torch.float64)[None, None]
    planes = image.double().cpu().transpose(0, 1)  # (C, 1, H, W)
    return math.sqrt(math.pi / 2) / 6 * float(F.conv2d(planes, kernel).abs().mean())


def read_mask(text: str, shape: tuple[int, int, int], image: Path | None = None) -> Tensor:
    """1 where pixels are drawn, float32 (1, 1, H, W): a rectangle left,top,right,bottom in px of the model's images,
    "outside:" before it for all but that, or an image file, white where pixels are drawn; what is transparent in it
    counts as black. It has the size of the model's images, or that of the file `image` that is edited, and is then cut
    and resized as that is.

    Raises:
        UserError: it is neither, has another size, or holds no pixel; or "outside:" stands before something else than
            a rectangle with a pixel.
    """
    size, rest = (shape[1], shape[2]), text.removeprefix(OUTSIDE)
    sides, outside = _numbers(rest), rest != text
    if sides is None and outside:
        raise UserError(
            f"mask={text}: {OUTSIDE} takes a rectangle left,top,right,bottom in px, such as "
            f"mask={OUTSIDE}0,0,{size[1] // 2},{size[0]}; in an image file, exchange black and white instead"
        )
    area = _file(user_path(text), size, image) if sides is None else _rectangle(sides, size)
    if outside:
        _check_any(area, f"mask={text}: the rectangle", size)
        area = 1 - area
    _check_any(area, f"mask={text}", size)
    return area


def _rectangle(sides: tuple[int, int, int, int], size: tuple[int, int]) -> Tensor:
    """1 inside a rectangle (left, top, right, bottom) of an image of (height, width), (1, 1, H, W)."""
    left, top, right, bottom = (max(0, side) for side in sides)
    area = torch.zeros(1, 1, *size)
    area[:, :, top:bottom, left:right] = 1
    return area


def _check_any(area: Tensor, what: str, size: tuple[int, int]) -> None:
    """Raises UserError where an area is empty."""
    if not area.any():
        raise UserError(
            f"{what} holds no pixel of an image of {size_text(size)} (height x width); give a rectangle "
            f"left,top,right,bottom within 0,0,{size[1]},{size[0]}, or an image file that is white where pixels are "
            "drawn"
        )


def _numbers(text: str) -> tuple[int, int, int, int] | None:
    """Four whole numbers with commas between them."""
    parts = text.split(",")
    try:
        left, top, right, bottom = map(int, parts)
    except ValueError:
        return None
    return left, top, right, bottom


def _file(path: Path, size: tuple[int, int], image: Path | None) -> Tensor:
    if not path.is_file():
        raise UserError(
            f"mask={path}: file not found; give an image file, or a rectangle left,top,right,bottom in px, such as "
            f"mask=0,0,{size[1] // 2},{size[0]}"
        )
    decoded = decode([Item(str(path), lambda: open_file(path), ground="black")], size, 1)
    if decoded.skipped:
        raise UserError(f"cannot read the mask {decoded.skipped[0]}")
    given = _size_of(path)
    own = None if image is None or given == size else _size_of(image)
    if given not in (size, own):
        others = "" if own is None else f", and {image} is {size_text(own)}"
        raise UserError(
            f"mask={path} is {size_text(given)}, the model's images are {size_text(size)} (height x width){others}; "
            "give a mask of that size, or a rectangle left,top,right,bottom in px"
        )
    return (decoded.images > 127).float()


def _size_of(path: Path) -> tuple[int, int]:
    """Height and width of an image file, px."""
    return header(Item(str(path), lambda: open_file(path))).size


def _is_scaled(path: Path, image: Tensor) -> bool:
    """Whether an image file was enlarged or shrunk to an image (1, C, H, W), and not only cut."""
    return max(side / own for side, own in zip(image.shape[2:], _size_of(path), strict=True)) != 1


def how_redrawn(strength: float | None, mask: str | None, noise: float | str | None) -> str:
    """What was asked for, as part of a file's name."""
    if mask is not None:
        return "mask"
    return "noise" if noise is not None else f"strength-{strength:g}"


def _folder_page(source: Tensor, images: Tensor, first: int, strength: float) -> "Image.Image":
    """The images of a folder over what is drawn from them, with their numbers."""
    numbers = [str(first + k) for k in range(len(images))]
    title = f"drawn again from a strength of {strength:g}"
    return pairs(source.cpu(), images.cpu(), numbers, ("before", "after", "number"), title)


def redrawing_page(source: Tensor, mask: Tensor | None, images: Tensor, first: int) -> "Image.Image":
    """before | mask | after, with the numbers of the images."""
    source, images = source.cpu(), images.cpu()
    shown, texts = [source], ["before"]
    if mask is not None:
        shown.append(hide(source, mask))
        texts.append("mask")
    texts += [str(first + k) for k in range(len(images))]
    return grid(torch.cat([*shown, images]), columns=min(COLUMNS, len(texts)), texts=texts)
