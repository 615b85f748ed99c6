"""Which rules of monitor.py are asked when in a training, and the warnings that follow."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from trilemma.metrics.likelihood import active_units
from trilemma.run.state import Checkpoint
from trilemma.training.monitor import (
    SampleMonitor,
    Warnings,
    all_the_same,
    critic_too_strong,
    dead_codes,
    few_distinct_codes,
    no_better_than_mean,
    posterior_collapse,
    small,
)
from trilemma.training.samples import N_SAMPLES
from trilemma.training.validation import Validation
from trilemma.types import config_of, count_players

ACTIVE_UNITS = "valid_active_units"


class Diagnosis:
    """Warns of what is wrong with a model in training. Its state are the warnings so far.

    Args:
        warn: takes a warning that is new.
    """

    def __init__(self, validation: Validation, warn: Callable[[str], None]) -> None:
        self.validation, self.warn = validation, warn
        self.in_use, self.config = validation.in_use, config_of(validation.model)
        self.n_players = count_players(validation.model.phases)
        self.warnings, self.sample_monitor = Warnings(), SampleMonitor()
        self.units = 0  # of the code that `active_units` saw

    def state(self) -> Checkpoint:
        """What was warned of, and what later samples are compared with."""
        quiet, current = dict(self.warnings.quiet), dict(self.warnings.current)
        return Checkpoint({"said": quiet, "current": current, "distances": list(self.sample_monitor.distances)})

    def load(self, state: Checkpoint) -> None:
        """Take them back."""
        values = state.values
        self.warnings.quiet, self.warnings.current = dict(values["said"]), dict(values["current"])
        self.sample_monitor.distances = list(values["distances"])

    def active_units(self) -> dict[str, int]:
        """How many units of a variational code are in use, by held-out images; {} for a model that has none."""
        codes = self.validation.codes()
        if codes is None:
            return {}
        self.units = codes.shape[1]
        return {ACTIVE_UNITS: active_units(codes)}

    def check_row(self, row: dict[str, Any], *, settled: bool) -> None:
        """Check a row of the log; codes from the first validation on.

        Args:
            settled: whether the training is far enough for more than that.
        """
        validated = any(name.startswith("valid_") for name in row)
        if settled:
            self._report("critic", critic_too_strong(row))
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
            faults = self.sample_monitor.check(fake, real)
            for rule in ("collapse", "divergence"):
                self._report(rule, faults.get(rule) if settled else None)
        if last and len(real) > 1:
            self._report("one image", all_the_same(real=small(real), fake=small(fake)))

    def check_final(self) -> None:
        """Check the weights that the training ends with."""
        values = self.validation.values = self.validation.values | self.active_units()
        self._check_reconstructions(values)
        self._check_posterior(values)
        self._report("distinct codes", few_distinct_codes(values.get("train_distinct_codes")))

    def _check_posterior(self, values: dict[str, Any]) -> None:
        if ACTIVE_UNITS in values:
            self._report("posterior", posterior_collapse(values[ACTIVE_UNITS], self.units, self.config))

    def _check_reconstructions(self, values: dict[str, Any]) -> None:
        text, baseline = None, self.validation.baseline
        if baseline is not None:
            rmse = values["valid_rmse"] if "valid_rmse" in values else self.validation.reconstruction_rmse()
            text = no_better_than_mean(rmse, baseline, self.config)
        self._report("mean image", text)

    def _report(self, rule: str, text: str | None) -> None:
        """Pass a warning on if it is new."""
        if (new := self.warnings.new(rule, text)) is not None:
            self.warn(new)
