"""The real images that generated ones are measured against: which split, how many of it, and which ones."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from trilemma import rng
from trilemma.data import Data
from trilemma.data.selection import ALL, part_named
from trilemma.data.split import held_out_split
from trilemma.errors import UserError, unknown
from trilemma.metrics import neighbours

N_DEFAULT = 2500  # images on either side where the user does not say: minutes on a CPU at most
LEAST = neighbours.LEAST  # images on either side of which every score of quality but the Frechet distance is given
FEWEST = 2  # of which any is: a variance takes two
ROLES = {  # what the images of a split were to a model that was trained on the same data
    "test": "never seen in training",
    "valid": "not trained on, but used to select the best checkpoint, where a model keeps its best",
    "train": "trained on",
    ALL: "every image, among them those trained on",
}
UNKNOWN_ROLE = "whether the models saw them in training is not known"  # where none is known to be trained on the data
SEEN = (
    "the real images were seen in training (the {name} split has {n}), so a model that copies its training images "
    "looks good"
)
AMONG = "the real images include the training images, so a model that copies them looks good"
FEW = (
    "with {n} real and {n} generated images precision and recall are rough: both are inflated, and nothing is decided "
    "by them. Use more images"
)


class Caveat(NamedTuple):
    """A text with names in braces, which a report may say in another language, and their values; as str English."""

    form: str
    values: Mapping[str, object]

    def __str__(self) -> str:
        return self.form.format(**self.values)


def choose_reals(
    data: Data,
    n: int | None = None,
    *,
    split: str | None = None,
    n_fake: int | None = None,
    own: bool = True,
    least: int = LEAST,
) -> tuple[str, int]:
    """Which split of the data is measured against, and how many images of it.

    Where no split is asked for: the test split, or without one all images; of data that a run was trained on (`own`)
    the test split, else the validation split, and the training split only where neither has LEAST images.

    Args:
        n: default: all, at most N_DEFAULT; n_fake: how many generated images exist, None for any number.
        least: images that are needed.
    Raises:
        UserError: if there is no such split, or it does not have so many images.
    """
    split = _default_split(data, own) if split is None else split
    if split not in (*data.splits, ALL):
        raise unknown("split", split, [*data.splits, ALL])
    n_real = len(part_named(data, split))
    most = n_real if n_fake is None else min(n_real, n_fake)
    n = min(most, N_DEFAULT) if n is None else n
    if not least <= n <= most:
        there = f"{'' if split == ALL else f'the {split} split of '}{data.name} has {n_real} images"
        there += "" if n_fake is None else f", and there are {n_fake} generated ones"
        fewer = ", or measure what fewer allow with `trilemma evaluate`" if least > FEWEST else ""
        needed = f"a measurement needs {least} on either side; give more images{fewer}"
        allowed = f"choose n from {least} to {most}, or give more images" if most >= least else needed
        raise UserError(f"n={n}: {there}; {allowed}")
    return split, n


def _default_split(data: Data, own: bool) -> str:
    if not own and "test" not in data.splits:
        return ALL
    name = held_out_split(data.splits, LEAST)
    return name if len(data.splits[name]) >= LEAST else "train"


def role_of(split: str, *, own: bool) -> str:
    """What the images of a split were to the models; own: whether there is one that was trained on this data."""
    return ROLES[split] if own else UNKNOWN_ROLE


def caveats(data: Data, split: str, n: int, *, own: bool) -> list[Caveat]:
    """What limits every figure measured by n images of that split; own: whether the model was trained on this data."""
    texts = []
    if own and split == "train":
        name, held_out = data.held_out
        texts.append(Caveat(SEEN, {"name": name, "n": len(held_out)}))
    if own and split == ALL:
        texts.append(Caveat(AMONG, {}))
    if LEAST <= n < neighbours.ROUGH:
        texts.append(Caveat(FEW, {"n": n}))
    return texts


def real_notes(data: Data) -> list[str]:
    """How the real images were brought to one size, and which could not be read, in words."""
    return [f"real images: {note}" for note in data.reading_notes]


def real_images(data: Data, split: str, n: int, seed: int) -> Tensor:
    """The n images that are measured by, uint8 (n, C, H, W), in the order in which they lie."""
    part = part_named(data, split)
    return part.take(choice(len(part), n, seed)).images


def choice(total: int, n: int, seed: int) -> Tensor:
    """Which n of all images are taken, ascending; int64 (n,)."""
    return order(total, seed)[:n].sort().values


def order(total: int, seed: int) -> Tensor:
    """The order in which images are taken, int64 (total,)."""
    return rng.permutation(total, seed, "evaluate")
