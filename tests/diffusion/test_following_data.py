"""What of a model's settings follows the images at hand: patch, shift of the noise, and their spread."""

import pytest
import torch

from trilemma.data import Data, Split
from trilemma.diffusion.config import PixelDiffusionConfig, make_network, patch_of, side_shift
from trilemma.diffusion.model import PixelDiffusion
from trilemma.errors import UserError
from trilemma.nets.unet import UNet
from trilemma.registry import get_recipe, without_memory
from trilemma.run.migration import migrated
from trilemma.training.prepare import config_for, mean_and_spread
from trilemma.types import HasCodeMap

SHAPES = ((1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 128, 96))


@pytest.mark.parametrize(
    ("network", "patches"),
    [("unet", (1, 1, 1, 2, 4)), ("dit", (1, 4, 4, 8, 16))],  # the power of two next to side / 28, or side / 7
)
def test_the_patch_keeps_the_places_of_the_network(network: str, patches: tuple[int, ...]) -> None:
    configs = [PixelDiffusionConfig(shape=shape, network=network, width=1024) for shape in SHAPES]
    assert tuple(map(patch_of, configs)) == patches
    assert patch_of(configs[3].with_(patch=1)) == 1


@pytest.mark.parametrize("network", ["unet", "dit"])
@pytest.mark.parametrize("side", [8, 28, 64, 96, 128, 256, 512])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_place_holds_the_numbers_of_its_patch(network: str, side: int, channels: int) -> None:
    """Noise has as many dimensions as numbers: fewer channels cannot say it, so that some would stay in the images."""
    recipe = get_recipe("diffusion-dit" if network == "dit" else "diffusion")
    config = recipe.config.with_(shape=(channels, side, side))
    assert isinstance(config, PixelDiffusionConfig)
    assert channels * patch_of(config) ** 2 <= config.width
    whole = config.with_(width=4096)  # and not smaller than that asks for
    assert patch_of(config) == patch_of(whole) or channels * (2 * patch_of(config)) ** 2 > config.width


@pytest.mark.parametrize("autoencoder", ["ae-kl", "vae-vq"])
@pytest.mark.parametrize("side", [28, 64, 256])
def test_a_place_holds_the_numbers_of_a_patch_of_codes(autoencoder: str, side: int) -> None:
    part, latent = get_recipe(autoencoder), get_recipe("diffusion-latent")
    module = without_memory(part, part.config.with_(shape=(3, side, side), **part.as_part))
    assert isinstance(module, HasCodeMap)
    config = latent.config.with_(shape=module.map_shape)
    assert isinstance(config, PixelDiffusionConfig)
    assert module.map_shape[0] * patch_of(config) ** 2 <= config.width


@pytest.mark.parametrize("number", [1, 2, 3])
def test_runs_of_earlier_formats_keep_their_patch(number: int) -> None:
    stated = {"shape": [3, 128, 128], "network": "unet", "width": 16, "patch": None}
    run = {"format": number, "model_config": stated, "training": {}, "parts": {}}
    assert migrated(run)["model_config"] == (stated if number == 3 else {**stated, "patch": 4})
    of_codes = {**run, "parts": {"autoencoder": {}}}  # whose patch follows their own shape
    assert migrated(of_codes)["model_config"] == stated or number == 1  # which had no parts
    kept = {**stated, "shape": [3, 64, 64]}
    assert migrated({**run, "model_config": kept})["model_config"] == kept


def test_the_patch_of_a_transformer_divides_the_sides() -> None:
    assert patch_of(PixelDiffusionConfig(shape=(1, 30, 30), network="dit")) == 2  # 4 does not divide 30
    assert patch_of(PixelDiffusionConfig(shape=(1, 27, 27), network="dit")) == 1


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 8, 12), (1, 12, 8)])
def test_the_patch_of_a_unet_is_no_larger_than_the_longer_side(shape: tuple[int, int, int]) -> None:
    """It pads, so that no other has to divide them."""
    config, longer = PixelDiffusionConfig(shape=shape, width=4, multipliers=(1,), attention_px=0), max(shape)
    network = make_network(config.with_(patch=longer))
    assert network(torch.zeros(2, *shape), torch.zeros(2)).shape == (2, *shape)
    for patch in (longer + 1, 1000):
        with pytest.raises(UserError, match=f"patch={patch} is larger than the .*; give 1 to {longer}, or another"):
            make_network(config.with_(patch=patch))


def test_larger_images_have_more_noise() -> None:
    """Side / 32 of a square of as many pixels, at least 1."""
    assert [side_shift(shape) for shape in SHAPES[:4]] == [1, 1, 1, 2]
    assert side_shift(SHAPES[4]) == pytest.approx((128 * 96) ** 0.5 / 32)
    model = PixelDiffusion(PixelDiffusionConfig(shape=(3, 64, 64), width=4, multipliers=(1,)))
    assert model.shift == 2 and isinstance(model.network, UNet)


@pytest.mark.parametrize(
    ("levels", "mean", "std"),
    [((0, 255), 0, 1.0), ((51, 102), -0.4, 0.2), ((100, 100), -0.2157, 0.01)],  # half of each: their middle, and half
)  # their distance over 127.5
def test_mean_and_spread_are_measured_on_the_images(levels: tuple[int, int], mean: float, std: float) -> None:
    images = torch.tensor(levels, dtype=torch.uint8).repeat(32)[:, None, None, None].expand(-1, 3, 8, 8)
    assert mean_and_spread(images) == {"data_mean": mean, "data_std": std}
    splits = {"train": Split(images.contiguous())}
    data = Data("two", "two", (3, 8, 8), (), splits, (), (), "fingerprint")
    config = config_for(get_recipe("diffusion"), data, {})
    assert (config.get("data_mean"), config.get("data_std"), config.shape) == (mean, std, (3, 8, 8))
    given = config_for(get_recipe("diffusion"), data, {"data_std": 0.3})
    assert (given.get("data_mean"), given.get("data_std")) == (mean, 0.3)
    for name, own_mean, as_published in (("diffusion-cifar", mean, 0.5), ("diffusion-latent", 0, 1.0)):
        config = config_for(get_recipe(name), data, {})
        assert (config.get("data_mean"), config.get("data_std")) == (own_mean, as_published)


@pytest.mark.parametrize(
    ("shape", "prediction"),
    [((1, 28, 28), "edm"), ((3, 32, 32), "edm"), ((3, 33, 32), "wiener"), ((3, 64, 64), "wiener")],
)
def test_larger_images_are_filtered_by_their_spectrum(shape: tuple[int, int, int], prediction: str) -> None:
    model = PixelDiffusion(PixelDiffusionConfig(shape=shape, width=4, multipliers=(1,)))
    assert model.prediction == prediction and (model.spectrum is None) == (prediction == "edm")
    assert PixelDiffusion(model.config.with_(prediction="edm")).spectrum is None


@pytest.mark.parametrize(
    ("shape", "schedule", "kept"),
    [([1, 28, 28], "cosine", None), ([3, 64, 64], "cosine", "edm"), ([1, 28, 28], "edm", "edm")],
)
def test_the_prediction_of_earlier_runs(shape: list[int], schedule: str, kept: str | None) -> None:
    """Of presets that name none: that which is the default now, if it is the same."""
    stated = {"shape": shape, "schedule": schedule, "prediction": "edm"}
    run = {"format": 2, "model_config": stated, "training": {}, "parts": {}}
    assert migrated(run)["model_config"]["prediction"] == kept
    assert migrated({**run, "format": 3})["model_config"]["prediction"] == "edm"
