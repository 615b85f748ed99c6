"""What is looked at while a model trains: figures on held-out images, the best weights so far, sample pictures.

All of it is done with the weights that would be used (averaged where there are any), and none of it changes what the
training does next, apart from the learning rate that follows the validation figure.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trilemma import rng
from trilemma.data import Data, Loader, batches
from trilemma.errors import UserError
from trilemma.memory import copies, halving
from trilemma.metrics.likelihood import active_units, has_posterior
from trilemma.pictures import grid, save_png
from trilemma.training.config import TrainConfig
from trilemma.training.ema import EMA
from trilemma.training.monitor import Rivalry, Said, critic_too_strong, dead_codes, posterior_collapse
from trilemma.training.optim import Plateau
from trilemma.training.pictures import made_by_training
from trilemma.types import Batch, Conditional, Finishes, Samples, Validates, players

FINISH_IMAGES = 10_000  # training images shown to a model's last step
VALID_BATCH = 500
N_SAMPLES = 64  # in a sample picture
ACTIVE_UNITS = "valid_active_units"


class Observer:
    """Follows a model in training. `figures` are the last validation's, `best` those of `best_weights`."""

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        config: TrainConfig,
        path: Path,
        ema: EMA | None,
        warn: Callable[[str], None],
        command: str = "",
    ) -> None:
        self.model, self.data, self.config, self.path = model, data, config, path
        self.ema, self.warn, self.command = ema, warn, command
        self.players = players(model.phases)  # type: ignore[arg-type]
        self.device = next(model.parameters()).device
        self.plateau, self.said, self.rivalry = Plateau(), Said(), Rivalry()
        self.figures: dict[str, float] = {}
        self.best: dict[str, Any] = {}
        self.best_weights: dict[str, Tensor] = {}
        self.units = 0  # of the code that `active_units` saw

    def validate(self, images: int) -> dict[str, float]:
        """Figures on the validation split after so many images; {} for a model that has none."""
        if not isinstance(self.model, Validates):
            return {}
        with self.weights_in_use():
            self.figures = halving(self._validate, VALID_BATCH, self.warn)
            self._keep_best(images)
        return self.figures

    def active_units(self) -> dict[str, int]:
        """How many units of a variational code are in use, by held-out images; {} for a model that has none."""
        if not has_posterior(self.model) or len(self.data.valid) < 2:
            return {}
        with self.weights_in_use():
            codes = halving(self._posterior_means, VALID_BATCH)
        self.units = codes.shape[1]
        return {ACTIVE_UNITS: active_units(codes)}

    @torch.no_grad()
    def _posterior_means(self, size: int) -> Tensor:
        """Codes of the first VALID_BATCH held-out images, (B, Z), `size` at a time."""
        parts = islice(batches(self.data.valid, size, self.device), -(-VALID_BATCH // size))
        conditional = isinstance(self.model, Conditional)
        return torch.cat([self.model.encode(b.image, b.label if conditional else None) for b in parts])  # type: ignore

    def listen(self, row: dict[str, Any], *, settled: bool) -> None:
        """Warn of what a row of the log says; of codes from the first validation on."""
        validated = any(name.startswith("valid_") for name in row)
        if settled:
            self._tell("critic", critic_too_strong(row))
        if settled or validated:
            self._tell("codes", dead_codes(row))
        if ACTIVE_UNITS in row:
            self._tell("posterior", posterior_collapse(row[ACTIVE_UNITS], self.units, self.model.config))  # type: ignore[arg-type]

    def snapshot(self, name: str, *, settled: bool) -> None:
        """A sample picture on the way, which leaves the training as it was."""
        held = copies(dict(self.model.named_buffers()))
        with self.weights_in_use(), torch.no_grad():
            try:
                self.finish(FINISH_IMAGES // 5)
                self.draw_samples(name, settled=settled)
            finally:
                for key, buffer in self.model.named_buffers():
                    buffer.copy_(held[key])

    def draw_samples(self, name: str, *, settled: bool = True) -> None:
        """The same latents as every time, as samples/NAME.png; a failure is a warning, never the end."""
        if not isinstance(self.model, Samples):
            return
        images = halving(self._draw, N_SAMPLES, self.warn)
        try:
            (self.path / "samples").mkdir(exist_ok=True)
            made = made_by_training(self.command, f"samples {name}")
            save_png(grid(images.cpu()), self.path / "samples" / f"{name}.png", made, replace=True)
        except (OSError, UserError) as error:
            self.warn(f"the sample picture {name}.png was not written ({error}); training goes on")
        if self.players > 1:  # players against each other
            real = next(self._training_images(min(N_SAMPLES, len(self.data.train)))).image
            for rule, text in self.rivalry.look(images[: len(real)], real).items():
                self._tell(rule, text if settled else None)

    def finish(self, n: int = FINISH_IMAGES) -> dict[str, float]:
        """Let the model take its last step, on the first `n` training images; figures of it are named train_..."""
        if not isinstance(self.model, Finishes):
            return {}
        shown = self._training_images(min(n, len(self.data.train)))
        return {f"train_{name}": value for name, value in self.model.finish(shown, seed=self.config.seed).items()}

    def take_final_weights(self) -> None:
        """The model ends with its best weights, or the averaged, or the last ones; then its last step."""
        if self.best_weights:
            self.model.load_state_dict(self.best_weights)
            self.figures = {name: value for name, value in self.best.items() if name != "images"}
        elif self.ema is not None:
            self.ema.swap()
        self.model.eval()
        self.ema = None
        with torch.no_grad():
            self.figures = self.figures | self.finish()

    @contextmanager
    def weights_in_use(self) -> Iterator[None]:
        """Inside, the model is in eval mode and has its averaged weights where there are any."""
        training = self.model.training
        self.model.eval()
        try:
            with self.ema.applied() if self.ema is not None else nullcontext():
                yield
        finally:
            self.model.train(training)

    @torch.no_grad()
    def _validate(self, size: int) -> dict[str, float]:
        """Means over the validation split, `size` images at a time; in float32."""
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(batches(self.data.valid, size, self.device)):
            generator = rng.generator(self.config.seed, "valid", number, device=self.device)
            for name, values in self.model.validation(batch, generator).items():  # type: ignore[operator]
                sums[name] = sums.get(name, torch.zeros((), device=self.device)) + values.double().sum().float()
        figures = {f"valid_{name}": float(value) / len(self.data.valid) for name, value in sums.items()}
        return figures | {n.replace("mse", "rmse"): v**0.5 for n, v in figures.items() if n.endswith("mse")}

    def _keep_best(self, images: int) -> None:
        name = self.config.monitor
        if name is None:
            return
        if name not in self.figures:
            raise UserError(f'monitor="{name}" is no figure of this model; it has {", ".join(self.figures)}')
        figure = self.figures[name]
        self.plateau.see(figure)
        if not self.best or figure < self.best[name]:
            self.best = {**self.figures, "images": images}
            self.best_weights = copies(self.model.state_dict())

    def _draw(self, size: int) -> Tensor:
        """The N_SAMPLES images of the sample pictures, `size` at a time."""
        seed, starts = self.config.seed, range(0, N_SAMPLES, size)
        return torch.cat([self.model.sample(size, seed=seed, first=first) for first in starts])  # type: ignore

    def _training_images(self, n: int) -> Iterator[Batch]:
        """The first `n` images of the training order, VALID_BATCH at a time, as they are; only those go to a GPU."""
        plain = Loader(self.data.train, batch=VALID_BATCH, seed=self.config.seed)
        for position in range(0, n, VALID_BATCH):
            batch = plain.batch_at(position, min(VALID_BATCH, n - position))
            label = None if batch.label is None else batch.label.to(self.device)
            yield replace(batch, image=batch.image.to(self.device), label=label)

    def _tell(self, rule: str, text: str | None) -> None:
        """Pass a warning on if it is new."""
        if (news := self.said.news(rule, text)) is not None:
            self.warn(news)
