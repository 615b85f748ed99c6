"""How far the states of two trainings are apart."""

from collections import defaultdict

from torch import Tensor


def assert_near(one: dict[str, Tensor], other: dict[str, Tensor], relative: float) -> None:
    """Of weights, averages, and each kind of numbers of an optimiser, as vectors; the names are "file/name". Single
    tensors may be farther apart: the gradient of a bias before a normalisation is 0 but for rounding, which Adam makes
    large."""
    assert one.keys() == other.keys()
    distances, norms = defaultdict[str, float](float), defaultdict[str, float](float)
    for key, value in one.items():
        file, name = key.split("/", 1)
        kind = f"{file}/{name.split('/')[-1]}" if file.startswith("optimizer") else file
        distances[kind] += float((value.double() - other[key].double()).square().sum())
        norms[kind] += float(value.double().square().sum())
    for kind, norm in norms.items():
        assert distances[kind] ** 0.5 <= relative * norm**0.5, kind
