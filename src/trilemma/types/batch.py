"""A condition, what is asked of a model, and a batch: images with what is known of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.errors import UserError, form_of


@dataclass(frozen=True, eq=False)
class Condition:
    """What is asked of a model, for each of B images; None = not given.

    label: class index, int64 (B,).
    caption: one text per image.
    image: a smaller or a source image, float32 in [0, 1], (B, C, h, w).
    mask: 1 where pixels are to be made, (B, 1, H, W).
    """

    label: Tensor | None = None
    caption: Sequence[str] | None = None
    image: Tensor | None = None
    mask: Tensor | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return all(value is None for value in vars(self).values())

    def rows(self, rows: Tensor | slice) -> "Condition":
        """The condition of some of the images: by their numbers, int64 (N,), or a slice."""
        caption = self.caption
        if caption is not None:
            caption = caption[rows] if isinstance(rows, slice) else [str(caption[k]) for k in rows.tolist()]
        return self._mapped(lambda values: rows_of(values, rows), caption)

    def to(self, device: torch.device | str) -> "Condition":
        """The same on another device."""
        return self._mapped(lambda values: values.to(device), self.caption)

    def only(self, *names: str) -> "Condition":
        """The fields of these names alone."""
        return Condition(**{name: getattr(self, name) for name in names})

    def _mapped(self, change: Callable[[Tensor], Tensor], caption: Sequence[str] | None) -> "Condition":
        tensors = (self.label, self.image, self.mask)
        label, image, mask = (None if values is None else change(values) for values in tensors)
        return Condition(label, caption, image, mask)


UNCONDITIONAL = Condition()  # nothing is asked for


def rows_of(values: Tensor, rows: Tensor | slice) -> Tensor:
    """Some rows of a tensor: by their numbers, int64 (N,) on any device, or a slice."""
    return values[rows if isinstance(rows, slice) else rows.to(values.device)]


WITHOUT_LABELS = "was trained without labels"


def check_condition(condition: Condition, count: int, n_classes: int = 0, takes: Sequence[str] = ()) -> None:
    """For models that take a label, 0 to n_classes - 1, with n_classes=0 none; and the other fields named in `takes`.

    Args:
        count: how many images or codes it is for.
    Raises:
        UserError: if there is more, or the labels are not int64 (count,), or one is not a class.
    """
    for name in ("caption", "image", "mask"):
        if getattr(condition, name) is not None and name not in takes:
            raise UserError(f"this model takes no {name}; leave it out")
    if condition.label is not None:
        check_labels(condition.label, n_classes)
    check_count(condition, count)


def check_labels(labels: Tensor, n_classes: int) -> None:
    """Raises UserError for labels that are not int64 (B,), or not classes of a model that takes `n_classes`."""
    if not n_classes:
        raise UserError(f"this model {WITHOUT_LABELS}; leave label out")
    if not isinstance(labels, torch.Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
        raise UserError(
            f"labels were given as {form_of(labels)}; give an int64 tensor (B,), with 0 to {n_classes - 1} for each"
        )
    if torch.compiler.is_exporting():  # a graph has no values yet
        return
    outside = labels[(labels < 0) | (labels >= n_classes)]
    if len(outside):
        raise UserError(f"label {int(outside[0])} is not a class of this model; choose from 0 to {n_classes - 1}")


def no_label(advice: str) -> UserError:
    """The error for a model that needs a class and is given none."""
    return UserError(f"this model needs the class of each image or code; {advice}")


def no_caption(advice: str) -> UserError:
    """The error for a model that needs a caption and is given none."""
    return UserError(f"this model needs the caption of each image or code; {advice}")


def join_conditions(conditions: Sequence[Condition]) -> Condition:
    """The labels and captions of several sets of images, one after the other; a field that a set lacks is left out."""
    labels = [condition.label for condition in conditions if condition.label is not None]
    captions = [condition.caption for condition in conditions if condition.caption is not None]
    n = len(conditions)
    return Condition(
        torch.cat(labels) if len(labels) == n else None,
        [text for part in captions for text in part] if len(captions) == n else None,
    )


def check_count(condition: Condition, count: int) -> None:
    """Raises UserError for a field that is not one for each of `count` images or codes."""
    for name, values in vars(condition).items():
        if values is not None and len(values) != count:
            raise UserError(f"{len(values)} {name}s were given for {count} images or codes; give one for each")


def default_label(ids: Tensor, n_classes: int) -> Tensor:
    """The class of each image where none is asked for: image k has k % n_classes; int64, as the numbers `ids`."""
    return ids % n_classes


@dataclass(frozen=True)
class Batch:
    """Images with what is known of them.

    image: float32 in [0, 1], shape (B, C, H, W).
    condition: label and caption of each image, where the data have them.
    index: position of each image in its split, int64 (B,), or None for images from elsewhere.
    progress: share of the training that is done, in [0, 1], for what changes during training (a temperature).
    """

    image: Tensor
    condition: Condition = UNCONDITIONAL
    index: Tensor | None = None
    progress: float = 1.0

    def rows(self, rows: Tensor | slice) -> "Batch":
        """Some of the images, with what is known of them."""
        index = None if self.index is None else rows_of(self.index, rows)
        return Batch(rows_of(self.image, rows), self.condition.rows(rows), index, self.progress)
