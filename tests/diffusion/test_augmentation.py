"""Images that are moved in training, and what the network is told of it (Karras et al. 2022, appendix F.2)."""

import math

import pytest
import torch
from torch import Tensor

from trilemma.config import make
from trilemma.diffusion.augmentation import NUMBERS, augment, geometry
from trilemma.diffusion.config import PixelDiffusionConfig
from trilemma.diffusion.latent import LatentDiffusionConfig
from trilemma.diffusion.model import PixelDiffusion
from trilemma.errors import UserError
from trilemma.types import Batch, Condition

P = 0.12


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int, shape: tuple[int, int, int] = (3, 8, 6)) -> Tensor:
    return torch.rand(n, *shape, generator=source(1), dtype=torch.float64)


def model(augment_p: float = P, **settings) -> PixelDiffusion:
    torch.manual_seed(0)
    of_unet = {} if settings else {"multipliers": (1, 2)}
    small = {"shape": (1, 8, 8), "width": 32, "augment_p": augment_p}
    return PixelDiffusion(make(PixelDiffusionConfig, small | of_unet | settings))


def test_each_transform_is_made_as_often_as_asked() -> None:
    """Within four standard deviations of a binomial share."""
    n = 40_000
    numbers = geometry(torch.zeros(n, 1, 4, 4), P, source()).numbers
    expected = [1 / 2, P / 2, P, P, P, P, P, P, P]
    for column, share in zip(numbers.T, expected, strict=True):
        assert abs(column.ne(0).double().mean() - share) < 4 * math.sqrt(share * (1 - share) / n)
    together = [(3, 4), (5, 6), (7, 8)]
    assert all(torch.equal(numbers[:, a].ne(0), numbers[:, b].ne(0)) for a, b in together)
    assert numbers[:, 2][numbers[:, 2] != 0].var() == pytest.approx(1, abs=0.1)
    angles = torch.atan2(numbers[:, 4], numbers[:, 3] + 1)
    assert angles[angles != 0].var() == pytest.approx((2 * math.pi) ** 2 / 12, rel=0.05)


def test_the_numbers_say_all_that_was_done() -> None:
    """The map is put together from them alone."""
    image = images(200)
    matrix, shift, numbers = geometry(image, 0.7, source())
    a0, a1, a2, cos, sin, along_x, along_y, right, down = numbers.T
    angle, along = torch.atan2(sin, cos + 1), torch.atan2(along_y, along_x) / 2
    length = (along_x.square() + along_y.square()).sqrt()

    def turn(by: Tensor) -> Tensor:
        return torch.stack([torch.stack([by.cos(), -by.sin()], 1), torch.stack([by.sin(), by.cos()], 1)], 1)

    def sizes(x: Tensor, y: Tensor) -> Tensor:
        return torch.diag_embed(torch.stack([x, y], 1))

    flips = turn(angle) @ sizes(1 - 2 * a0, 1 - 2 * a1)
    stretched = turn(along) @ sizes(2 ** (0.2 * length), 2 ** (-0.2 * length)) @ turn(-along)
    expected = (2 ** (0.2 * a2))[:, None, None] * flips @ stretched
    torch.testing.assert_close(matrix, expected)
    torch.testing.assert_close(shift, torch.stack([right * 6 / 8, down * 8 / 8], 1))


def test_an_image_that_is_not_moved_stays_as_it_is() -> None:
    image = images(64)
    moved, numbers = augment(image, P, source())
    same = ~numbers.any(1)
    assert 4 < same.sum() < 40
    torch.testing.assert_close(moved[same], image[same])
    flipped = (numbers[:, 0] == 1) & ~numbers[:, 1:].any(1)
    assert 4 < flipped.sum() < 40
    torch.testing.assert_close(moved[flipped], image[flipped].flip(3))
    assert all(not torch.allclose(a, b) for a, b in zip(moved[~same], image[~same], strict=True))


def with_random_weights(model: PixelDiffusion) -> PixelDiffusion:
    """With weights of its own in the layers that begin at zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            numbers = torch.Generator().manual_seed(len(name))
            parameter.copy_(torch.randn(parameter.shape, generator=numbers) * 0.1)
    return model


def test_what_is_drawn_does_not_depend_on_what_the_network_is_told_in_training() -> None:
    moving, plain = with_random_weights(model()), model(0.0)
    assert moving.geometry_vector.weight.shape == (moving.network.embedding, NUMBERS)
    plain.load_state_dict({k: v for k, v in moving.state_dict().items() if not k.startswith("geometry_vector")})
    images = moving.sample(2, seed=0)
    assert torch.equal(images, plain.sample(2, seed=0)) and images.std() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"classes": True, "n_classes": 3}, {"network": "dit"}])
def test_the_network_learns_from_what_it_is_told(settings) -> None:
    moving, plain = with_random_weights(model(**settings)), with_random_weights(model(0.0, **settings))
    batch = Batch(images(64, (1, 8, 8)).float(), Condition(label=torch.arange(64) % 3))
    loss, _ = moving.loss(batch, source())
    loss.backward()
    gradient = moving.geometry_vector.weight.grad
    assert gradient is not None and gradient.any(0).all()
    errors, as_they_are = (one.validation(batch, source())["denoising_mse"] for one in (moving, plain))
    assert torch.equal(errors, as_they_are)  # images of a validation are not moved


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match="augment_p"):
        model(1.0)
    with pytest.raises(UserError, match=r"augment_p=0\.1 is for models of pixels, such as diffusion"):
        make(LatentDiffusionConfig, {"shape": (3, 64, 64), "augment_p": 0.1})
