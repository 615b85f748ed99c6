"""Models of one number of parameters: the widths of each, all times one factor, so that it comes nearest to it."""

from typing import TYPE_CHECKING, Any

from trilemma.errors import UserError

if TYPE_CHECKING:
    from trilemma.registry import Recipe

WIDTHS = ("width", "widths", "hidden")  # settings of models that say how wide their layers are
WIDEST = 64.0  # factor, and over 1 the smallest
GRAINS = (1, 4, 16)  # of which widths are multiples, tried one after the other
MOST_TENSORS = 100_000  # of a network
HALVINGS = 24  # of the interval of the factor, in logarithms
NEAR = 1.25  # times more or fewer parameters than asked for, at most


def settings_for(name: str, shape: tuple[int, int, int], parameters: int) -> dict[str, Any]:
    """The widths of a preset, for images of a shape, with which it has nearest to so many parameters.

    Raises:
        UserError: it cannot have about as many.
    """
    from trilemma.registry import get_recipe

    recipe = get_recipe(name)
    counts: dict[tuple[int, float], int] = {}  # by grain and factor
    for grain in GRAINS:
        counts |= _counts(recipe, shape, parameters, grain)
        if not counts:
            continue
        grain, factor = min(counts, key=lambda key: abs(counts[key] - parameters))
        if parameters / NEAR <= counts[grain, factor] <= parameters * NEAR:
            return _scaled(recipe, factor, grain)
    if not counts:
        raise UserError(f"parameters={parameters:,}: {name} makes no network of these images; leave it out")
    few, many = (f"{number:,}" for number in (min(counts.values()), max(counts.values())))
    what = f"{few}, whatever its width" if few == many else f"{few} to {many}, and none near that number"
    raise UserError(f"parameters={parameters:,}: {name} can have {what}; leave it out, or ask for another number")


def _counts(recipe: "Recipe", shape: tuple[int, int, int], parameters: int, grain: int) -> dict[tuple[int, float], int]:
    """Parameters by grain and factor, of the factors between which the one in question lies; a network that the
    settings do not make has none."""
    low, high = 1 / WIDEST, WIDEST
    counts = {(grain, factor): _count(recipe, shape, factor, grain) for factor in (low, high, 1.0)}
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        counts[grain, middle] = _count(recipe, shape, middle, grain)
        low, high = (middle, high) if counts[grain, middle] < parameters else (low, middle)
    return {key: number for key, number in counts.items() if number}


def _count(recipe: "Recipe", shape: tuple[int, int, int], factor: float, grain: int) -> int:
    from trilemma.registry import count_parameters, outline

    try:
        config = recipe.config.with_(**_scaled(recipe, factor, grain), shape=shape)
        return count_parameters(outline(recipe, config, most=MOST_TENSORS))
    except UserError:  # too narrow, or heads do not divide it
        return 0


def _scaled(recipe: "Recipe", factor: float, grain: int) -> dict[str, Any]:
    """The widths times a factor, multiples of the grain. A width of another backbone of the model, which has no effect,
    is scaled with the rest."""

    def scale(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(scale, value))
        return grain * max(1, round(value * factor / grain))

    keys = [key for key in WIDTHS if key in type(recipe.config).model_fields]
    return {key: scale(value) for key in keys if (value := getattr(recipe.config, key))}
