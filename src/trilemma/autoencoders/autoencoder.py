"""An autoencoder: z = e(x), x_hat = d(z), trained to make x_hat like x.

Hinton & Salakhutdinov (2006), "Reducing the dimensionality of data with neural networks". For D pixels,

    loss = |d(e(c(x))) - x|**2 / D + sparsity * sum_j KL(Bernoulli(p) || Bernoulli(mean of z_j over the batch))

averaged over the images, or with the binary cross-entropy in place of the first term. Each part is a parameter:

    e, d   kinds of network (backbones.py); tied: layer k of the decoder is f(W'h + b) with W of the encoder's layer
           (Bengio et al. 2007, "Greedy layer-wise training of deep networks", section 5)
    c      corruption of the input, in training only: x itself, x with pixels dropped, x with Gaussian noise
           (Vincent et al. 2008, "Extracting and composing robust features with denoising autoencoders")
    KL     sparsity of a sigmoid code (penalties.py)

Linear networks and the squared error make it principal component analysis (Baldi & Hornik 1989); with a linear output
both networks work on 2x - 1, whose mean is nearer to 0, which makes the descent better conditioned. Samples come from a
density fitted on the codes of training images: a mixture of Gaussians, or with components=1 a Gaussian (priors.py).
"""

import math
from collections.abc import Iterable
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma.autoencoders.backbones import NetworkConfig, make_decoder, make_encoder
from trilemma.autoencoders.losses import bernoulli_nats, squared_error
from trilemma.autoencoders.penalties import kl_penalty
from trilemma.autoencoders.priors import GaussianMixture
from trilemma.config import Config, only_for
from trilemma.errors import check_codes, check_images
from trilemma.nets.precision import full
from trilemma.types import UNCONDITIONAL, Batch, Condition, Logs, Model, Phase, Player, check_condition
from trilemma.whole_batch import batch_mean


class AutoencoderConfig(NetworkConfig):
    """Settings of an autoencoder."""

    latent: int = Field(default=32, ge=1, description="numbers in a code")
    code: Literal["none", "relu", "sigmoid"] = Field(default="relu", description="activation of the code")
    output: Literal["sigmoid", "none"] = Field(
        default="sigmoid", description="activation of the reconstruction; none is linear, cut to the range of an image"
    )
    reconstruction: Literal["mse", "bce"] = Field(default="mse", description="loss between image and reconstruction")
    tied: bool = Field(default=False, description="mlp: the decoder's weights are the encoder's, transposed")
    corruption: Literal["none", "dropout", "gaussian"] = Field(
        default="none", description="done to the input in training; the target is the clean image"
    )
    level: float = Field(default=0.5, ge=0, description="of the corruption: share of pixels, or standard deviation")
    sparsity: float = Field(default=0.0, ge=0, description="weight of the sparsity penalty on a sigmoid code")
    sparsity_target: float = Field(default=0.1, gt=0, lt=1, description="mean activation wanted of each unit")
    components: int = Field(default=10, ge=1, description="Gaussians in the density that samples codes")

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        only_for(self, "tied", self.network == "mlp", f"network=mlp, not {self.network}: linear layers are transposed")
        only_for(self, "sparsity", self.code == "sigmoid", f"code=sigmoid, not {self.code}: activations in [0, 1]")
        only_for(self, "level", self.corruption != "none", "corruption=dropout or corruption=gaussian, not none")
        only_for(self, "sparsity_target", self.sparsity > 0, "a sparsity above 0, such as sparsity=0.001")
        if self.reconstruction == "bce" and self.output != "sigmoid":
            raise ValueError(
                f"reconstruction=bce needs output=sigmoid (it is {self.output}); or use reconstruction=mse"
            )
        if self.corruption == "dropout" and self.level >= 1:
            raise ValueError(f"level={self.level}: a share of pixels to drop is below 1; 0.5 is usual")
        return self


class Autoencoder(Model):
    """Encoder, decoder and a density over codes. Images (B, C, H, W) in [0, 1]; codes (B, latent)."""

    sampling_keys = Config

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.batch_statistics = self.sums_statistics = (
            config.sparsity > 0
        )  # the penalty is a function of means over the batch
        self.whole_because = "the decoder's weights are the encoder's" if config.tied else ""
        self.encoder = make_encoder(config, config.latent, last=config.code)
        self.decoder = TiedDecoder(self.encoder, config.shape) if config.tied else make_decoder(config, config.latent)
        self.prior = GaussianMixture(config.latent, config.components)
        networks = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.phases = [Phase("autoencoder", Player("autoencoder", networks), self.loss)]

    @property
    def code_length(self) -> int:
        """Numbers in a code."""
        return self.config.latent

    @property
    def sampling_network(self) -> nn.Module:
        """The decoder: one call per batch of samples."""
        return self.decoder

    def encode(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """(B, C, H, W) -> code (B, latent)."""
        check_condition(condition, len(image))
        check_images(image, self.config.shape)
        return full(self.encoder(2 * image - 1 if self.config.output == "none" else image))

    def decode(self, z: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """Code (B, latent) -> image (B, C, H, W) in [0, 1]."""
        check_condition(condition, len(z))
        check_codes(z, self.code_length)
        return self._image(full(self.decoder(z))).clamp(0, 1)

    def reconstruct(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """The image after a pass through the code, (B, C, H, W) in [0, 1]."""
        return self.decode(self.encode(image, condition))

    def corrupt(self, image: Tensor, rng: torch.Generator) -> Tensor:
        """What the encoder sees in training, as the image; its expectation is the image."""
        level = self.config.level
        match self.config.corruption:
            case "dropout":
                return image * torch.empty_like(image).bernoulli_(1 - level, generator=rng) / (1 - level)
            case "gaussian":
                return image + level * torch.empty_like(image).normal_(generator=rng)
        return image

    def loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """Mean over images of the reconstruction loss, and the penalty.

        Parts: mse (per pixel) or bce_nats (per image); with sparsity, sparsity_kl_nats, the sum over units.
        """
        z = self.encode(self.corrupt(batch.image, rng))
        logits = full(self.decoder(z))
        if self.config.reconstruction == "bce":
            name, loss = "bce_nats", bernoulli_nats(logits, batch.image).mean()
        else:
            name, loss = "mse", F.mse_loss(self._image(logits), batch.image)
        parts = {name: loss.detach()}
        if self.config.sparsity > 0:
            penalty = kl_penalty(batch_mean(z.mean(0)), self.config.sparsity_target).sum()
            loss = loss + self.config.sparsity * penalty
            parts["sparsity_kl_nats"] = penalty.detach()
        return loss, parts

    def validation(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Per image (B,): mse over its pixels; of a sigmoid code, the mean activation."""
        z = self.encode(batch.image)
        values = {"mse": squared_error(self.decode(z), batch.image)}
        return values | {"mean_activation": z.mean(1)} if self.config.code == "sigmoid" else values

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch], *, seed: int) -> dict[str, float]:
        """Fit the density over codes on the given training images.

        Returns:
            distinct_codes, where the images have fewer than the density has components.
        """
        used = self.prior.fit(torch.cat([self.encode(batch.image) for batch in batches]), seed=seed)
        return {"distinct_codes": used} if used < self.config.components else {}

    @torch.no_grad()
    def sample(
        self, n: int, *, seed: int, first: int = 0, condition: Condition = UNCONDITIONAL, keys: Config = Config()
    ) -> Tensor:
        """Decode codes drawn from the fitted density, brought into the range of the code's activation: (n, C, H, W)."""
        check_condition(condition, n)
        z = self.prior.sample(torch.arange(first, first + n), seed=seed)
        return self.decode(z.clamp(*_RANGES[self.config.code]))

    def _image(self, logits: Tensor) -> Tensor:
        """The decoder's output as an image; a linear one may leave [0, 1]."""
        return logits.sigmoid() if self.config.output == "sigmoid" else (logits + 1) / 2


class TiedDecoder(nn.Module):
    """The linear layers of an encoder backwards: h <- W'h + b with its W and own biases, ReLU between."""

    def __init__(self, encoder: nn.Module, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        layers = [layer for layer in encoder.modules() if isinstance(layer, nn.Linear)]
        self.layers = tuple(reversed(layers))  # in a tuple, so that they stay the encoder's own
        self.biases = nn.ParameterList(torch.zeros(layer.in_features) for layer in self.layers)

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent) -> (B, C, H, W)."""
        h = z
        for k, (layer, bias) in enumerate(zip(self.layers, self.biases, strict=True)):
            h = nn.functional.linear(h.relu() if k else h, layer.weight.T, bias)
        return h.unflatten(1, self.shape)


_RANGES = {"none": (-math.inf, math.inf), "relu": (0.0, math.inf), "sigmoid": (0.0, 1.0)}
