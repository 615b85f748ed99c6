"""A finished (or stopped) training, read from its folder: `run = trilemma.load("runs/vae-digits")`."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from html import escape
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from trilemma.config import Config, make
from trilemma.data.load import Source
from trilemma.errors import UserError, check_codes, check_finite, check_images, check_range, unknown_key
from trilemma.files import read_plain
from trilemma.modes import own_modes
from trilemma.run.compute import MOST_NUMBERS, ImageBatch, in_batches, in_exact_batches, one_algorithm
from trilemma.run.condition import Caption, Label, captions_of, condition_of, needed
from trilemma.run.guides import guides_of
from trilemma.run.stored import StoredRun
from trilemma.text import printable
from trilemma.types import (
    NO_GUIDES,
    UNCONDITIONAL,
    Coder,
    Condition,
    Decodes,
    Encodes,
    Guides,
    Inverts,
    Reconstructs,
    Samples,
    check_count,
    draw,
    flags,
    keys_of,
)
from trilemma.values import checked_call, shown
from trilemma.vocabulary import sampled_with

LARGEST_PICTURE = 64 << 20  # bytes
LARGEST_NUMBER = 2**62  # of an image

T = TypeVar("T")


@checked_call
def load(
    path: str | Path, *, device: str = "auto", model: nn.Module | None = None, data: Source | None = None
) -> "Run":
    """Open a run folder.

    Args:
        model: for a run of a module that was given as it is: such a module, of which a copy takes the weights.
        data: the images it was trained on, where they were an array, or lie elsewhere now.
    Raises:
        UserError: if it is not a run, is not finished, or was made by a later version.
    """
    return Run(path, device=device, model=model, data=data)


def as_run(what: "Run | str | Path") -> "Run":
    """A run as it is, or the run of a folder.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(what, Run | str | Path):
        raise UserError(f"run={shown(what)}: give a run or the path of its folder")
    return what if isinstance(what, Run) else Run(what)


def end_of(first: int, n: int) -> int:
    """The number after those of n images.

    Raises:
        UserError: there are no such numbers.
    """
    if first + n > LARGEST_NUMBER:
        raise UserError(f"n={n}, first={first}: images are numbered up to {LARGEST_NUMBER}")
    return first + n


class Run(StoredRun):
    """A run folder, and what its model computes, a batch at a time; methods check what they are given."""

    @cached_property
    def _guides(self) -> dict[Config, Guides]:
        """By the settings of the sampler that name them."""
        return {}

    @cached_property
    def guide_runs(self) -> dict[str, "Run"]:
        """Runs that were opened to guide this one, by what guide= says."""
        return {}

    @checked_call
    def sample(
        self,
        n: int = 64,
        *,
        seed: int = 0,
        first: int = 0,
        label: Label = None,
        caption: Caption = None,
        condition: Condition = UNCONDITIONAL,
        batch: int = 256,
        exact: bool = False,
        keys: Config | None = None,
        **settings: Any,
    ) -> Tensor:
        """Draw images number first ... first + n - 1 of `seed`; image k is the same whatever n, first and batch are.

        Its noise is bit-equal; its values may differ by rounding, 1/255 at most, because a processor adds up batches
        of different sizes in a different order.

        Args:
            label: a class by name or number, or one for each image, int64 (n,), for a model that takes one.
            caption: what the images show, for a model that reads captions; several in a list or with | between them are
                drawn in turns, image k caption k.
            condition: in place of a label or caption, what is asked for in general, for each of the n images.
            batch: images computed at a time, which bounds the memory; halved if it runs out.
            exact: bit-equal values too (same machine and version): whole batches of EXACT_BATCH are computed, in
                which each image has its own place. One image then costs as much as 64; `batch` has no effect.
            settings: of this model's sampler (steps, eta, temperature, ...).
            keys: in place of them, settings that `Run.sampling` has checked.
        Returns:
            float32 in [0, 1] on the CPU, (n, C, H, W).
        Raises:
            UserError: if the model does not sample, does not take the label or a setting, or draws NaN.
        """
        parts = self.draw(
            n,
            seed=seed,
            first=first,
            label=label,
            caption=caption,
            condition=condition,
            batch=batch,
            exact=exact,
            keys=keys,
            **settings,
        )
        images = torch.empty(n, *self.shape, dtype=torch.float32)
        for part in parts:
            images[part.first - first :][: len(part.images)] = part.images
        return images

    def draw(
        self,
        n: int = 64,
        *,
        seed: int = 0,
        first: int = 0,
        label: Label = None,
        caption: Caption = None,
        condition: Condition = UNCONDITIONAL,
        batch: int = 256,
        exact: bool = False,
        keys: Config | None = None,
        **settings: Any,
    ) -> Iterator[ImageBatch]:
        """As `sample`, batch by batch: never more than one batch is held."""
        if n < 1 or batch < 1 or first < 0:
            raise UserError(f"n={n}, batch={batch}, first={first}: n and batch must be at least 1, first at least 0")
        end = end_of(first, n)
        model = self.require("draw samples", Samples)
        if keys is not None and settings:
            raise UserError(f"keys= and {next(iter(settings))}= were both given; give one of them")
        keys = self.sampling(settings, Run.sample) if keys is None else keys
        guides = self.guides(keys)
        asked_condition = self.condition(label, n, condition, guides.classifier, caption, first)

        def compute(start: int, count: int) -> Tensor:
            rows = (torch.arange(start, start + count) - first).clamp(0, n - 1)  # of an exact batch some are left out
            asked = asked_condition.rows(rows).to(self.device)
            with own_modes(), torch.no_grad(), one_algorithm():
                images = draw(model, count, seed=seed, first=start, condition=asked, keys=keys, guides=guides)
                return images.float().cpu()

        parts = in_exact_batches(compute, first, end) if exact else in_batches(compute, first, end, self._within(batch))
        return (self._drawn(images, start, max(start, first), end) for start, images in parts)

    def _drawn(self, images: Tensor, start: int, first: int, end: int) -> ImageBatch:
        """The images number first ... end - 1 of a batch that begins with number `start`, if they are finite."""
        part = ImageBatch(images[first - start : end - start], first, (start, len(images)))
        if not part.images.isfinite().all():
            advice = "their weights do, too: the training diverged; train again with a lower lr="
            if all(value.isfinite().all() for value in self.model.state_dict().values()):
                advice = "the weights are finite, so give the sampler milder settings"
            check_finite(part.images, f"images of {self.path}", advice, first)
        return part

    @checked_call
    def encode(
        self, images: Tensor, label: Label = None, batch: int = 256, *, condition: Condition = UNCONDITIONAL
    ) -> Tensor:
        """Codes of images.

        Args:
            images: floats in [0, 1], (N, C, H, W), on any device.
            label: the class of all of them by name or number, or of each, int64 (N,), for a model that takes one; where
                the codes do not depend on it (`codes_need`), it makes no difference.
            condition: in place of a label, what is asked for in general.
            batch: images computed at a time, which bounds the memory; halved if it runs out.
        Returns:
            float32 on the CPU, (N, Z).
        Raises:
            UserError: if the model does not encode, images or labels do not fit it, or a code is not finite.
        """
        model = self.coder("encode images", Encodes)
        check_images(images, self.shape)
        check_range(images)
        return self._results("codes", model.encode, images, label, condition, batch)

    @checked_call
    def invert(
        self,
        images: Tensor,
        label: Label = None,
        batch: int = 256,
        *,
        condition: Condition = UNCONDITIONAL,
        steps: int | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Codes of images for a model without an encoder, by many network calls for each, as `encode`: (N, Z).

        Args:
            steps: network calls for each image, about; default: the model's own number.
            seed: of what is random in a search.
        Raises:
            UserError: if the model does not invert, images or labels do not fit it, or a code is not finite.
        """
        if steps is not None and steps < 1:
            raise UserError(f"steps={steps}: at least 1 is needed")
        model = self.require("invert images", Inverts)
        check_images(images, self.shape)
        check_range(images)
        return self._results("codes", partial(model.invert, steps=steps, seed=seed), images, label, condition, batch)

    @checked_call
    def decode(
        self, codes: Tensor, label: Label = None, batch: int = 256, *, condition: Condition = UNCONDITIONAL
    ) -> Tensor:
        """Images of codes (N, Z), as `encode`: float32 in [0, 1] on the CPU, (N, C, H, W).

        Raises:
            UserError: if the model does not decode, codes or labels do not fit it, or an image is not finite.
        """
        model = self.coder("decode", Decodes)
        if (length := flags(self.model).code_length) is not None:
            check_codes(codes, length)
        return self._results("images", model.decode, codes, label, condition, batch)

    @checked_call
    def reconstruct(
        self, images: Tensor, label: Label = None, batch: int = 256, *, condition: Condition = UNCONDITIONAL
    ) -> Tensor:
        """Images after a pass through the model, as `encode`: float32 in [0, 1] on the CPU, (N, C, H, W).

        Raises:
            UserError: if the model does not reconstruct, images or labels do not fit it, or a result is not finite.
        """
        model = self.coder("reconstruct", Reconstructs)
        check_images(images, self.shape)
        check_range(images)
        return self._results("images", model.reconstruct, images, label, condition, batch)

    def _results(
        self,
        what: str,
        function: Callable[[Tensor, Condition], Tensor],
        inputs: Tensor,
        label: Label,
        condition: Condition,
        batch: int,
    ) -> Tensor:
        """What a method of the model gives for images or codes, if it is finite."""
        asked = self.condition(label, len(inputs), condition)
        needed(self.model, asked, advise=["label"])
        results = self.apply(function, inputs, asked, batch)
        if not results.isfinite().all():
            sound = inputs.isfinite().all()
            advice = "train again with a lower lr=" if sound else "so does what was given; give finite values"
            check_finite(results, f"{what} of {self.path}", advice)
        return results

    def coder(self, doing: str, capability: type[T], *more: type) -> T:
        """As `require`, but a model without an encoder that inverts encodes, decodes and reconstructs by its noise."""
        if isinstance(self.model, Inverts) and not isinstance(self.model, Encodes):
            return cast(T, Coder(self.model))
        return self.require(doing, capability, *more)

    def apply(
        self,
        function: Callable[[Tensor, Condition], Tensor],
        inputs: Tensor,
        condition: Condition = UNCONDITIONAL,
        batch: int = 256,
    ) -> Tensor:
        """`function(inputs, condition)` on the run's device, batch by batch, without gradients: float32 on the CPU."""
        if batch < 1 or not len(inputs):
            raise UserError(f"batch={batch}, {len(inputs)} given: at least 1 of each is needed")

        def compute(start: int, count: int) -> Tensor:
            part = slice(start, start + count)
            rows_condition = condition.rows(part).to(self.device)
            with own_modes(), torch.no_grad():
                return function(inputs[part].to(self.device, torch.float32), rows_condition).float().cpu()

        results = torch.empty(0, dtype=torch.float32)
        for start, part in in_batches(compute, 0, len(inputs), self._within(batch)):
            results = results if start else torch.empty(len(inputs), *part.shape[1:], dtype=torch.float32)
            results[start : start + len(part)] = part
        return results

    def _within(self, batch: int) -> int:
        """A batch, or what is computed together at most: on a CPU the system ends a process that takes too much memory,
        without an error that could halve the batch."""
        return min(batch, max(1, MOST_NUMBERS // math.prod(self.shape))) if self.device.type == "cpu" else batch

    def condition(
        self,
        label: Label,
        count: int,
        condition: Condition = UNCONDITIONAL,
        classifier: nn.Module | None = None,
        caption: Caption = None,
        first: int = 0,
    ) -> Condition:
        """What is asked of the model for `count` images: a class by name or number, or one for each; captions, of the
        images from number `first` on; or a condition.

        Args:
            classifier: takes the label in place of the model.
        Raises:
            UserError: if both are given, the model takes no such class, or a field is not one for each image.
        """
        asked = {"label": label, "caption": caption, "condition": None if condition is UNCONDITIONAL else condition}
        if len(both := [f"{name}=" for name, value in asked.items() if value is not None]) > 1:
            raise UserError(f"{both[0]} and {both[1]} were both given; give one of them")
        if caption is not None:
            return captions_of(caption, first, count, self.model, self.recipe.name)
        if label is None:
            check_count(condition, count)
            return condition
        taker = self.model if classifier is None else classifier
        return condition_of(label, count, taker, self.classes, name=self.recipe.name, path=self.path)

    def guides(self, keys: Config) -> Guides:
        """What guides the sampler from outside, as its settings name it; worked out once for the settings."""
        if not flags(self.model).takes_guides:
            return NO_GUIDES
        if keys not in self._guides:
            self._guides[keys] = guides_of(self, self.model, keys, self._opened)
        return self._guides[keys]

    def guide_origin(self, keys: Config) -> dict[str, str] | None:
        """What a file says of the run that guided the one it was made with; None without such a guide."""
        if self.guides(keys).weak is None:
            return None
        guide = self.guide_runs[str(keys.get("guide"))]
        return {"model": guide.recipe.name, **guide.origin}

    def _opened(self, path: str) -> "tuple[Run, nn.Module]":
        """A run that guides this one, opened once."""
        if path not in self.guide_runs:
            self.guide_runs[path] = Run(path, device=str(self.device))
        return self.guide_runs[path], self.guide_runs[path].model

    def sampling(self, settings: Mapping[str, Any], verb: Callable[..., Any]) -> Config:
        """Settings of this run's sampler, checked.

        Args:
            verb: what was called with them, whose own keys may have been meant.
        Raises:
            UserError: the model does not draw samples, or does not take a key, or a value does not fit.
        """
        kind = keys_of(self.require("draw samples", Samples))
        for key in settings:
            if key not in kind.model_fields:
                own = [word for word, p in inspect.signature(verb).parameters.items() if p.kind is p.KEYWORD_ONLY]
                takes = {verb.__name__: own, f"drawing from {self.recipe.name}": list(kind.model_fields)}
                raise unknown_key(key, takes, of=sampled_with(key))
        return make(kind, settings)

    def _repr_html_(self) -> str:
        """In a notebook: the samples and the curves."""
        import base64

        paths = [self.path / "samples" / "last.png", self.path / "curves.png"]
        pictures = [base64.b64encode(read_plain(path, LARGEST_PICTURE)).decode() for path in paths if path.exists()]
        images = "".join(f'<img src="data:image/png;base64,{picture}">' for picture in pictures)
        return f"<p>{escape(printable(repr(self)))}</p>{images}"


RunLike = Annotated[
    Run | str | Path, Field(description="a run folder made by `trilemma train`, or hf:OWNER/NAME of the hub")
]
RunOrPipeline = Annotated[
    Run | str | Path,
    Field(
        description="a run folder made by `trilemma train`, hf:OWNER/NAME of the hub, or pipeline:NAME as of imagine"
    ),
]
