"""What is asked of a run's model: a class by its name or number, or captions, one for all images or one for each."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from trilemma.data.sources.labels import class_number
from trilemma.errors import UserError, unknown
from trilemma.registry import require
from trilemma.text import is_unicode, note, printable
from trilemma.types import (
    Condition,
    Conditional,
    ReadsCaptions,
    check_condition,
    check_labels,
    codes_need,
    flags,
    no_caption,
    no_label,
)
from trilemma.words import counted

Label = str | int | Tensor | None  # one class by name or number for all images, or int64 (N,)
Caption = str | Sequence[str] | None  # one for all images, or several with | between them


def condition_of(
    label: str | int | Tensor, count: int, model: nn.Module, classes: Sequence[str], *, name: str, path: Path
) -> Condition:
    """What `label` asks of a model for `count` images or codes.

    Args:
        classes: of the data that it was trained on, in their order.
        name, path: of the model and its run, for messages.
    Raises:
        UserError: the model takes no class, or has none of that name or number, or the labels are not one for each.
    """
    if isinstance(label, str | int) and not classes:
        raise UserError(f"label={label}: the data of {path} has no classes; leave label out")
    require(model, name, "take a class", Conditional)
    if isinstance(label, Tensor):
        condition = Condition(label)
        check_condition(condition, count, flags(model).n_classes)
        return condition
    number = class_number(label, classes)
    if number is None:
        raise unknown("label", str(label), classes)
    return Condition(torch.tensor([number]).expand(count))


def captions_of(caption: str | Sequence[str], first: int, count: int, model: nn.Module, name: str) -> Condition:
    """What captions ask of a model for the images numbered first ... first + count - 1: image k has caption k, and
    after the last the first again.

    Args:
        caption: one, or several as a list or with | between them; name: of the model, for messages.
    Raises:
        UserError: the model takes no captions, there is none, or one is not Unicode text.
    """
    require(model, name, "take a caption", ReadsCaptions)
    captions = [text.strip() for text in caption.split("|")] if isinstance(caption, str) else list(caption)
    if not captions or not all(isinstance(text, str) and is_unicode(text) for text in captions):
        raise UserError(f"caption={caption!r}: give a text in Unicode, or several with | between them")
    unknown_words = dict.fromkeys(word for text in captions for word in cast(ReadsCaptions, model).unknown_words(text))
    if unknown_words:
        words = ", ".join(f'"{printable(word)}"' for word in unknown_words)
        note(f"unknown words: {words}; they have no token, and are spelled")
    if cut := cast(ReadsCaptions, model).captions_cut(dict.fromkeys(captions)):
        note(f"{counted(cut, 'caption')} {'is' if cut == 1 else 'are'} longer than the model reads, and cut")
    return Condition(caption=[captions[k % len(captions)] for k in range(first, first + count)])


def needed(
    model: nn.Module,
    condition: Condition,
    *,
    advise: Collection[str] = (),
    fields: Collection[str] | None = None,
) -> Condition:
    """What the codes of a model need of a condition.

    Args:
        advise: keys that the caller takes, label or caption, which an error then advises.
        fields: that they need; default: those of `codes_need`.
    Raises:
        UserError: if one of them is not given, or a label is not a class of the model.
    """
    fields = codes_need(model) if fields is None else fields
    part = condition.only(*fields)
    if "label" in fields:
        if part.label is None:
            raise no_label("give label=, or images with classes" if "label" in advise else "give images with classes")
        check_labels(part.label, flags(model).n_classes)
    if "caption" in fields and part.caption is None:
        key = "caption=, or " if "caption" in advise else ""
        raise no_caption(f"give {key}images with captions")
    return part
