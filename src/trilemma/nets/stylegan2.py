"""StyleGAN2's networks (Karras et al. 2019, "A style-based generator architecture for generative adversarial networks";
2020, "Analyzing and improving the image quality of StyleGAN"), for any size and number of channels.

A mapping network turns z into a style w. Each convolution i of the generator has a style y_i = affine(w) of its own, by
which it scales its C inputs, and is demodulated, so that its outputs keep unit variance (2020, eq. 1 and 3):

    W'_oik = y_i W_oik,    W''_oik = W'_oik / sqrt(sum_ik W'_oik**2 + eps)

Scaling weights for each image is the same as scaling the maps on both sides of a convolution that all images share,

    conv(W'', x) = d conv(W, y x),    d_o = 1 / sqrt(sum_ik (y_i W_oik)**2 + eps)

which needs no weights for each image and is what happens here. Noise inputs follow each convolution, with one learned
strength a layer that begins at 0. At every size a 1x1 convolution without demodulation gives an image; these are
enlarged and added up (skip generator). The critic is a residual network.

Sizes: S = max(2, round(log2(min(H, W) / 4))) stages, each doubling a base grid of ceil(H / 2**S) x ceil(W / 2**S); the
generator's image is cropped at the end, the critic halves to the same grid. At 32x32 and width 16:

    4x4x128 -> 8x8x64 -> 16x16x32 -> 32x32x16 -> C,    8 layers with a style: 0 the first convolution, then for each
    size the image at the size before, or two convolutions

Maps are enlarged and reduced by 2 with the filter [1, 3, 3, 1] along both axes.
Equalised learning rate (Karras et al. 2018): weights begin as N(0, 1) and are scaled as they are used.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trilemma.errors import UserError
from trilemma.nets import critic
from trilemma.nets.conv import centre_crop
from trilemma.nets.dcgan import MAX_CHANNELS, stage_widths
from trilemma.nets.precision import full

LEAK = 0.2
GAIN = math.sqrt(2)  # of a leaky ReLU, after which the variance is about 1 again
EPS = 1e-8
MAPPING_RATE = 0.01  # learning rate of the mapping network, times that of the others
DEVIATION_DECAY = 0.99


class Linear(nn.Linear):
    """A linear layer with an equalised learning rate.

    Args:
        gain: standard deviation of the outputs for inputs of variance 1; that of a leaky ReLU goes through it.
        bias: of the outputs at the start. rate: factor on the learning rate.
    """

    def __init__(self, inputs: int, outputs: int, *, gain: float = 1.0, bias: float = 0.0, rate: float = 1.0) -> None:
        super().__init__(inputs, outputs)
        self.scale, self.bias_scale = gain * rate / math.sqrt(inputs), gain * rate
        nn.init.normal_(self.weight, std=1 / rate)
        nn.init.constant_(self.bias, bias / self.bias_scale)

    def forward(self, input: Tensor) -> Tensor:
        """(B, inputs) -> (B, outputs)."""
        return F.linear(input, self.weight * self.scale, self.bias * self.bias_scale)


class Conv(nn.Conv2d):
    """A convolution with an equalised learning rate; arguments as `Linear`. The bias starts at 0."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        gain: float = GAIN,
        bias: bool = True,
    ) -> None:
        super().__init__(c_in, c_out, kernel, stride, padding, bias=bias)
        self.scale, self.gain = gain / math.sqrt(c_in * kernel**2), gain
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H', W')."""
        bias = None if self.bias is None else self.bias * self.gain
        return F.conv2d(input, self.weight * self.scale, bias, self.stride, self.padding)


def activation() -> nn.Module:
    """Leaky ReLU; its gain is in the layer before, as it commutes with a positive factor."""
    return nn.LeakyReLU(LEAK, inplace=True)


def upsample(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 2 H, 2 W): zeros between the pixels, then [1, 3, 3, 1] / 4 along both axes.

    Each new pixel has 3/4 of the nearest old one and 1/4 of the next: bilinear interpolation.
    """
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def blur(x: Tensor, padding: int, stride: int = 1, *, odd_too: bool = False) -> Tensor:
    """[1, 3, 3, 1] / 8 along both axes of x (B, C, H, W), with zeros beyond the edges.

    Args:
        padding: zeros on each side; odd_too: one more where the size is odd, so that its half is rounded up.
    """
    row = (2 - (torch.arange(4, dtype=x.dtype, device=x.device) - 1.5).abs()) / 4  # [1, 3, 3, 1] / 8
    kernel = torch.outer(row, row).expand(x.shape[1], 1, -1, -1)
    sides = [padding + (n % 2 if odd_too else 0) for n in x.shape[2:]]
    return F.conv2d(x, kernel, stride=stride, padding=sides, groups=x.shape[1])


def downsample(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, ceil(H / 2), ceil(W / 2)), by the filter."""
    return blur(x, 1, 2, odd_too=True)


def enlarge_and_convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Zeros between the pixels, the convolution, the filter: (B, C_in, H, W) -> (B, C_out, 2 H, 2 W).

    To enlarge first and convolve then is the same but at the edges, and took twice as long on a CPU.
    """
    return 4 * blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), 1)  # 4: three pixels of four were zeros


def demodulation(weight: Tensor, y: Tensor) -> Tensor:
    """d of the outputs, float32 (B, C_out): of weights (C_out, C_in, k, k) for styles y (B, C_in)."""
    with torch.autocast(y.device.type, enabled=False):
        squared = weight.square().sum((2, 3))  # (C_out, C_in)
        return torch.rsqrt(full(y).square() @ squared.T + EPS)


class StyledConv(nn.Module):
    """3x3 convolution with modulation and demodulation, noise, bias and leaky ReLU; enlarges its input if asked to."""

    def __init__(self, c_in: int, c_out: int, styles: int, *, enlarges: bool = False) -> None:
        super().__init__()
        self.affine = Linear(styles, c_in, bias=1.0)
        self.weight = nn.Parameter(torch.randn(c_out, c_in, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(c_out))
        self.enlarges = enlarges

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        """x (B, C_in, H, W), w (B, styles), noise (B, H' * W') -> (B, C_out, H', W')."""
        y = self.affine(w)
        x = x * y[:, :, None, None]
        x = enlarge_and_convolve(x, self.weight) if self.enlarges else F.conv2d(x, self.weight, padding=1)
        d = GAIN * demodulation(self.weight, y)
        x = torch.addcmul((GAIN * self.bias)[:, None, None], full(x), d[:, :, None, None])
        x = x + (GAIN * self.noise_strength) * noise.view(len(x), 1, *x.shape[2:])
        return F.leaky_relu(x, LEAK, inplace=True)


class ToImage(nn.Module):
    """1x1 convolution with modulation alone."""

    def __init__(self, c_in: int, channels: int, styles: int) -> None:
        super().__init__()
        self.affine = Linear(styles, c_in, bias=1.0)
        self.conv = Conv(c_in, channels, 1, gain=1.0)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x (B, C_in, H, W), w (B, styles) -> (B, channels, H, W)."""
        return full(self.conv(x * self.affine(w)[:, :, None, None]))


class Mapping(nn.Module):
    """z, and the embedding of a class, each made to have a mean square of 1, through linear layers with leaky ReLU:
    together (B, inputs) -> w (B, styles)."""

    def __init__(self, inputs: int, styles: int, layers: int) -> None:
        super().__init__()
        sizes = [inputs] + [styles] * layers
        self.body = nn.Sequential()
        for n_in, n_out in pairwise(sizes):
            self.body.extend([Linear(n_in, n_out, gain=GAIN, rate=MAPPING_RATE), activation()])

    def forward(self, z: Tensor, embedded: Tensor | None = None) -> Tensor:
        """z (B, latent), and the embedding of classes (B, E) where the model has them -> (B, styles)."""
        parts = [z] if embedded is None else [z, embedded]
        units = [part * torch.rsqrt(part.square().mean(1, keepdim=True) + EPS) for part in parts]
        return full(self.body(torch.cat(units, dim=1)))


class Generator(nn.Module):
    """Skip generator; `mapping` is z (B, inputs) -> w (B, styles), and a call turns styles into images.

    n_layers: layers with a style of their own; n_noise: numbers of noise for an image.
    """

    def __init__(
        self, shape: tuple[int, int, int], inputs: int, width: int, *, styles: int = 64, mapping_layers: int = 2
    ) -> None:
        super().__init__()
        self.size, channels = shape[1:], shape[0]
        widths = grid_widths(*self.size, width)[::-1]
        stages = len(widths) - 1
        grid = [math.ceil(n / 2**stages) for n in self.size]
        self.n_layers = 2 * stages + 2
        areas = [math.prod(grid) * 4**stage for stage in range(stages + 1)]
        self.areas = [areas[0], *(area for area in areas[1:] for _ in range(2))]  # of the noise of each convolution
        self.n_noise = sum(self.areas)
        self.mapping = Mapping(inputs, styles, mapping_layers)
        self.start = nn.Parameter(torch.randn(1, widths[0], *grid))
        self.first = StyledConv(widths[0], widths[0], styles)
        self.enlarging = nn.ModuleList(StyledConv(a, b, styles, enlarges=True) for a, b in pairwise(widths))
        self.keeping = nn.ModuleList(StyledConv(b, b, styles) for b in widths[1:])
        self.to_image = nn.ModuleList(ToImage(c, channels, styles) for c in widths)

    def forward(self, styles: Tensor, noise: Tensor) -> Tensor:
        """styles (B, n_layers, W), noise (B, n_noise) -> images (B, C, H, W), not bounded, about in [0, 1]."""
        w, parts = styles.unbind(1), noise.split(self.areas, dim=1)
        x = self.first(self.start.expand(len(styles), -1, -1, -1), w[0], parts[0])
        image = self.to_image[0](x, w[1])
        for k, (enlarge, keep) in enumerate(zip(self.enlarging, self.keeping, strict=True)):
            x = enlarge(x, w[2 * k + 1], parts[2 * k + 1])
            x = keep(x, w[2 * k + 2], parts[2 * k + 2])
            image = upsample(image) + self.to_image[k + 1](x, w[2 * k + 3])
        return (centre_crop(image, *self.size) + 1) / 2


def grid_widths(height: int, width_px: int, width: int) -> list[int]:
    """Channels at each size from the image inwards: width, 2 width, ... (at most MAX_CHANNELS), one more than stages.

    Raises:
        UserError: if the image is too small to be halved twice.
    """
    inner = stage_widths(height, width_px, width)
    return [*inner, min(2 * inner[-1], MAX_CHANNELS)]


class ResidualBlock(nn.Module):
    """Two convolutions, the second of which halves the size, beside a 1x1 convolution; their sum keeps the variance."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = Conv(c_in, c_in, 3, padding=1)
        self.halving = Conv(c_in, c_out, 3, stride=2, gain=1.0)  # of the leaky ReLU, times sqrt(1/2) of the sum
        self.skip = Conv(c_in, c_out, 1, gain=math.sqrt(0.5), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, ceil(H / 2), ceil(W / 2))."""
        y = F.leaky_relu(self.conv(x), LEAK, inplace=True)
        y = self.halving(blur(y, 2, odd_too=True))
        return F.leaky_relu(y, LEAK, inplace=True) + self.skip(downsample(x))


class MinibatchDeviation(nn.Module):
    """Joins to each map how much the images of its group differ (Karras et al. 2018, section 3).

    In training, images 0 ... group - 1 of a batch are a group, and so on: the standard deviation of each number over
    the group (biased variance + 1e-8), averaged over all numbers, is a map for each of its images. Out of training an
    image is judged by itself, with the running average of training in that place.

    Args:
        group: images in a group; 1: all deviations are 0.
    """

    running_deviation: Tensor

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group, self.batch_statistics = group, group > 1
        self.register_buffer("running_deviation", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C + 1, H, W).

        Raises:
            UserError: in training, if the batch is not made of whole groups.
        """
        deviation = self.deviation(x) if self.training else self.running_deviation.expand(len(x))
        return torch.cat([x, deviation.to(x.dtype)[:, None, None, None].expand(-1, 1, *x.shape[2:])], dim=1)

    def deviation(self, x: Tensor) -> Tensor:
        """Of each image's group: (B, C, H, W) -> (B,); the running average follows."""
        check_groups(len(x), self.group)
        groups = full(x).unflatten(0, (-1, self.group))  # (M, group, C, H, W)
        variance = (groups - groups.mean(1, keepdim=True)).square().mean(1)
        values = torch.sqrt(variance + EPS).mean((1, 2, 3))  # (M,)
        update_mean(self.running_deviation, values.detach().mean(), 1 - DEVIATION_DECAY)
        return values.repeat_interleave(self.group)


def update_mean(mean: Tensor, value: Tensor, share: float) -> None:
    """Move a running mean, in place, by a share of its distance to a new value of its shape.

    Where it is 0 it has not begun, and begins at the value: from 0 it would take some 1 / share values to arrive.
    """
    mean.copy_(torch.where(mean == 0, value, mean).lerp(value, share))


def check_groups(batch: int, group: int) -> None:
    """Raises UserError for a batch that is not made of whole groups."""
    if batch % group:
        raise UserError(
            f"a batch of {batch} cannot be divided into groups of {group} images, whose deviation the critic sees; "
            f"choose a batch that is a multiple of {group}, or another deviation_group="
        )


class Critic(critic.Critic):
    """Residual critic: image (B, C, H, W) in [0, 1] -> logits (B,), high for real."""

    def __init__(self, shape: tuple[int, int, int], width: int, *, group: int = 4) -> None:
        widths = grid_widths(*shape[1:], width)
        last, places = widths[-1], math.prod(math.ceil(n / 2 ** (len(widths) - 1)) for n in shape[1:])
        super().__init__(
            nn.Sequential(
                Conv(shape[0], widths[0], 1),
                activation(),
                *(ResidualBlock(a, b) for a, b in pairwise(widths)),
                MinibatchDeviation(group),
                Conv(last + 1, last, 3, padding=1),
                activation(),
                nn.Flatten(),
                Linear(last * places, last, gain=GAIN),
                activation(),
                Linear(last, 1),
            )
        )

    def features(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, n_features)."""
        return super().features(2 * image - 1)
