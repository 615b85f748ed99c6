"""Arguments of public functions: a wrong one is named in a sentence before anything is done."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from trilemma.errors import UserError
from trilemma.values import check_value, checked_call

if TYPE_CHECKING:
    from trilemma.run.run import Run


@checked_call
def verb(
    what: "str | Path | Tensor",
    n: int = 3,
    *,
    how: Literal["pca", "tsne"] = "pca",
    share: float | None = None,
    names: str | Sequence[str] = (),
    size: int | tuple[int, int] = 8,
    run: "Run | None" = None,
    **settings: Any,
) -> tuple[Any, ...]:
    return what, n, how, share, names, size, run, settings


@pytest.mark.parametrize(
    ("args", "keys", "text"),
    [
        ((3,), {}, "^what=3: give a path or a tensor$"),
        ((None,), {}, "^what=none: give a path or a tensor$"),
        ((np.zeros((2, 3)),), {}, r"^what=\(ndarray of shape \(2, 3\)\): give"),
        (("a",), {"n": "5"}, "^n='5': give a whole number, not a text$"),
        (("a",), {"n": 2.5}, "^n=2.5: give a whole number$"),
        (("a",), {"n": True}, "^n=true: give a whole number$"),
        (("a",), {"n": None}, "^n=none: give a whole number$"),
        (("a",), {"how": "pcaa"}, r'^how=pcaa: give one of pca, tsne \(did you mean "pca"\?\)$'),
        (("a",), {"share": "half"}, "^share=half: give a number or none$"),
        (("a",), {"names": [1, 2]}, "^names=1,2: give a text or a list, each a text$"),
        (("a",), {"size": [1, 2, 3]}, "^size=1,2,3: give a whole number or 2 values"),
        (("a",), {"n": {"a": torch.zeros(2)}}, r"^n=\(a dict\): "),
        ((), {}, "^verb: missing a required argument: 'what'$"),
        (("a", 1, 2), {}, "^verb takes what, n without a name, and other values by name"),
    ],
)
def test_a_wrong_argument_is_one_sentence(args: tuple[Any, ...], keys: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        verb(*args, **keys)


def test_right_arguments_pass_and_numbers_of_numpy_become_pythons() -> None:
    images = torch.zeros(2)
    given = verb(images, np.int64(4), share=np.float32(0.5), size=[4, 5], names=["a"], more=1)
    assert given[0] is images and given[1:] == (4, "pca", 0.5, ["a"], (4, 5), None, {"more": 1})
    assert type(given[1]) is int and type(given[3]) is float
    assert verb(Path("a"), n=5.0, size=range(2))[:2] == (Path("a"), 5)


def test_a_type_that_is_there_for_type_checkers_alone_is_not_checked() -> None:
    assert verb("a", run=7)[6] == 7  # type: ignore[arg-type]


def test_a_value_of_a_type() -> None:
    assert check_value("steps", int | None, 5) == 5
    with pytest.raises(UserError, match=r"^steps=1\.5: give a whole number or none$"):
        check_value("steps", int | None, 1.5)
