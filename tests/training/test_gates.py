"""Whether an autoencoder is good enough for diffusion on its codes: each gate by autoencoders on both sides of its bar,
which is held as it is."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trilemma
from trilemma.arguments import parse_settings
from trilemma.data import Data
from trilemma.errors import UserError
from trilemma.registry import get_recipe
from trilemma.training import gates
from trilemma.training.gates import MOST_DISTANCE, MOST_GAIN, Check, check_autoencoder, measure
from trilemma.training.order import Order, order_of
from trilemma.training.request import request_of

CPU = torch.device("cpu")


def trained_as(name: str) -> dict[str, Any]:
    """What config.json says of an autoencoder that was trained for diffusion-latent."""
    recipe = get_recipe(name)
    return {"training": dict(recipe.training), "model_config": recipe.config.with_(**recipe.as_part).to_json()}


OF_AE_KL = trained_as("ae-kl")


class Scaled(nn.Module):
    """Codes that are the pixels over a scale."""

    map_shape = (1, 8, 8)

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def to_map(self, image: Tensor) -> Tensor:
        return image / self.scale

    def from_map(self, code: Tensor) -> Tensor:
        return self.scale * code

    def encode(self, image: Tensor) -> Tensor:
        return self.to_map(image).flatten(1)

    def decode(self, z: Tensor) -> Tensor:
        return self.from_map(z.unflatten(1, self.map_shape))


class Shrunk(Scaled):
    """Codes that are images of 16 px shrunk to a side, on maps that may be larger: their other places say nothing."""

    def __init__(self, side: int, places: int) -> None:
        super().__init__()
        self.side, self.map_shape = side, (1, places, places)

    def to_map(self, image: Tensor) -> Tensor:
        small = nn.functional.interpolate(image, (self.side, self.side), mode="bilinear", antialias=True)
        return nn.functional.pad(small, (0, self.map_shape[1] - self.side) * 2)

    def from_map(self, code: Tensor) -> Tensor:
        return nn.functional.interpolate(code[:, :, : self.side, : self.side], (16, 16), mode="bilinear")


class Packed(Scaled):
    """Four pixels of 16 levels as the digits of one number: all of the image, which the least noise destroys."""

    map_shape = (1, 4, 4)
    places = torch.tensor([1.0, 16.0, 16.0**2, 16.0**3])[:, None, None]
    std = 16.0**4 / 4  # of a code, about

    def to_map(self, image: Tensor) -> Tensor:
        levels = nn.functional.pixel_unshuffle((15 * image).round(), 2)
        return (levels * self.places).sum(1, keepdim=True) / self.std

    def from_map(self, code: Tensor) -> Tensor:
        digits = (self.std * code).round().clamp(0, 16**4 - 1).div(self.places, rounding_mode="floor") % 16
        return nn.functional.pixel_shuffle(digits, 2) / 15


@pytest.fixture(scope="module")
def data():
    return trilemma.load_data("digits")


@pytest.fixture(scope="module")
def smooth():
    """Digits enlarged, of which much is left at half of their size."""
    return trilemma.load_data("digits", size=16)


@pytest.fixture(scope="module")
def std(data) -> float:
    """Of the pixels of the held-out images."""
    return data.valid.images.double().div(255).std().item()


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_noise_on_codes_comes_out_times_the_scale(data, std, scale):
    """Within 4 standard deviations of the root mean square of so many normal numbers, 1 / sqrt(2 n) of it."""
    check = measure(Scaled(scale), data, CPU)
    assert check.gain == pytest.approx(scale / std, rel=4 / math.sqrt(2 * data.valid.images.numel()))
    assert check.reconstruction < 1e-9


def test_a_good_one_passes_and_is_described(data):
    lines: list[str] = []
    check = check_autoencoder(Scaled(0.5), data, CPU, lines.append, OF_AE_KL)
    assert check == measure(Scaled(0.5), data, CPU)
    (line,) = lines
    assert line.startswith("  codes: 1 x 8 x 8 numbers; ") and "pure noise decode to what looks like noise" in line


def test_one_that_is_no_better_than_shrinking_images_passes_and_a_worse_one_is_refused(smooth):
    """Both have 8 x 8 places; one fills them, and one blurs the images to 7 x 7."""
    check = measure(Shrunk(8, 8), smooth, CPU)
    assert 0 < check.shrunk == check.reconstruction < MOST_DISTANCE
    check_autoencoder(Shrunk(8, 8), smooth, CPU, print, OF_AE_KL)
    worse = measure(Shrunk(7, 8), smooth, CPU)
    assert worse.shrunk == check.shrunk < worse.reconstruction < MOST_DISTANCE and worse.gain < MOST_GAIN
    text = (
        rf"a reconstruction is at {worse.reconstruction:.3g} of the distance of two images, and {check.shrunk:.3g} is"
    )
    with pytest.raises(
        UserError,
        match=text + r" the most; .*as autoencoder\.epochs=20, .*as autoencoder\.dim=8, or .* check=false$",
    ):
        check_autoencoder(Shrunk(7, 8), smooth, CPU, print, OF_AE_KL)


def test_one_that_says_little_is_refused_though_its_map_can_say_no_more(smooth):
    """One place for an image: shrinking it leaves nothing of it, either."""
    check = measure(Shrunk(1, 1), smooth, CPU)
    assert check.reconstruction == check.shrunk > MOST_DISTANCE
    with pytest.raises(
        UserError, match=r"a reconstruction is at [\d.]+ of the distance of two images, and 0\.5 is the"
    ):
        check_autoencoder(Shrunk(1, 1), smooth, CPU, print, OF_AE_KL)


@pytest.mark.parametrize("share", [0.96, 1.04])
def test_the_bar_of_noise_lies_where_it_is_said_to(data, std, share):
    """Of codes times a scale, so that noise comes out as a share of what is allowed; 4 deviations are 3% of it."""
    assert 4 / math.sqrt(2 * data.valid.images.numel()) < 0.03
    autoencoder = Scaled(share * MOST_GAIN * std)
    if share < 1:
        check_autoencoder(autoencoder, data, CPU, print, OF_AE_KL)
        return
    with pytest.raises(
        UserError, match=r"it magnifies noise on its codes 3\.1 times, and 3 is the most; .*code_noise="
    ):
        check_autoencoder(autoencoder, data, CPU, print, OF_AE_KL)


def test_one_whose_codes_break_under_noise_is_refused_though_it_gives_images_back(data):
    """Noise of a tenth moves the last three digits anywhere: these pixels become uniform in [0, 1]."""
    check = measure(Packed(), data, CPU)
    assert check.reconstruction < 0.1 * check.shrunk and check.gain > MOST_GAIN
    with pytest.raises(UserError, match=r"it magnifies noise on its codes [\d.]+ times, and 3 is the most"):
        check_autoencoder(Packed(), data, CPU, print, OF_AE_KL)


def refusals(trained: dict[str, Any] | None, data: Data, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said of an autoencoder whose reconstructions are too far, and of one that magnifies noise."""
    texts = []
    for reconstruction, gain in ((0.9, 1.0), (0.1, 9.0)):
        check = Check(reconstruction=reconstruction, shrunk=0.9, gain=gain)
        monkeypatch.setattr(gates, "measure", lambda *_, check=check: check)
        with pytest.raises(UserError) as error:
            check_autoencoder(Scaled(), data, CPU, print, trained)
        texts.append(str(error.value))
    return texts


@pytest.mark.parametrize("name", ["ae-kl", "vae-vq"])
def test_the_keys_that_a_refusal_names_are_taken_and_ask_for_more(name, data, monkeypatch):
    trained = trained_as(name)
    for text in refusals(trained, data, monkeypatch):
        keys = re.findall(r"autoencoder[.\w]*=[\w.-]*\w", text)
        assert keys
        for key in keys:
            order = order_of(request_of("diffusion-latent"), {}, {"autoencoder": name, **parse_settings([key])})
            part, own = order.parts["autoencoder"], key.partition("=")[0].partition(".")[2]
            assert isinstance(part, Order)
            asked = {**part.training.to_json(), **part.settings}
            before = {**trained["training"], **trained["model_config"]}
            assert asked[own] == 2 * before[own] if own else part.recipe.name == "ae-kl"


def test_twice_no_noise_would_be_none(data, monkeypatch):
    trained = {**OF_AE_KL, "model_config": {**OF_AE_KL["model_config"], "code_noise": 0.0}}
    assert "autoencoder.code_noise=0.2," in refusals(trained, data, monkeypatch)[1]


def test_no_key_is_named_of_a_finished_run(data, monkeypatch):
    """It is not trained again: all keys of its training are refused."""
    nearer, steadier = refusals(None, data, monkeypatch)
    assert "give a run that was trained longer, or whose codes have more numbers" in nearer
    assert "give a run of ae-kl, whose decoder is trained on codes with noise" in steadier
    assert not any("autoencoder." in text or "autoencoder=" in text for text in (nearer, steadier))
