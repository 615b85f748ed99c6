"""What a diffusion model is asked for, and what its network is given of that.

class     a vector that is added to that of the noise level
caption   such a vector, and tokens that the network looks at     (nets/text.py)
image     channels beside those of x                              (planes.py)
geometry  a vector, of images that were moved in training         (augmentation.py)

In training a share of the images loses its class or caption, which guidance leads away from (Ho & Salimans 2022). Where
nothing is asked for, image k has class k, or the k-th of the captions or small images that are kept with the model.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from trilemma.diffusion.augmentation import NUMBERS, augment
from trilemma.diffusion.config import PixelDiffusionConfig
from trilemma.diffusion.path import CodesModel
from trilemma.diffusion.planes import draw_masks, enlarge, mask_planes, shrink
from trilemma.errors import UserError
from trilemma.nets.network_input import NO_INPUT, NetworkInput
from trilemma.nets.text import TextEncoder
from trilemma.pictures.levels import hide
from trilemma.tokeniser import LENGTH, PADDING, Tokeniser, words_of
from trilemma.types import Batch, Condition, default_label

EXAMPLES = 64  # small images kept with a model that enlarges


class ConditionedModel(CodesModel):
    """The part of a diffusion model that reads conditions; `condition_on` builds it."""

    config: PixelDiffusionConfig
    image_examples: Tensor

    def condition_on(self, width: int) -> None:
        """Make what reads conditions, for a network whose vectors have `width` numbers."""
        config = self.config
        self.n_classes = (config.n_classes or 0) if config.classes else 0
        if self.n_classes:
            self.embedding = nn.Embedding(self.n_classes + 1, width)  # the last is the null label
        if config.captions:
            self.takes += ("caption",)
            self.tokeniser = Tokeniser(config.words)
            self.text = TextEncoder(self.tokeniser.size, config.text_width, config.text_depth)
            self.text_vector = nn.Linear(config.text_width, width)
        if config.augment_p:
            self.geometry_vector = nn.Linear(NUMBERS, width, bias=False)  # 0 of an image as it is
        if config.inpaint:
            self.takes += ("image", "mask")
        if config.upscale:
            self.takes += ("image",)
            channels, *size = config.shape
            shape = (EXAMPLES, channels, *(side // config.upscale for side in size))
            self.register_buffer("image_examples", torch.zeros(shape))

    @property
    def null_condition(self) -> bool:
        """Whether some training images lost their class or caption."""
        return self.config.label_dropout > 0

    def check_asked(self, condition: Condition) -> None:
        """Refuse to do without the class or caption that every training image had.

        Raises:
            UserError: see above.
        """
        missing = "label" if self.n_classes and condition.label is None else None
        if "caption" in self.takes and condition.caption is None:
            missing = "caption"
        if missing and not self.null_condition:
            raise self.no_null(missing)

    def check_captions(self, condition: Condition) -> None:
        """Refuse an empty caption of a model that has learned from none.

        Raises:
            UserError: see above.
        """
        if not self.null_condition and not all(map(words_of, condition.caption or ())):
            raise self.no_null("caption")

    def no_null(self, missing: str) -> UserError:
        """The error for a model that would have to do without a label or caption."""
        what = "class" if missing == "label" else missing
        return UserError(
            f"this model was trained with label_dropout=0, so it knows no image without a {what}; add {missing}=, or "
            "train it with label_dropout=0.1"
        )

    @property
    def factor(self) -> int:
        """How many times larger it makes an image."""
        return self.config.upscale or 1

    @property
    def n_planes(self) -> int:
        """Channels that the network is given beside those of x."""
        channels = self.x_shape[0]
        return channels if self.config.upscale else 1 + channels if self.config.inpaint else 0

    def place_mask(self, mask: Tensor) -> Tensor:
        """A mask of pixels (B, 1, H, W) as one of the places of x."""
        return mask

    def unknown_words(self, caption: str) -> list[str]:
        """Words of a caption that have no token."""
        return self.tokeniser.unknown(caption)

    def captions_cut(self, captions: Iterable[str]) -> int:
        """How many captions are longer than the model reads."""
        return sum(len(self.tokeniser.encode(caption)) > LENGTH for caption in captions)

    def take_examples(self, batches: Iterable[Batch], seed: int) -> dict[str, float]:
        """Keep some small images, to draw where none is given."""
        small = shrink(next(iter(batches)).image, self.factor)
        self.image_examples.copy_(small[torch.arange(EXAMPLES) % len(small)])
        return {}

    def by_default(self, condition: Condition, ids: Tensor, n_classes: int) -> Condition:
        """The condition, or where nothing is asked for a class, caption or small image for each number."""
        if condition.label is None and n_classes:
            condition = replace(condition, label=default_label(ids, n_classes))
        if condition.caption is None and self.config.examples:
            examples = self.config.examples
            condition = replace(condition, caption=[examples[k % len(examples)] for k in ids.tolist()])
        if condition.image is None and self.config.upscale:
            condition = replace(condition, image=self.image_examples[ids % EXAMPLES])
        return condition

    def of_images(self, condition: Condition, image: Tensor) -> Condition:
        """What is asked of these images themselves: of a model that enlarges, they are the ones that it drew."""
        if condition.image is None and self.config.upscale:
            return replace(condition, image=shrink(image, self.factor))
        return condition

    def drop_condition(self, condition: Condition, rng: torch.Generator, share: float) -> Condition:
        """A batch's condition, of which each image loses its class or caption with probability `share`."""
        label = condition.label if self.n_classes else None
        caption = condition.caption if "caption" in self.takes else None
        if share == 0 or (label is None and caption is None):
            return condition
        n = len(label) if label is not None else len(caption or ())
        draws = torch.rand(n, generator=rng, dtype=torch.float32, device=rng.device)
        if label is not None:
            return replace(condition, label=torch.where(draws.to(label.device) < share, self.n_classes, label))
        assert caption is not None
        lost = (draws < share).tolist()
        return replace(condition, caption=["" if gone else text for gone, text in zip(lost, caption, strict=True)])

    def spell(self, n: int, rng: torch.Generator, share: float) -> Tensor | None:
        """Which words of n captions are spelled in bytes: each with probability `share`, bool (n, LENGTH)."""
        if share == 0:
            return None
        return torch.rand(n, LENGTH, generator=rng, dtype=torch.float32, device=rng.device) < share

    def augment(self, batch: Batch, rng: torch.Generator) -> tuple[Batch, Tensor | None]:
        """A batch whose images were moved, and the numbers (B, NUMBERS) that say how; None of a model without."""
        if not self.config.augment_p:
            return batch, None
        image, numbers = augment(batch.image, self.config.augment_p, rng)
        return replace(batch, image=image), numbers

    def embed(
        self, condition: Condition, n: int, geometry: Tensor | None = None, spelled: Tensor | None = None
    ) -> NetworkInput:
        """What the network is given of a condition of n images; a null label, or no caption, where there is none.

        Args:
            geometry: of images that were moved, the numbers (n, NUMBERS) that say how; spelled: see `spell`.
        """
        inputs = NO_INPUT
        if self.n_classes:
            null = torch.full((n,), self.n_classes, device=self._device)
            label = null if condition.label is None else condition.label.to(self._device)
            inputs = NetworkInput(self.embedding(label))
        elif "caption" in self.takes:
            inputs = self._read([""] * n if condition.caption is None else condition.caption, spelled)
        if geometry is not None:
            vector = self.geometry_vector(geometry)
            inputs = inputs._replace(vector=vector if inputs.vector is None else inputs.vector + vector)
        return inputs._replace(planes=self._planes(condition, n)) if self.n_planes else inputs

    def _read(self, captions: Sequence[str], spelled: Tensor | None) -> NetworkInput:
        """What captions become; an empty one is none."""
        rows = self.tokeniser.pad(captions, None if spelled is None else spelled.tolist())
        tokens = torch.tensor(rows, device=self._device)
        vectors, keep, vector = self.text(tokens, (tokens == PADDING).all(1))
        return NetworkInput(self.text_vector(vector), vectors, keep)

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def _planes(self, condition: Condition, n: int) -> Tensor:
        """A small image enlarged, or a mask and what is outside it; without one nothing is known."""
        image, mask = condition.image, condition.mask
        if self.config.upscale:
            if image is None:
                raise UserError(
                    "this model draws an image from noise and a smaller image; give that, as trilemma upscale does"
                )
            channels, *size = self.config.shape
            small = channels, *(side // self.factor for side in size)
            if tuple(image.shape[1:]) != small:
                raise UserError(f"the smaller images are {tuple(image.shape[1:])}; this model takes {small}")
            return 2 * enlarge(image.to(self._device), self.factor) - 1
        channels, *size = self.x_shape
        if image is None and mask is None:
            return mask_planes(torch.zeros(n, channels, *size), torch.ones(n, 1, *size)).to(self._device)
        if image is None or mask is None:
            given, other = ("a mask", "image") if image is None else ("an image", "mask")
            raise UserError(f"this model draws under a mask: {given} was given and no {other}; give both, or neither")
        self._check_masked(image, mask)
        return mask_planes(self.to_x(hide(image, mask).to(self._device)), self.place_mask(mask.to(self._device)))

    def _check_masked(self, image: Tensor, mask: Tensor) -> None:
        """Raises UserError for an image or a mask of another shape than the model's."""
        taken = self.config.shape, (1, *self.config.shape[1:])
        shapes = tuple(image.shape[1:]), tuple(mask.shape[1:])
        if shapes != taken:
            raise UserError(
                f"the image is {shapes[0]} and its mask {shapes[1]} (channels, height, width); this model takes "
                f"{taken[0]} and {taken[1]}"
            )

    def training_condition(self, batch: Batch, rng: torch.Generator, label_dropout: float) -> Condition:
        """What is asked for in training: the batch's classes or captions, some of them lost, and what its images are
        shown of themselves."""
        condition = self.drop_condition(batch.condition, rng, label_dropout)
        if self.config.upscale:
            return replace(condition, image=shrink(batch.image, self.factor))
        if self.config.inpaint:
            n, _, height, width = batch.image.shape
            mask = draw_masks(n, (height, width), rng).to(batch.image.device)
            return replace(condition, image=batch.image, mask=mask)
        return condition
