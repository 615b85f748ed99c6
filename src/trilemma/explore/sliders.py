"""Codes moved by hand: the axes that vary most, and the image of any point along them.

The axes are those of `traverse`: each has the mean, and the range that the codes of real (or drawn) images have. Where
a model has styles, they are truncated and mixed as its sampler does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from trilemma.errors import UserError
from trilemma.explore.code_axes import AxisKind, MeasuredCodes, along, kinds_of, measured_codes, most_active, start_of
from trilemma.explore.codes import decode_alike
from trilemma.explore.naming import Named
from trilemma.run.run import Run, RunLike, as_run
from trilemma.types import Condition, Conditional, DrawsCodes, HasStyles, MixesStyles, ReadsCaptions, codes_need

NOISE_CALLS = (
    10  # of the network, for an image out of noise; of MNIST, 0.04 (RMSE) from that of 50, and with 8 twice as far
)


@dataclass(frozen=True)
class CodeAxis:
    """What a handle moves: a unit of a code, a direction, or a way between noises.

    low, mean, high: of the values that codes have along it; std: their deviation; start: of the code that is moved.
    """

    unit: int
    low: float
    mean: float
    high: float
    std: float
    start: float


@dataclass(frozen=True)
class Sliders:
    """A run's axes of a kind, the most active first.

    run: with the codes that they move; kinds: those that the run has; condition: of one image, which codes are decoded
    under.
    """

    run: Run
    kind: AxisKind
    kinds: Sequence[AxisKind]
    axes: tuple[CodeAxis, ...]
    measured: MeasuredCodes
    condition: Condition

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that images may be asked for; () where they depend on none."""
        model = self.run.model
        by_class = "label" in codes_need(model) or isinstance(model, DrawsCodes)
        return self.run.classes if isinstance(model, Conditional) and by_class else ()

    @property
    def reads_captions(self) -> bool:
        """Whether images may be asked for by a caption."""
        return self.kind == "noise" and isinstance(self.run.model, ReadsCaptions)

    @property
    def calls(self) -> int | None:
        """Network calls for an image, where it takes several."""
        return NOISE_CALLS if self.kind == "noise" else None

    @property
    def by_effect(self) -> bool:
        """Whether directions are those along which images change most, and not the principal components of codes."""
        return isinstance(self.run.model, DrawsCodes) and not isinstance(self.run.model, HasStyles)

    @property
    def layers(self) -> int | None:
        """Layers that take a style each, of a model that mixes them."""
        return self.run.model.n_layers if isinstance(self.run.model, MixesStyles) else None

    def image(self, values: Mapping[int, float], styles: Mapping[str, Any] | None = None) -> Tensor:
        """The image (C, H, W) of the code with these values, and of the other axes those of the start; a value outside
        of what codes have is brought back to its end.

        Args:
            styles: keys of the sampler (truncation, mix, mix_from), of a model that mixes styles.
        Raises:
            UserError: the model does not mix styles, or a value does not fit.
        """
        moved = self.measured.start.clone()
        for axis in self.axes:
            if axis.unit in values:
                moved[axis.unit] = min(max(values[axis.unit], axis.low), axis.high)
        codes, model = self.measured.codes(moved[None]), self.run.model
        if not styles:
            return decode_alike(self.run, codes, self.condition)[0]
        if not isinstance(model, MixesStyles):
            raise UserError(f"{next(iter(styles))}= is for a model with styles; {self.run.recipe.name} has none")
        keys = self.run.sampling(styles, sliders_of)
        return self.run.apply(lambda w, condition: model.from_styles(w, keys, condition), codes, self.condition)[0]


def sliders_of(
    run: RunLike,
    axes: str | None = None,
    *,
    start: Named | None = None,
    label: str | int | None = None,
    caption: str | None = None,
) -> Sliders:
    """The axes of a run.

    Args:
        axes: the kind; default: as for `traverse`.
        start: the code that is moved, named as for `interpolate`; default: the mean, of noise seed:0.
        label: the class to decode, for a conditional model; default: that of the start, or class 0.
        caption: what to draw out of noise, for a model that reads captions.
    Raises:
        UserError: the model does not encode and decode, draw codes or denoise; or it has no such axes, start, class or
            captions.
    """
    whole = as_run(run)
    run, kind = along(whole, axes, NOISE_CALLS)
    code, condition = start_of(run, kind, start, None, label, caption)
    measured = measured_codes(run, kind, None, condition, code)
    axes_of_kind = tuple(_axis(measured, unit) for unit in most_active(measured))
    return Sliders(run, kind, kinds_of(whole.model), axes_of_kind, measured, condition)


def _axis(measured: MeasuredCodes, unit: int) -> CodeAxis:
    column = measured.values[:, unit]
    low, high = float(column.amin()), float(column.amax())
    start = min(max(float(measured.start[unit]), low), high)
    return CodeAxis(unit, low, float(column.mean()), high, float(column.std(correction=0)), start)
