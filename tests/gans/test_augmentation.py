"""What the critic sees images through: each transform by itself, no leak, and the controller in closed form."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from trilemma import rng
from trilemma.config import make
from trilemma.gans import augmentation
from trilemma.gans.augmentation import MOST, Adaptive, adaptive, colours, differentiable, geometry
from trilemma.gans.config import GANConfig
from trilemma.gans.gan import GAN
from trilemma.nets.affine import resample
from trilemma.types import Batch

SHAPES = [(1, 8, 8), (3, 8, 12), (4, 9, 9), (2, 8, 8)]


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int, shape: tuple[int, int, int] = (3, 8, 8)) -> Tensor:
    return torch.rand(n, *shape, generator=source(1), dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_happens_at_probability_0(shape: tuple[int, int, int]) -> None:
    torch.testing.assert_close(adaptive(images(8, shape), 0.0, source()), images(8, shape))


@pytest.mark.parametrize("augment", [differentiable, lambda image, rng: adaptive(image, 0.9, rng)])
@pytest.mark.parametrize("shape", SHAPES)
def test_each_image_has_its_own_transform_and_passes_a_gradient(augment: Any, shape: tuple[int, int, int]) -> None:
    one = images(1, shape).expand(32, *shape).clone().requires_grad_()
    result = augment(one, source())
    assert result.shape == one.shape and result.dtype == one.dtype
    assert len(result.detach().flatten(1).round(decimals=6).unique(dim=0)) > 24
    torch.testing.assert_close(result, augment(one, source()))
    assert not torch.equal(result, augment(one, source(1)))
    (gradient,) = torch.autograd.grad(result.square().sum(), one, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), one)
    assert gradient.isfinite().all() and gradient.any() and second.isfinite().all() and second.any()


def test_places_are_float32_under_autocast() -> None:
    image = images(8, (3, 32, 40)).float()
    plain = adaptive(image, 0.8, source())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(adaptive(image, 0.8, source()), plain)


def drawn(monkeypatch: pytest.MonkeyPatch, on: list[float], u: list[float], e: list[float]) -> None:
    """For every image: which transforms are applied (0) or not (1), and their numbers."""
    parts = iter([on, u])
    columns = lambda values, like: torch.tensor(values).to(like)[:, None].expand(-1, len(like))  # noqa: E731
    monkeypatch.setattr(augmentation, "batch_uniform", lambda count, like, rng: columns(next(parts), like).clone())
    monkeypatch.setattr(augmentation, "batch_normal", lambda count, like, rng: columns(e, like))


@pytest.mark.parametrize(
    ("number", "u", "expected"),
    [
        (0, [0.4, 0, 0, 0], lambda x: x.flip(3)),
        (0, [0.6, 0, 0, 0], lambda x: x),
        (1, [0, 0.3, 0, 0], lambda x: torch.rot90(x, 1, (2, 3))),
        (1, [0, 0.6, 0, 0], lambda x: torch.rot90(x, 2, (2, 3))),
        (1, [0, 0.9, 0, 0], lambda x: torch.rot90(x, 3, (2, 3))),
        (5, [0, 0, 0.99, 0.5], lambda x: torch.cat([x[..., 1:], x[..., -1:]], 3)),
        (5, [0, 0, 0.5, 0.0], lambda x: torch.cat([x[..., :1, :], x[..., :-1, :]], 2)),
    ],
)
def test_geometry_one_transform_at_a_time(
    number: int, u: list[float], expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn(monkeypatch, [float(k != number) for k in range(6)], u, [0, 0, 0])
    result = resample(images(2), *geometry(images(2), 0.5, source()))
    torch.testing.assert_close(result, expected(images(2)))


def test_scale_aspect_and_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn(monkeypatch, [1, 1, 0, 0, 0, 1], [0, 0, 0, 0], [2, 1, -1])
    matrix, shift = geometry(images(1), 0.5, source())
    factor, c, s = 2**0.2, math.cos(math.pi / 8), math.sin(math.pi / 8)
    expected = torch.tensor([[c, -s * factor**2], [s, c * factor**2]])  # scale times aspect is 1
    torch.testing.assert_close(matrix[0].float(), expected)
    assert not shift.any()


def test_only_square_images_are_turned_by_quarters() -> None:
    u = geometry(images(200, (1, 8, 9)), 1.0, source())[0]
    assert (u[:, 1, 1] > 0).all()  # cos of the angle
    assert (geometry(images(200, (1, 9, 9)), 1.0, source())[0][:, 1, 1] < 0).any()


@pytest.mark.parametrize("n", [1, 3])
def test_colours_one_transform_at_a_time(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    colour = images(2, (n, 8, 8))
    eye, luma = torch.eye(n, dtype=torch.float64), torch.full((n, n), 1 / n, dtype=torch.float64)

    def of(number: int, u: tuple[float, float] = (0, 0)) -> tuple[Tensor, Tensor]:
        drawn(monkeypatch, [float(k != number) for k in range(5)], list(u), [1, 2, -1])
        matrix, brightness = colours(colour, 0.5, source())
        return matrix[0], brightness[0]

    torch.testing.assert_close(of(0)[1].item(), 0.2)
    torch.testing.assert_close(of(1)[0], 2 * eye)  # contrast by two standard deviations, of half an octave
    torch.testing.assert_close(of(2)[0], eye - 2 * luma)
    third = eye if n == 1 else eye.roll(1, 0)  # of a whole turn: red -> green -> blue
    torch.testing.assert_close(of(3, (0, 1 / 3))[0], third)
    torch.testing.assert_close(of(4)[0], luma + (eye - luma) / 2)


@pytest.mark.parametrize("shape", [(4, 8, 8), (2, 8, 8)])
def test_an_alpha_keeps_its_values(shape: tuple[int, int, int]) -> None:
    """It moves with the image, and has no colour."""
    image = images(64, shape)
    image[:, -1] = 1
    torch.testing.assert_close(adaptive(image, 0.9, source())[:, -1], image[:, -1])
    after = differentiable(image, source())[:, -1]
    assert ((after == 0) | (after == 1)).all()
    assert (adaptive(image, 0.9, source())[:, 0] - image[:, 0]).abs().max() > 0.1


def test_differentiable_augmentation_keeps_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn(monkeypatch, [0.5, 0.5, 0.5, 0.5, 0.5, 0.99, 0.99], [], [])
    cut = images(2)
    cut[:, :, 5:, 5:] = 0.5  # 4 pixels around the last one, 1 of them inside and 2 before it
    torch.testing.assert_close(differentiable(images(2), source()), cut)
    drawn(monkeypatch, [0.75, 0.5, 1.0, 0.5, 0.99, 0.0, 0.0], [], [])
    plain, result = images(2), differentiable(images(2), source())
    mean = plain.mean((1, 2, 3), keepdim=True)
    expected = (mean + 0.125 + 1.5 * (plain - mean))[..., 2:, 3:]  # of what is inside and was not cut out
    torch.testing.assert_close(result[..., 2:, 2:7], expected)
    assert (result[..., :2, :2] == 0.5).all() and (result[..., 7] == 0.5).all()


def pointing(directions: Tensor) -> Tensor:
    """4x4 images that are bright at one of their sides: 0 top, 1 left, 2 bottom, 3 right."""
    top = torch.zeros(1, 4, 4)
    top[:, 0] = 1
    return torch.stack([torch.rot90(top, k, (1, 2)) for k in range(4)])[directions]


@pytest.mark.parametrize("p", [0.5, MOST, 1.0])
def test_quarter_turns_leak_nothing_before_they_are_certain(p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With probability p one of four turns: of a distribution q over directions, (1 - p) q + p / 4 is seen, from which
    q can be told unless p is 1, when all that are seen are alike."""
    n, q = 8_000, torch.tensor([0.6, 0.3, 0.1, 0.0])
    directions = torch.multinomial(q, n, replacement=True, generator=source(2))
    original = augmentation.batch_uniform

    def turns_only(count: int, like: Tensor, rng: torch.Generator) -> Tensor:
        u = original(count, like, rng)
        return torch.where(torch.arange(count)[:, None] == 1, u, 2.0) if count == 6 else u

    monkeypatch.setattr(augmentation, "batch_uniform", turns_only)
    image = pointing(directions)
    seen = resample(image, *geometry(image, p, source()))
    sides = torch.stack(
        [seen[:, 0, 0].mean(1), seen[:, 0, :, 0].mean(1), seen[:, 0, -1].mean(1), seen[:, 0, :, -1].mean(1)]
    )
    share = torch.bincount(sides.argmax(0), minlength=4) / n
    error = 4 * math.sqrt(0.25 / n)
    if p == 1:
        torch.testing.assert_close(share, torch.full((4,), 0.25), atol=error, rtol=0)
    else:
        original_share = (share - p / 4) / (1 - p)
        torch.testing.assert_close(original_share, q, atol=error / (1 - p), rtol=0)
        assert original_share.argsort(descending=True).tolist()[:2] == [0, 1]


def follow(model: Adaptive, sure: float, steps: int, progress: float = 0.0, n: int = 100) -> float:
    """Batches in which a share of signs leads to r = sure."""
    signs = torch.where(torch.arange(n) < n * (1 + sure) / 2, 1.0, -1.0)
    for _ in range(steps):
        model.update(signs, progress)
    return model.p.item()


def test_the_probability_follows_the_critic() -> None:
    model = Adaptive()
    assert follow(model, 0.8, 3) == 0
    assert follow(model, 0.8, 1) == pytest.approx(400 / 500_000)
    assert follow(model, 0.8, 8) == pytest.approx(3 * 400 / 500_000)
    assert follow(model, 0.4, 4) == pytest.approx(2 * 400 / 500_000)
    assert follow(model, 0.6, 4) == pytest.approx(2 * 400 / 500_000)  # at the target it rests
    assert follow(model, -1.0, 40) == 0


def test_a_short_training_moves_it_in_a_share_of_its_length() -> None:
    """A fifth of the training from 0 to 1."""
    model = Adaptive()
    assert follow(model, 1.0, 4, progress=0.01) == pytest.approx(0.05)
    assert follow(model, 1.0, 3, progress=0.02) == pytest.approx(0.05)
    assert follow(model, 1.0, 1, progress=0.03) == pytest.approx(0.15)
    assert follow(model, 1.0, 4, progress=1.0) == pytest.approx(MOST)


def test_its_state_is_in_buffers() -> None:
    model, other = Adaptive(), Adaptive()
    follow(model, 1.0, 6, progress=0.1)
    other.load_state_dict(model.state_dict())
    assert follow(model, 1.0, 2, progress=0.2) == follow(other, 1.0, 2, progress=0.2) == pytest.approx(0.8)


def tiny(**settings: Any) -> GAN:
    with rng.isolated(0):
        return GAN(make(GANConfig, {"shape": (1, 8, 8), "latent": 6, "width": 4, **settings}))


@pytest.mark.parametrize("augment", ["differentiable", "adaptive"])
def test_the_generator_learns_through_what_the_critic_sees(augment: str) -> None:
    gan = tiny(network="mlp", critic_augment=augment)
    if gan.adaptive is not None:
        gan.adaptive.p.fill_(0.8)
    batch = Batch(rng.uniform(torch.arange(8), (1, 8, 8), 0, "test"), progress=0.0)
    plain = tiny(network="mlp")
    loss, parts = gan.critic_loss(batch, rng.generator(0, "step"))
    assert loss.item() != plain.critic_loss(batch, rng.generator(0, "step"))[0].item()
    assert ("augment_p" in parts) == (augment == "adaptive")
    gan.generator_loss(batch, rng.generator(0, "step"))[0].backward()
    assert all(p.grad is not None and p.grad.any() for p in gan.generator.parameters())


def test_a_critic_that_is_sure_of_training_images_raises_the_probability() -> None:
    gan = tiny(network="mlp", critic_augment="adaptive")
    assert gan.adaptive is not None
    batch = Batch(rng.uniform(torch.arange(8), (1, 8, 8), 0, "test"), progress=0.0)
    for sign, expected in ((1.0, 32 / 500_000), (-1.0, 0.0)):
        gan.critic.forward = lambda image, sign=sign: image.new_full((len(image),), sign)
        for _ in range(4):
            parts = gan.critic_loss(batch, rng.generator(0, "step"))[1]
        assert gan.adaptive.p.item() == pytest.approx(expected, abs=1e-9)
        assert parts["augment_p"].item() == pytest.approx(32 / 500_000 - expected, abs=1e-9)  # the one it was seen by
