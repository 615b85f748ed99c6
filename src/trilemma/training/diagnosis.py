"""Which rules of monitor.py are asked when in a training, and the warnings that follow."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from trilemma.healthy import KEPT, usual
from trilemma.metrics.likelihood import active_units
from trilemma.run.state import Checkpoint
from trilemma.training.adversarial import (
    EARLIER,
    LONG,
    Comparison,
    critic_overfit,
    critic_too_strong,
    overfit_ratio,
)
from trilemma.training.monitor import (
    SampleMonitor,
    Warnings,
    all_the_same,
    dead_codes,
    few_distinct_codes,
    no_better_than_linear,
    no_better_than_mean,
    posterior_collapse,
    small,
)
from trilemma.training.samples import N_SAMPLES
from trilemma.training.validation import Validation
from trilemma.types import config_of, count_players

ACTIVE_UNITS, CRITIC_OVERFIT = "valid_active_units", "valid_critic_overfit"


class Diagnosis:
    """Warns of what is wrong with a model in training. Its state are the warnings so far.

    Args:
        warn: takes a warning that is new; step: gives the number of the next step.
    """

    def __init__(self, validation: Validation, warn: Callable[[str], None], step: Callable[[], int]) -> None:
        self.validation, self.warn, self.step = validation, warn, step
        self.in_use, self.config = validation.in_use, config_of(validation.model)
        self.n_players = count_players(validation.model.phases)
        self.warnings, self.sample_monitor = Warnings(), SampleMonitor()
        self.units = 0  # of the code that `active_units` saw
        self.earlier: dict[str, list[float]] = {name: [] for name in EARLIER}  # what later values are compared with
        self.overfits = 0  # validations in a row at which the critic was overfit

    def state(self) -> Checkpoint:
        """What was warned of, and what later samples and values are compared with."""
        warnings = {"said": self.warnings.quiet, "current": self.warnings.current, "since": self.warnings.since}
        values = {name: dict(entries) for name, entries in warnings.items()}
        earlier = {name: list(entries) for name, entries in self.earlier.items()}
        distances = list(self.sample_monitor.distances)
        return Checkpoint({**values, "distances": distances, "earlier": earlier, "overfits": self.overfits})

    def load(self, state: Checkpoint) -> None:
        """Take them back."""
        values, warnings = state.values, self.warnings
        warnings.quiet, warnings.current = dict(values["said"]), dict(values["current"])
        warnings.since = dict(values["since"])
        self.sample_monitor.distances = list(values["distances"])
        self.earlier = {name: list(values["earlier"].get(name, [])) for name in EARLIER}
        self.overfits = values["overfits"]

    def active_units(self) -> dict[str, int]:
        """How many units of a variational code are in use, by held-out images; {} for a model that has none."""
        codes = self.validation.codes()
        if codes is None:
            return {}
        self.units = codes.shape[1]
        return {ACTIVE_UNITS: active_units(codes)}

    def critic_overfit(self) -> dict[str, float]:
        """How far a critic takes held-out images for generated ones; {} where that is not known."""
        ratio = overfit_ratio(self.in_use)
        return {} if ratio is None else {CRITIC_OVERFIT: ratio}

    def check_row(self, row: dict[str, Any], *, settled: bool) -> None:
        """Check a row of the log; codes from the first validation on.

        Args:
            settled: whether the training is far enough for more than that.
        """
        validated = any(name.startswith("valid_") for name in row)
        self._check_critic(row, settled)
        if settled and validated:
            self._check_reconstructions(row)
        if settled or validated:
            self._report("codes", dead_codes(row))
        self._check_posterior(row)

    def check_samples(self, images: Tensor, *, settled: bool = True, last: bool = False) -> None:
        """Check the samples of players against each other; of the last picture, those of every model.

        Args:
            settled: whether the training is far enough to warn.
        """
        if self.n_players < 2 and not last:
            return
        real = next(self.in_use.training_images(N_SAMPLES)).image
        fake = images[: len(real)]
        if self.n_players > 1:
            faults = self.sample_monitor.check(real=real, fake=fake)
            for rule in ("collapse", "divergence"):
                self._report(rule, faults.get(rule), settled=settled)
        if last and len(real) > 1:
            self._report("one image", all_the_same(real=small(real), fake=small(fake)))

    def check_final(self) -> None:
        """Check the weights that the training ends with."""
        values = self.validation.values = self.validation.values | self.active_units()
        self._check_reconstructions(values)
        self._check_posterior(values)
        self._report("distinct codes", few_distinct_codes(values.get("train_distinct_codes")))

    def _check_critic(self, row: dict[str, Any], settled: bool) -> None:
        self._report("critic", critic_too_strong(row), settled=settled)
        for name, rule in EARLIER.items():
            if name in row:
                self._compare(name, rule, row, settled)
        if CRITIC_OVERFIT in row:
            text = critic_overfit(row[CRITIC_OVERFIT], self.config)
            self.overfits = 0 if text is None else self.overfits + 1
            self._report("overfit", text, settled=settled and self.overfits >= LONG)

    def _compare(self, name: str, rule: Comparison, row: dict[str, Any], settled: bool) -> None:
        """Ask a rule about a value. One that stands out is no part of what is usual, but a rise at the beginning is."""
        value, before = row[name], usual(self.earlier[name])
        text = None if before is None else rule(value, before, row)
        self._report(name, text, settled=settled)
        if before is None or text is None or (value > before and not settled):
            self.earlier[name] = [*self.earlier[name][1 - KEPT :], value]

    def _check_posterior(self, values: dict[str, Any]) -> None:
        if ACTIVE_UNITS in values:
            self._report("posterior", posterior_collapse(values[ACTIVE_UNITS], self.units, self.config))

    def _check_reconstructions(self, values: dict[str, Any]) -> None:
        text, baseline = None, self.validation.baseline
        if baseline is not None:
            rmse = values["valid_rmse"] if "valid_rmse" in values else self.validation.reconstruction_rmse()
            text = no_better_than_mean(rmse, baseline, self.config)
        self._report("mean image", text)
        self._report("linear estimate", no_better_than_linear(values))

    def _report(self, rule: str, text: str | None, *, settled: bool = True) -> None:
        """Pass a warning on if it is new, and it is time to warn."""
        if (new := self.warnings.new(rule, text, self.step(), settled=settled)) is not None:
            self.warn(new)
