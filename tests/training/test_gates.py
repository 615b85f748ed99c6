"""Whether an autoencoder is good enough for diffusion on its codes."""

import pytest
import torch
from torch import Tensor, nn

import trilemma
from trilemma.errors import UserError
from trilemma.training.gates import MOST_GAIN, check_autoencoder, measure

CPU = torch.device("cpu")


class Scaled(nn.Module):
    """Codes that are the pixels over a scale."""

    map_shape = (1, 8, 8)

    def __init__(self, scale: float = 1.0, kept: float = 1.0) -> None:
        super().__init__()
        self.scale, self.kept = scale, kept

    def to_map(self, image: Tensor) -> Tensor:
        return self.kept * image / self.scale

    def from_map(self, code: Tensor) -> Tensor:
        return self.scale * code

    def encode(self, image: Tensor) -> Tensor:
        return self.to_map(image).flatten(1)

    def decode(self, z: Tensor) -> Tensor:
        return self.from_map(z.unflatten(1, self.map_shape))


class Small(Scaled):
    map_shape = (1, 4, 4)

    def to_map(self, image: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(image, 2) * self.kept

    def from_map(self, code: Tensor) -> Tensor:
        return nn.functional.interpolate(code, scale_factor=2)


@pytest.fixture(scope="module")
def data():
    return trilemma.load_data("digits")


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_noise_on_codes_comes_out_times_the_scale(data, scale):
    std = data.valid.images.double().div(255).std().item()
    assert measure(Scaled(scale), data, CPU).gain == pytest.approx(scale / std, rel=0.02)
    assert measure(Scaled(scale), data, CPU).reconstruction < 1e-9


def test_a_good_one_passes_and_is_described(data):
    lines: list[str] = []
    check_autoencoder(Scaled(0.5), data, CPU, lines.append)
    check = measure(Small(), data, CPU)
    assert check.shrunk > 0 and check.reconstruction > 0
    (line,) = lines
    assert line.startswith("  codes: 1 x 8 x 8 numbers; ") and "pure noise decode to what looks like noise" in line


def test_one_that_loses_the_image_is_refused(data):
    with pytest.raises(UserError, match=r"as autoencoder\.epochs=20, or with more channels.* check=false$"):
        check_autoencoder(Small(kept=0.0), data, CPU, print)


class Loud(Scaled):
    """Gives every image back, with what is added to its codes."""

    map_shape = (1, 4, 4)
    image: Tensor

    def to_map(self, image: Tensor) -> Tensor:
        self.image = image
        return torch.zeros(len(image), *self.map_shape)

    def from_map(self, code: Tensor) -> Tensor:
        return self.image + nn.functional.interpolate(code, scale_factor=2)


def test_one_that_magnifies_noise_is_refused(data):
    std = data.valid.images.double().div(255).std().item()
    assert measure(Loud(), data, CPU).gain == pytest.approx(1 / std, rel=0.1)
    assert 1 / std < MOST_GAIN
    check_autoencoder(Loud(), data, CPU, print)
    with pytest.raises(UserError, match=r"it magnifies noise on its codes [\d.]+ times, and 3 is the most"):
        check_autoencoder(Louder(), data, CPU, print)


class Louder(Loud):
    def from_map(self, code: Tensor) -> Tensor:
        return super().from_map(2 * code)
