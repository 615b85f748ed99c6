"""Diffusion on codes: with codes that are the pixels it is diffusion of pixels."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from threads import in_threads
from torch import Tensor, nn

import trilemma
from trilemma import rng
from trilemma.diffusion.config import PixelDiffusionConfig
from trilemma.diffusion.latent import LatentDiffusion, LatentDiffusionConfig
from trilemma.diffusion.model import PixelDiffusion
from trilemma.errors import UserError
from trilemma.registry import create, get_recipe
from trilemma.team import ALONE, Team
from trilemma.types import (
    UNCONDITIONAL,
    Batch,
    BoundsLikelihood,
    Condition,
    Guides,
    Inverts,
    Precomputes,
    Reconstructs,
    Redraw,
    Redraws,
    UsesCodeMap,
)

SHAPE = (2, 8, 6)
NETWORK: dict[str, Any] = {"width": 8, "multipliers": (1, 2), "depth": 1, "clip_x0": False, "patch": 1}


class Pixels(nn.Module):
    """An autoencoder whose codes are the pixels in [-1, 1]."""

    map_shape = SHAPE

    def to_map(self, image: Tensor) -> Tensor:
        return 2 * image - 1

    def from_map(self, code: Tensor) -> Tensor:
        return (code + 1).div(2).clamp(0, 1)

    def place_mask(self, mask: Tensor) -> Tensor:
        return mask

    def encode(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return self.to_map(image).flatten(1)

    def decode(self, z: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return self.from_map(z.unflatten(1, SHAPE))


class Halved(Pixels):
    """One whose codes are means of 2 x 2 pixels."""

    map_shape = (2, 4, 3)

    def to_map(self, image: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(2 * image - 1, 2)

    def from_map(self, code: Tensor) -> Tensor:
        return super().from_map(nn.functional.interpolate(code, scale_factor=2))

    def place_mask(self, mask: Tensor) -> Tensor:
        return nn.functional.max_pool2d(mask, 2)


def images(n: int) -> Tensor:
    return rng.uniform(torch.arange(n), SHAPE, 0, "images")


@pytest.fixture
def pair() -> tuple[LatentDiffusion, PixelDiffusion]:
    """Models of the codes and of the pixels, with the same weights."""
    config = PixelDiffusionConfig(shape=SHAPE, **NETWORK)
    pixels = PixelDiffusion(config)
    for parameter in pixels.parameters():
        nn.init.normal_(parameter, std=0.1)
    latent = LatentDiffusion(LatentDiffusionConfig(shape=SHAPE, **NETWORK), {"autoencoder": Pixels()})
    latent.load_state_dict(pixels.state_dict())
    return latent.eval(), pixels.eval()


@pytest.mark.slow
def test_codes_that_are_the_pixels_change_nothing(pair):
    latent, pixels = pair
    batch = Batch(images(8), index=torch.arange(8))
    losses = [model.loss(batch, torch.Generator().manual_seed(5)) for model in pair]
    assert torch.equal(losses[0][0], losses[1][0]) and losses[0][1].keys() == losses[1][1].keys()
    assert torch.equal(latent.sample(3, seed=1), pixels.sample(3, seed=1))
    how = Redraw(strength=0.5)
    assert torch.equal(*(model.redraw(batch.image, how, seed=2) for model in pair))
    z = latent.invert(batch.image)
    assert torch.equal(z, pixels.invert(batch.image)) and torch.equal(latent.generate(z), pixels.generate(z))


def test_what_a_model_of_codes_can_do(pair):
    latent, pixels = pair
    assert all(isinstance(latent, one) for one in (Reconstructs, Inverts, Redraws, Precomputes))
    assert isinstance(latent, UsesCodeMap) and not isinstance(pixels, UsesCodeMap)
    assert not isinstance(latent, BoundsLikelihood) and isinstance(pixels, BoundsLikelihood)  # of codes, not of images
    seen: list[tuple[float, Tensor, Tensor]] = []
    latent.sample(2, seed=0, watch=lambda *what: seen.append(what))
    assert all(x.shape == (2, *SHAPE) and x.min() >= 0 and x.max() <= 1 for _, *both in seen for x in both)


def test_the_codes_of_training_images_are_worked_out_once(pair, monkeypatch):
    latent, _ = pair
    x = images(12)
    latent.precompute(lambda first, count: x[first : first + count], 12, ALONE)
    batch = Batch(x[[7, 2, 7]], index=torch.tensor([7, 2, 7]))
    expected = latent.to_x(batch.image)
    monkeypatch.setattr(Pixels, "to_map", lambda self, image: pytest.fail("an image was encoded again"))
    assert torch.equal(latent.train().x_of(batch), expected)
    with pytest.raises(pytest.fail.Exception):  # held-out images have numbers of their own
        latent.eval().x_of(batch)


def test_the_codes_are_those_of_one_process(pair, monkeypatch):
    """Worked out by three, of which each has a batch."""
    monkeypatch.setattr("trilemma.diffusion.latent.ENCODED_TOGETHER", 4)
    latent, _ = pair
    x, asked = images(10), list[tuple[int, int]]()

    def codes(team: Team) -> Tensor | None:
        def rows(first: int, count: int) -> Tensor:
            asked.append((first, count))
            return x[first : first + count]

        model = deepcopy(latent)
        model.precompute(rows, 10, team)
        return model._codes

    alone = codes(ALONE)
    assert alone is not None and torch.equal(alone, latent.to_x(x))
    asked.clear()
    assert all(torch.equal(own, alone) for own in in_threads(3, codes))
    assert sorted(rows for rows in asked if rows != (0, 1)) == [(0, 4), (4, 4), (8, 2)]  # the first tells how large


def test_codes_that_take_too_much_memory_are_not_kept(pair, monkeypatch):
    """Ten codes of 96 float32 numbers are 3,840 bytes."""
    latent, _ = pair
    monkeypatch.setattr("trilemma.diffusion.latent.MOST_BYTES", 4 * 96 * 9)
    text = latent.precompute(lambda first, count: images(10)[first : first + count], 10, ALONE)
    assert text.startswith("the codes of 10 images would take 3.84 kB of memory, and at most 3.46 kB are kept: each")
    batch = Batch(images(2), index=torch.arange(2))
    assert latent._codes is None and torch.equal(latent.train().x_of(batch), latent.to_x(batch.image))
    assert latent.precompute(lambda first, count: images(9)[first : first + count], 9, ALONE) is None
    assert latent._codes is not None


def test_a_place_is_drawn_where_one_of_its_pixels_is():
    model = LatentDiffusion(LatentDiffusionConfig(shape=SHAPE, **NETWORK), {"autoencoder": Halved()})
    mask = torch.zeros(1, 1, 8, 6)
    mask[:, :, 3, 5] = 1
    expected = torch.zeros(1, 1, 4, 3)
    expected[:, :, 1, 2] = 1
    how = model.in_x(Redraw(mask=mask, rounds=2))
    assert how.mask is not None and torch.equal(how.mask, expected) and how.rounds == 2
    assert model.sample(2, seed=0).shape == (2, *SHAPE)
    x = images(1)
    outside = model.redraw(x, Redraw(mask=mask, rounds=1), seed=0)[:, :, :2]
    assert torch.allclose(outside, model.reconstruct(x)[:, :, :2], atol=1e-5)  # what stays is its code


def test_what_is_under_a_mask_is_seen_by_no_code():
    model = LatentDiffusion(LatentDiffusionConfig(shape=SHAPE, **NETWORK), {"autoencoder": Halved()}).eval()
    x, mask = images(1), torch.zeros(1, 1, 8, 6)
    mask[:, :, 3:, 2:5] = 1  # not along the places of the map
    one, other = (
        model.redraw(image, Redraw(mask=mask, rounds=1), seed=0) for image in (x, torch.where(mask > 0, 1 - x, x))
    )
    assert torch.equal(one, other)


def test_a_classifier_of_images_is_refused(pair):
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(96, 3))
    classifier.n_classes = 3  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"^classifier= judges images, and this model draws codes"):
        pair[0].sample(1, seed=0, condition=Condition(torch.tensor([1])), guides=Guides(classifier=classifier))


def test_the_noise_of_pixels_is_refused(pair):
    with pytest.raises(UserError, match=r"^noise= is that of pixels, .*; use diffusion, a model of pixels$"):
        pair[0].redraw(images(1), Redraw(noise=0.1), seed=0)
    assert torch.equal(pair[0].redraw(images(1), Redraw(strength=0.0), seed=0), images(1))


def test_an_autoencoder_without_a_map_is_refused():
    recipe = get_recipe("diffusion-latent")
    with pytest.raises(UserError, match=r"the part autoencoder: its codes are not a map .* ae-kl"):
        recipe.build(recipe.config.with_(shape=(1, 8, 8)), {"autoencoder": create("ae-stacked", shape=(1, 8, 8))})


@pytest.mark.slow
def test_a_codebook_is_trained_without_the_prior_that_nothing_is_drawn_from(tmp_path):
    keys = {"steps": 1, "batch": 16, "check": False, "width": 8, "multipliers": (1, 2), "quiet": True, "device": "cpu"}
    run = trilemma.train(
        "diffusion-latent", "digits", autoencoder="vae-vq", out=tmp_path / "run", **keys, **{"autoencoder.steps": 2}
    )
    part = trilemma.load(run.path / "parts" / "autoencoder")
    assert not part.model_config.prior and part.config["training"]["lr"] == {"autoencoder": 0.002}
    assert {key.partition("/")[0] for row in part.log for key in row if "/" in key} == {"autoencoder"}
    assert not any("prior" in name for name in run.model.state_dict()) and run.sample(1, seed=0, steps=1).shape[0] == 1
    with pytest.raises(UserError, match=r"vae-vq does not draw samples.*models that do"):
        part.sample(1)
    again = trilemma.train(run.path / "config.json", out=tmp_path / "again", quiet=True)
    assert again.weights_id == run.weights_id
    keys |= {"autoencoder.prior": True, "autoencoder.steps": 2}
    whole = trilemma.train("diffusion-latent", "digits", autoencoder="vae-vq", out=tmp_path / "prior", **keys)
    assert any("prior" in name for name in whole.model.state_dict())
