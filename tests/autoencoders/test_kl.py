"""The autoencoder whose code is a map, and the distance by a classifier's maps."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trilemma import rng
from trilemma.autoencoders.kl import ADVERSARIAL_FROM, KLAutoencoder
from trilemma.autoencoders.vq import VQ, VQAutoencoder
from trilemma.classifiers.perceptual import perceptual_distance
from trilemma.registry import create
from trilemma.run.migration import migrated
from trilemma.run.weights import difference, forms_of
from trilemma.types import Batch, Finishes, HasCodeMap, Samples

SHAPE = (1, 8, 8)


def images(n: int, shape: tuple[int, int, int] = SHAPE, purpose: str = "images") -> torch.Tensor:
    return rng.uniform(torch.arange(n), shape, 0, purpose)


def autoencoder(shape: tuple[int, int, int] = SHAPE, **settings: object) -> KLAutoencoder:
    model = create("ae-kl", shape=shape, **{"width": 8, **settings})
    assert isinstance(model, KLAutoencoder)
    return model


@pytest.mark.parametrize(
    ("shape", "settings", "expected"),
    [
        ((1, 28, 28), {}, (4, 14, 14)),
        ((3, 47, 20), {}, (4, 24, 10)),
        ((3, 64, 33), {}, (4, 16, 9)),
        ((3, 64, 64), {"factor": 8, "dim": 6}, (6, 8, 8)),
        ((3, 64, 48), {"portable": True}, (4, 16, 12)),
    ],
)
def test_the_map_is_the_image_over_its_factor(shape, settings, expected):
    model = autoencoder(shape, **settings)
    x = images(2, shape)
    assert model.map_shape == expected and isinstance(model, HasCodeMap) and not isinstance(model, Samples)
    assert model.to_map(x).shape == (2, *expected) and model.from_map(model.to_map(x)).shape == x.shape
    assert model.encode(x).shape == (2, model.code_length) and model.reconstruct(x).shape == x.shape


def test_the_noise_has_the_variance_of_the_posterior_and_that_of_training():
    model = autoencoder(code_noise=0.3).double()
    mu, logvar = images(64, (4, 4, 4)).double(), images(64, (4, 4, 4), "logvar").double()
    eps = torch.empty_like(mu).normal_(generator=torch.Generator().manual_seed(1))
    z = model._add_noise(mu, logvar, torch.Generator().manual_seed(1))
    for c in range(4):
        spread = mu[:, c].std(correction=0)
        expected = mu[:, c] + (logvar[:, c].exp() + 0.09 * spread**2).sqrt() * eps[:, c]
        assert torch.allclose(z[:, c], expected, rtol=1e-12)


def test_the_loss_is_the_sum_of_its_parts():
    model = autoencoder(feature_loss=0.7, kl=0.03, squared=2.0)
    loss, parts = model.loss(Batch(images(8)), torch.Generator().manual_seed(0))
    expected = parts["l1"] + 2 * parts["mse"] + 0.7 * parts["features"] + 0.03 * parts["kl_nats"] / model.code_length
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("name", "keys"), [("ae-kl", {}), ("vae-vq", {"prior": False}), ("vae-vq", {"codes": 2})])
def test_codes_are_standardised_by_the_images_of_the_last_step(name, keys):
    model = create(name, shape=SHAPE, width=8, dim=3, **keys).double()
    assert isinstance(model, HasCodeMap) and isinstance(model, Finishes)
    x = images(300).double()
    model.finish([Batch(x[:200]), Batch(x[200:])], seed=0)
    code = model.to_map(x)
    mean, std = code.mean(dim=(0, 2, 3)), code.std(dim=(0, 2, 3), correction=0)
    assert mean.abs().max() < 1e-9 and (std - 1).abs().max() < 1e-9


def test_the_last_step_gives_the_spreads_of_the_codes():
    model = autoencoder().double()
    x = images(300).double()
    values = model.finish([Batch(x[:200]), Batch(x[200:])], seed=0)
    code = model.to_map(x)
    mu = model.posterior_map(x)[0].std(dim=(0, 2, 3), correction=0)
    assert values == pytest.approx({"least_spread": mu.min().item(), "greatest_spread": mu.max().item()})
    assert torch.allclose(model.from_map(code), model.decode_map(model.posterior_map(x)[0]).clamp(0, 1))


def test_a_critic_joins_in_late():
    model = autoencoder(adversarial=0.5)
    spans = {phase.name: (phase.begin, phase.end) for phase in model.phases}
    late = (ADVERSARIAL_FROM, 1.0)
    assert spans == {"autoencoder": (0.0, 1.0), "critic": late, "adversarial": late}
    for parameter in model.critic.body[-1].parameters():
        torch.nn.init.zeros_(parameter)
    batch, noise = Batch(images(4)), torch.Generator().manual_seed(0)
    assert model.critic_loss(batch, noise)[0].item() == 2  # the hinge at logits of 0
    torch.nn.init.constant_(model.critic.body[-1].bias, 3.0)
    assert model.adversarial_loss(batch, noise)[0].item() == pytest.approx(-1.5)
    assert not hasattr(autoencoder(), "critic")


def test_maps_of_a_vector_quantised_autoencoder():
    model = create("vae-vq", shape=SHAPE, width=8, dim=6, codes=16, prior_width=32, prior_depth=1)
    assert isinstance(model, VQ) and isinstance(model, HasCodeMap)
    x = images(20)
    for _ in range(2):  # without and with a count of the codes in use
        assert torch.allclose(model.from_map(model.to_map(x)), model.reconstruct(x), atol=1e-5)
        model.finish([Batch(x)], seed=0)


@pytest.mark.parametrize("prefix", ["", "autoencoder."])
def test_weights_of_an_earlier_version_standardise_codes_by_the_entries_in_use(prefix):
    """Alone, and as a part of a model of codes."""
    model = create("vae-vq", shape=SHAPE, width=8, dim=6, codes=16, prior=False)
    assert isinstance(model, VQAutoencoder)
    x = images(20)
    model.finish([Batch(x)], seed=0)
    state = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
    earlier = {name: value for name, value in state.items() if "vector_" not in name}
    assert len(earlier) == len(state) - 2
    assert difference(forms_of(earlier), forms_of(state)) is None
    assert difference(forms_of(state), forms_of(earlier)) == f"{prefix}vector_mean and 1 more are too many"
    other = create("vae-vq", shape=SHAPE, width=8, dim=6, codes=16, prior=False, seed=1)
    (nn.ModuleDict({"autoencoder": other}) if prefix else other).load_state_dict(earlier)
    chosen = model.codebook.entries[model.code_indices(x)].double().flatten(0, 2)
    expected = (model.vectors(x).double() - chosen.mean(0)) / chosen.std(0, correction=0).clamp(min=1e-6)
    assert torch.allclose(other.to_map(x).double(), expected.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(other.to_map(x), model.to_map(x), atol=1e-2)


@pytest.mark.parametrize("name", ["ae-kl", "vae-vq"])
def test_a_mask_of_a_pixel_is_one_of_the_place_that_draws_it(name):
    """By the decoder's last layer, which cuts an image, whose sides are no multiples, out of what all places draw."""
    size = (50, 37)
    model = create(name, shape=(1, *size), width=8, **({} if name == "ae-kl" else {"prior": False}))
    assert isinstance(model, HasCodeMap)
    _, height, width = model.map_shape
    numbers = torch.arange(float(height * width)).view(1, 1, height, width)
    maps, channels = (2, 4) if name == "ae-kl" else (1, 1)  # the last layer of ae-kl takes 4 channels as 2 x 2 pixels
    drawn = model.decoder[-1](F.interpolate(numbers, scale_factor=4 // maps).expand(-1, channels, -1, -1))
    places = model.place_mask(torch.eye(50 * 37).view(-1, 1, *size)).flatten(1)
    assert places.shape == (50 * 37, height * width) and torch.equal(places.sum(1), torch.ones(50 * 37))
    assert torch.equal(places.argmax(1), drawn.flatten().long())


def test_runs_of_before_have_the_numbers_at_a_place_under_the_name_of_now():
    before, now = ({"shape": [1, 8, 8], name: 6, "code_noise": 0.1} for name in ("channels", "dim"))
    run = {"format": 3, "model_config": before, "parts": {}}
    assert migrated(run)["model_config"] == migrated({**run, "model_config": now})["model_config"] == now
    part = {"recipe": "ae-kl", "settings": before}
    of_codes = migrated({"format": 3, "model_config": {"width": 8}, "parts": {"autoencoder": part}})
    assert of_codes["parts"]["autoencoder"] == {**part, "settings": now} and of_codes["model_config"] == {"width": 8}


def test_the_distance_by_maps_is_one():
    x = images(3, (3, 32, 32))
    blurred = F.avg_pool2d(x, 3, 1, 1)
    assert perceptual_distance(x, x).max() < 1e-6
    there, back = perceptual_distance(x, blurred), perceptual_distance(blurred, x)
    assert torch.allclose(there, back, rtol=1e-4) and there.shape == (3,)
    assert (there > 1e-3).all() and (perceptual_distance(x, 1 - x) <= 4).all()
    grey = images(2, (1, 28, 28)).requires_grad_()
    perceptual_distance(grey, grey.detach().flip(0)).sum().backward()
    assert grey.grad is not None and grey.grad.abs().max() > 0


def test_little_blur_is_nearer_than_much():
    x = images(4, (3, 32, 32))
    smooth = F.avg_pool2d(x, 3, 1, 1)  # detail of several pixels
    distances = [perceptual_distance(smooth, torch.lerp(smooth, x, share)).mean().item() for share in (0.2, 0.5, 1)]
    assert distances == sorted(distances) and distances[0] < distances[-1] / 2
