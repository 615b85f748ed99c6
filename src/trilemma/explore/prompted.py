"""What is asked of a published pipeline: one request, the cells of its picture, and how each is drawn.

A cell is a request of its own, for one image, so that a file of a single image says no more than what made it.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from trilemma.config import Config, make
from trilemma.data.decoding.decode import decode
from trilemma.data.decoding.pixels import Item, header, open_file
from trilemma.data.decoding.size import parse_size
from trilemma.errors import UserError
from trilemma.explore.axes import Axes, axes_of
from trilemma.explore.redraw import read_mask
from trilemma.files import sha256_of, user_path
from trilemma.pictures.grid import to_image
from trilemma.pictures.levels import to_float
from trilemma.pictures.png import receipt_for
from trilemma.pretrained.drawing import check_steps, draw, task_of
from trilemma.pretrained.pipeline import Pipeline
from trilemma.progress import OnStep, drawing_progress
from trilemma.run.compute import one_algorithm
from trilemma.run.run import LARGEST_NUMBER

FORMAT = 1  # of a receipt
ADAPTED_BY = "adapter_origin"  # in a receipt: which motion adapter it was
FILES = ("image", "mask", "lora")  # keys that may name a file
TEXTS = ("prompt", "negative", "scheduler", "size", *FILES)  # keys that a grid may vary: texts
AXES = ("steps", "guidance", "strength", "seed", "first", *TEXTS)  # and all
VARIED = "{}"  # in a prompt, where those of a grid differ
MOST = 400  # images of a picture
MOST_FRAMES = 400  # of a film
LARGEST_SIDE = 4096  # px
SIDES = 8  # px: those of an image are whole multiples, as autoencoders want them
Text = Annotated[str, Field(max_length=10_000)]
Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]


class Request(Config):
    """What is drawn, by the keys of `imagine`; size in px (height, width); x, y: KEY:VALUE,VALUE as typed.

    frame: the one of a film that a file holds.
    """

    prompts: tuple[Text, ...]
    n: int = Field(default=1, ge=1, le=MOST)
    seed: int = Field(default=0, ge=0)
    first: int = Field(default=0, ge=0, lt=LARGEST_NUMBER)
    steps: int | None = Field(default=None, ge=1, le=1000)
    guidance: float | None = Field(default=None, ge=0, le=1000)
    negative: Text | None = None
    size: tuple[Side, Side] | None = None
    scheduler: Text | None = None
    image: Text | None = None
    strength: float | None = Field(default=None, gt=0, le=1)
    mask: Text | None = None
    lora: Text | None = None
    x: Text | None = None
    y: Text | None = None
    frames: int | None = Field(default=None, ge=2, le=MOST_FRAMES)
    fps: int | None = Field(default=None, ge=1, le=60)
    adapter: Text | None = None
    frame: int | None = Field(default=None, ge=0, lt=MOST_FRAMES)

    @model_validator(mode="after")
    def _one_picture(self) -> "Request":
        task_of({"image": self.image, "mask": self.mask, "strength": self.strength})
        check_steps(self.steps, self.strength)
        if not self.prompts:
            raise ValueError("a prompt is needed: what the image shows")
        if len(self.prompts) * self.n > MOST:
            raise ValueError(f"{len(self.prompts)} prompts, n={self.n}: a picture has at most {MOST} images")
        if self.y is not None and self.x is None:
            raise ValueError("y= needs x=, the key that varies along a row")
        if self.frames is not None and (self.n > 1 or len(self.prompts) > 1 or self.x is not None):
            raise ValueError("frames= makes one film: give one prompt, and no n= and x=")
        if self.frames is None and (self.fps, self.frame) != (None, None):
            raise ValueError("fps= needs frames=, how many images the film has")
        if self.frames is None and self.adapter is not None:
            raise ValueError("adapter= makes films; add frames=, how many images the film has")
        if self.x is not None and (self.n > 1 or len(self.prompts) > 1):
            raise ValueError("x= varies a key of one image: give one prompt, and n=1")
        return self

    @cached_property
    def cells(self) -> list["Request"]:
        """One request for each image of the picture, row by row.

        Raises:
            UserError: an axis is not KEY:VALUE,VALUE, a value does not fit its key, or there are too many images.
        """
        if self.x is None:
            return [self.with_(prompts=(p,), n=1, first=self.first + k) for p in self.prompts for k in range(self.n)]
        return [self.with_(x=None, y=None, **self._fields(cell)) for cell in self._axes.cells]

    def _fields(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        """What varies in a cell, by the fields of a request."""
        fields = {key: value for key, value in cell.items() if key != "prompt"}
        if "prompt" in cell:
            if VARIED not in self.prompts[0]:
                raise UserError(f'to vary the prompt, write {VARIED} where its parts stand, as "a photo of {VARIED}"')
            fields["prompts"] = (self.prompts[0].replace(VARIED, cell["prompt"] or ""),)
        return fields | ({"size": parse_size(cell["size"])} if "size" in cell else {})

    @cached_property
    def _axes(self) -> Axes:
        assert self.x is not None
        return axes_of(self.x, self.y, AXES, MOST, TEXTS)

    def values_of(self, key: str) -> list[str]:
        """What the cells have for a key of texts, each once."""
        return list(dict.fromkeys(value for cell in self.cells if (value := getattr(cell, key))))

    @property
    def columns(self) -> int | None:
        """How many images lie side by side in the picture; None: as square as possible."""
        if self.x is not None:
            return self._axes.columns
        return self.n if len(self.prompts) > 1 else None

    @property
    def texts(self) -> list[str]:
        """What tells each cell from the others, to stand under it."""
        if self.x is not None:
            return [self._axes.text_of({key: _short(key, cell[key]) for key in cell}) for cell in self._axes.cells]
        return [f"{cell.first}: {cell.prompts[0]}" if len(self.prompts) > 1 else str(cell.first) for cell in self.cells]


def _short(key: str, value: Any) -> Any:
    """A value as it stands under an image: of a file its name."""
    return Path(value).name if key in FILES and value is not None else value


@dataclass(frozen=True)
class Inputs:
    """The image that is drawn again and where, as pictures of PIL and as values (1, C, H, W)."""

    image: Any = None
    mask: Any = None
    pixels: Tensor | None = None
    area: Tensor | None = None


def read_inputs(request: Request) -> Inputs:
    """The image and the mask of a request; sides of the image are brought to whole multiples of SIDES.

    Raises:
        UserError: a file does not exist, or cannot be read.
    """
    if request.image is None:
        return Inputs()
    path = user_path(request.image)
    if not path.is_file():
        raise UserError(f"image={path}: file not found; give an image file")
    item = Item(str(path), lambda: open_file(path))
    height, width = request.size or header(item).size
    size = whole_sides(height, width)
    if max(size) > LARGEST_SIDE:
        raise UserError(
            f"image={path} is {height}x{width} px (height x width); give size=, at most {LARGEST_SIDE} px a side"
        )
    decoded = decode([item], size, 3)
    if decoded.skipped:
        raise UserError(f"cannot read the image {decoded.skipped[0]}")
    pixels = to_float(decoded.images)
    area = None if request.mask is None else read_mask(request.mask, (3, *size), path)
    return Inputs(to_image(pixels[0]), None if area is None else to_image(area[0]), pixels, area)


def whole_sides(height: int, width: int) -> tuple[int, int]:
    """Sides of an image that is drawn again, px: cut to whole multiples of SIDES.

    >>> whole_sides(70, 5)
    (64, 8)
    """
    return max(SIDES, height - height % SIDES), max(SIDES, width - width % SIDES)


def full_path(path: str | Path | None) -> str | None:
    """A path from the root, as a receipt names it."""
    return None if path is None else str(user_path(path).absolute())


def full_mask(mask: str | None) -> str | None:
    """What a mask is given by: a file from the root, or a rectangle as it is."""
    return full_path(mask) if mask and user_path(mask).is_file() else mask


def read_cells(request: Request) -> list[Inputs]:
    """What each cell of a request is drawn from; an image is read once for each mask and size.

    Raises:
        UserError: as `read_inputs`.
    """
    read: dict[Any, Inputs] = {}
    keys = [(cell.image, cell.mask, cell.size) for cell in request.cells]
    for key, cell in zip(keys, request.cells, strict=True):
        if key not in read:
            read[key] = read_inputs(cell)
    return [read[key] for key in keys]


def draw_cells(
    pipeline: Pipeline, request: Request, inputs: Sequence[Inputs]
) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """Each image of a request (3, H, W) in [0, 1], and its receipt.

    Outside a mask, pixels are those of the image that is given.

    Args:
        inputs: of each cell, as `read_cells` gives them.
    Raises:
        UserError: the pipeline does not take a key, or cannot draw this.
    """
    sums = dict[Path, str]()
    with drawing_progress(len(request.cells)) as on_steps_of:
        for k, (cell, given) in enumerate(zip(request.cells, inputs, strict=True)):
            image = _draw_cell(pipeline, cell, given, on_steps_of(k))
            yield image[0], receipt_of(pipeline, cell, sums_of(cell, sums), list(image.shape[2:]))


def _draw_cell(pipeline: Pipeline, cell: Request, inputs: Inputs, on_step: OnStep) -> Tensor:
    """The image of a request for one, (1, 3, H, W) in [0, 1]."""
    how: dict[str, Any] = {"keys": call_keys(cell, inputs), "scheduler": cell.scheduler, "on_step": on_step}
    pipeline.use_lora(cell.lora)
    with one_algorithm():
        image = draw(pipeline, cell.prompts[0], cell.first, seed=cell.seed, **how)
    if inputs.area is None or inputs.pixels is None:
        return image
    return _outside_as_before(image, inputs.pixels, inputs.area)


def call_keys(cell: Request, inputs: Inputs) -> dict[str, Any]:
    """What a pipeline is called with, by our names: for one image or one film."""
    keys = {key: getattr(cell, key) for key in ("steps", "guidance", "negative", "size", "strength", "frames", "fps")}
    size = {} if inputs.pixels is None else {"size": tuple(inputs.pixels.shape[2:])}
    return {**keys, **size, "image": inputs.image, "mask": inputs.mask}


def _outside_as_before(image: Tensor, pixels: Tensor, area: Tensor) -> Tensor:
    """The image drawn where the area is 1, and the pixels of before elsewhere.

    Raises:
        UserError: they differ in size.
    """
    if image.shape != pixels.shape:
        height, width = image.shape[2:]
        raise UserError(
            f"the model draws {height}x{width} px (height x width) for this image; give size={height}x{width}"
        )
    return torch.where(area > 0, image, pixels)


def sums_of(request: Request, known: dict[Path, str] | None = None) -> dict[str, str]:
    """The SHA-256 of each file that a request names, by its key; of several of a grid, that of their SHA-256 in lines.

    Args:
        known: of files that were read before, to which others are added.
    """
    known = {} if known is None else known
    sums = {}
    for key in FILES:
        files = [path for name in request.values_of(key) if (path := user_path(name)).is_file()]
        known |= {path: sha256_of(path) for path in files if path not in known}
        lines = [known[path] for path in files]
        if lines:
            sums[key] = lines[0] if len(lines) == 1 else hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return sums


def receipt_of(pipeline: Pipeline, request: Request, sums: Mapping[str, str], size: list[int]) -> dict[str, Any]:
    """How a picture is made: what was asked for, of which pipeline, with which scheduler and versions."""
    import diffusers  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]

    scheduler = pipeline.base.scheduler
    adapter = pipeline.adapter_origin
    settings = {key: value for key, value in dict(scheduler.config).items() if is_plain(value) and key[:1] != "_"}
    return receipt_for(
        "imagine",
        format=FORMAT,
        torch=torch.__version__,
        diffusers=diffusers.__version__,
        transformers=transformers.__version__,
        device=str(pipeline.device),
        threads=torch.get_num_threads(),
        precision=str(pipeline.dtype).removeprefix("torch."),
        **pipeline.origin,
        **({} if adapter is None else {ADAPTED_BY: adapter}),
        pipeline=type(pipeline.base).__name__,
        drawn_by={"scheduler": type(scheduler).__name__, **settings},
        pixels=size,
        sums=dict(sums),
        **request.to_json(),
    )


def is_plain(value: Any) -> bool:
    """Whether a setting is written down as it is."""
    return isinstance(value, str | int | float | bool | type(None))


def request_in(receipt: Mapping[str, Any]) -> Request:
    """What a receipt says was asked for.

    Raises:
        UserError: it does not say so.
    """
    return make(Request, {key: receipt[key] for key in Request.model_fields if key in receipt})
