"""A published pipeline as a contestant: it draws what the real images show, and is measured by these.

Image k of a seed shows what real image k of that seed's order shows, the images that an evaluation takes first: so both
sides show the same things, as often. Each is drawn alone, and brought to the size and channels of the real images by
the rule of `data.decoding.size`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from trilemma import rng
from trilemma.config import Config, make
from trilemma.data import Data
from trilemma.data.decoding.size import fit, parse_size
from trilemma.data.decoding.size import text as size_text
from trilemma.data.selection import part_named
from trilemma.errors import UserError
from trilemma.pictures.levels import to_uint8
from trilemma.pretrained.content import origin
from trilemma.pretrained.drawing import draw
from trilemma.pretrained.fetch import Place, locate
from trilemma.pretrained.pipeline import Pipeline, load_pipeline
from trilemma.pretrained.table import PREFIX, check_verb, defaults_of
from trilemma.run.compute import ImageBatch, one_algorithm

OF_CLASSES, OF_CAPTIONS = "a photo of {}", "{}"  # prompts where nothing is said
CALLED = ("unet", "transformer", "prior")  # the part of a pipeline that each step calls, by its name


class Keys(Config):
    """How a pipeline draws; None: as the pipeline does where nothing is said. size: (height, width), px."""

    steps: int | None = Field(default=None, ge=1, le=1000)
    guidance: float | None = Field(default=None, ge=0, le=1000)
    negative: str | None = None
    size: tuple[int, int] | None = None
    scheduler: str | None = None


@dataclass(frozen=True)
class Prompts:
    """What each image of a part of the real data is to show.

    form: the text, with {} for the word of an image; words: of each, (N,); source: what they are.
    """

    form: str
    words: tuple[str, ...]
    source: str

    def text(self, k: int, seed: int) -> str:
        """The prompt of image k of a seed; after the last real image the first follows again."""
        return self.form.replace("{}", self.words[_order(len(self.words), seed)[k % len(self.words)]])

    def __str__(self) -> str:
        return f'"{self.form}", {{}} for {self.source}' if "{}" in self.form else f'"{self.form}"'


@cache
def _order(count: int, seed: int) -> list[int]:
    """The order in which an evaluation takes real images."""
    return rng.permutation(count, seed, "evaluate").tolist()


def prompts_of(data: Data, split: str, form: str | None = None) -> Prompts:
    """Prompts by the captions of a split ("all": of every image), or else by the names of the classes.

    Args:
        form: the text, with {} for the caption or the name; without {} it is the prompt of every image.
    Raises:
        UserError: there are neither, and no form that needs none.
    """
    if form is not None and "{}" not in form:
        return Prompts(form, ("",), "")
    part = part_named(data, split)
    if captions := part.captions:
        return Prompts(form or OF_CAPTIONS, captions, "the caption of each real image")
    if data.classes and (labels := part.labels) is not None:
        words = tuple(data.classes[k] for k in labels.tolist())
        return Prompts(form or OF_CLASSES, words, "the name of the class of each real image")
    raise UserError(
        f"{data.name} has neither captions nor classes to draw by; say what the images show, as "
        'prompt="a photo of a cat"'
    )


@dataclass(frozen=True, eq=False)
class TextToImage:
    """A pipeline by its name, as a contestant; `prepared` says what it is measured by, before which it cannot draw."""

    model: str
    data: Data | None = None
    prompts: Prompts | None = None
    keys: Keys = field(default_factory=Keys)

    def __post_init__(self) -> None:
        check_verb(self.model, "evaluate")

    @property
    def name(self) -> str:
        """As it is typed."""
        return f"{PREFIX}{self.model}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """That of the real images."""
        return self.real.shape

    @property
    def classes(self) -> Sequence[str]:
        """None of its own."""
        return ()

    @property
    def count(self) -> int | None:
        """There is no end to its images."""
        return None

    def prepared(
        self, data: Data, split: str, prompt: str | None = None, settings: Mapping[str, Any] | None = None
    ) -> "TextToImage":
        """As it is measured by a split of real data; one that was prepared stays as it is.

        Args:
            prompt: see `prompts_of`; settings: the fields of `Keys`.
        Raises:
            UserError: as `prompts_of`, or for a setting that a pipeline has not.
        """
        if self.prompts is not None:
            return self
        given = dict(settings or {})
        if "size" in given:
            given["size"] = parse_size(given["size"])
        keys = make(Keys, {**defaults_of(self.model), **given})
        return replace(self, data=data, prompts=prompts_of(data, split, prompt), keys=keys)

    @cached_property
    def place(self) -> Place:
        """Where it is; downloaded at the first use."""
        return locate(self.model)

    @cached_property
    def origin(self) -> dict[str, str]:
        """Repository and commit, or folder and content."""
        return origin(self.place)

    @property
    def identity(self) -> dict[str, Any]:
        """What tells it from others: the commit or the content, the prompts and the keys."""
        return {**self.origin, **self.settings, "words": self.asked.words}

    @property
    def weights_id(self) -> str:
        """The commit of a repository, or the hash of a folder's content."""
        return self.origin.get("commit") or self.origin["content"]

    @property
    def settings(self) -> dict[str, Any]:
        """How it draws, for a receipt."""
        return {"prompt": str(self.asked), **{key: value for key, value in self.keys if value is not None}}

    @property
    def real(self) -> Data:
        """The real data that it is measured by."""
        assert self.data is not None, "prepared() comes first"
        return self.data

    @property
    def asked(self) -> Prompts:
        """What it is to draw."""
        assert self.prompts is not None, "prepared() comes first"
        return self.prompts

    def open(self) -> "Session":
        """The pipeline, loaded.

        Raises:
            UserError: as `load_pipeline`.
        """
        return Session(self, load_pipeline(self.place, verb="evaluate"))

    def draw(self, n: int, *, seed: int, first: int, batch: int, **settings: Any) -> Iterator[ImageBatch]:
        """uint8 levels, `batch` at a time; settings are those of `prepared`."""
        session = self.open()
        for start in range(first, first + n, batch):
            count = min(batch, first + n - start)
            yield ImageBatch(session.images(start, count, seed), start, (start, count))


class Session:
    """A loaded pipeline that draws for a contestant; `size`: of the images as they were drawn last, (height, width)."""

    def __init__(self, contestant: TextToImage, pipeline: Pipeline) -> None:
        self.contestant, self.pipeline = contestant, pipeline
        self.size: tuple[int, int] | None = None

    def images(self, first: int, count: int, seed: int) -> Tensor:
        """Images number `first` and on, each drawn alone: uint8 (count, C, H, W), in the shape of the real ones."""
        return torch.cat([self._image(k, seed) for k in range(first, first + count)])

    def _image(self, k: int, seed: int) -> Tensor:
        contestant, keys = self.contestant, dict(self.contestant.keys)
        scheduler = keys.pop("scheduler")
        with one_algorithm():
            image = draw(self.pipeline, contestant.asked.text(k, seed), k, seed=seed, keys=keys, scheduler=scheduler)
        self.size = (image.shape[2], image.shape[3])
        channels, *target = contestant.shape
        return fit(to_uint8(image), (target[0], target[1]), channels)

    @property
    def networks(self) -> tuple[nn.Module, list[nn.Module]]:
        """The network that sampling calls, and all networks.

        Raises:
            UserError: it is not known which one is called.
        """
        base = self.pipeline.base
        parts = {name: part for name, part in base.components.items() if isinstance(part, nn.Module)}
        called = next((parts[name] for name in CALLED if name in parts), None)
        if called is None:
            raise UserError(
                f"{self.pipeline.place.name} ({type(base).__name__}) has none of the parts {', '.join(CALLED)}, whose "
                "calls are its cost; measure another pipeline"
            )
        return called, [*parts.values()]

    def described(self) -> list[str]:
        """What drew the images and how, for the reader of the scores."""
        _, height, width = self.contestant.shape
        source = ", ".join(f"{key} {value}" for key, value in self.contestant.origin.items())
        target = f"{size_text((height, width))} (height x width)"
        text = f"drawn by {type(self.pipeline.base).__name__} ({source}), one image at a time; prompts: "
        sizes = "" if self.size is None else f"drawn at {size_text(self.size)}, "
        return [
            f"{text}{self.contestant.asked}",
            f"{sizes}scaled to cover {target}, the centre kept, by the rule for images",
        ]
