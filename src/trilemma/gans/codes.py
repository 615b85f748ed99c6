"""The codes of a GAN: its latents z, or the styles w that it makes of them, where it has any."""

from typing import Any

import torch
from torch import Tensor

from trilemma import rng as random
from trilemma.errors import check_codes, check_images
from trilemma.gans.inversion import RATE, nearest, search
from trilemma.modes import in_eval_mode, own_modes, without_gradients
from trilemma.types import UNCONDITIONAL, Condition, HasStyles, Model, check_condition, default_label, no_label

STEPS = 200  # of a search
STARTS = 256  # codes that are drawn, of which the search of an image begins at the nearest


class CodesModel(Model):
    """A model that draws images from latents z, with codes that are searched for."""

    def from_z(self, z: Tensor, label: Tensor | None) -> Tensor:
        """Latents (B, latent), of classes (B,) for a model that takes them -> images (B, C, H, W) in [0, 1]."""
        raise NotImplementedError

    @property
    def code_length(self) -> int:
        """Numbers in w, or in z."""
        return self.mean_w().numel() if isinstance(self, HasStyles) else self.config.latent

    @property
    def codes_need(self) -> tuple[str, ...] | None:
        """Styles hold the class."""
        return () if isinstance(self, HasStyles) else None

    @own_modes()
    def invert(
        self, image: Tensor, condition: Condition = UNCONDITIONAL, *, steps: int | None = None, seed: int = 0
    ) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the code of the nearest image that a search finds, (B, Z); see inversion.py.

        Args:
            steps: calls of the generator for each image, each with its gradient, beside those for the starts.
            seed: of the codes to start from.
        """
        check_images(image, self.config.shape)
        label = self._label_of(condition, len(image))
        with in_eval_mode(self), without_gradients(self):
            starts, rate = self._starts(image, label, seed)
            return search(lambda z: self._image(z, label), image, starts, rate, steps or STEPS)

    @torch.no_grad()
    def generate(self, z: Tensor, condition: Condition = UNCONDITIONAL, *, steps: int | None = None) -> Tensor:
        """Codes (B, Z) -> images (B, C, H, W) in [0, 1], by one call, whatever `steps` is."""
        check_codes(z, self.code_length)
        label = self._label_of(condition, len(z))
        with in_eval_mode(self):
            return self._image(z, label)

    @torch.no_grad()
    def draw_codes(self, n: int, *, seed: int, condition: Condition = UNCONDITIONAL) -> Tensor:
        """The codes that images 0 ... n - 1 of a seed are drawn from, (n, Z); styles of the classes asked for, or of
        all in turn."""
        ids = torch.arange(n)
        like = next(self.parameters())
        z = random.normal(ids, (self.config.latent,), seed, "latent").to(like)
        if not isinstance(self, HasStyles):
            return z
        label = self.label_for(ids, condition)
        with in_eval_mode(self):
            return self.to_w(z, None if label is None else label.to(like.device))

    def label_for(self, ids: Tensor, condition: Condition) -> Tensor | None:
        """Labels of images by their numbers, where the model has classes: those asked for, or one after another."""
        if condition.label is None and self.n_classes:
            return default_label(ids, self.n_classes)
        return condition.label

    def in_z(self) -> "CodesModel":
        """This model with z for its codes."""
        return _InZ(self) if isinstance(self, HasStyles) else self

    @torch.no_grad()
    def _starts(self, image: Tensor, label: Tensor | None, seed: int) -> tuple[Tensor, float]:
        """The drawn code whose image is nearest to each image, (B, Z), and the rate of the first steps."""
        codes = self.draw_codes(STARTS, seed=seed).to(image)
        rate = RATE * codes.std(0).mean().item()
        if isinstance(self, HasStyles):
            codes = torch.cat([self.mean_w().to(image)[None], codes])
        if label is None:
            return codes[nearest(self._image(codes, None), image)], rate
        starts = codes.new_empty(len(image), codes.shape[1])
        for k in label.unique():
            rows = label == k
            starts[rows] = codes[nearest(self._image(codes, k.expand(len(codes))), image[rows])]
        return starts, rate

    def _image(self, code: Tensor, label: Tensor | None) -> Tensor:
        return self.from_w(code) if isinstance(self, HasStyles) else self.from_z(code, label)

    def _label_of(self, condition: Condition, n: int) -> Tensor | None:
        """The class of each of n images or codes, where the codes need it.

        Raises:
            UserError: it is needed and not given, or not taken.
        """
        check_condition(condition, n, self.n_classes)
        if isinstance(self, HasStyles) or not self.n_classes:
            return None
        if condition.label is None:
            raise no_label("give labels")
        return condition.label.to(next(self.parameters()).device)


class _InZ(CodesModel):
    """A model with styles, without them."""

    def __init__(self, model: CodesModel) -> None:
        super().__init__()
        self.model, self.config, self.n_classes = model, model.config, model.n_classes
        self.phases: Any = ()
        self.train(model.training)

    def from_z(self, z: Tensor, label: Tensor | None) -> Tensor:
        assert isinstance(self.model, HasStyles)
        return self.model.from_w(self.model.to_w(z, label))
