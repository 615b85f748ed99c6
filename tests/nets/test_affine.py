"""Images under affine maps."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from trilemma.nets.affine import resample


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.rand(n, *shape, generator=source(1), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(1, 7, 6), (3, 5, 8)])
def test_images_are_sampled_as_torch_samples_them(shape: tuple[int, int, int]) -> None:
    """The oracle has no second derivative in every release."""
    _, height, width = shape
    matrix, shift = torch.randn(6, 2, 2, generator=source(), dtype=torch.float64), 3 * torch.randn(6, 2).double()
    sides = torch.tensor([width, height]).double()
    theta = torch.cat([matrix * sides / sides[:, None], (2 * shift / sides)[..., None]], 2)
    grid = F.affine_grid(theta, [6, *shape], align_corners=False)
    expected = F.grid_sample(images(6, shape), grid, padding_mode="reflection", align_corners=False)
    torch.testing.assert_close(resample(images(6, shape), matrix, shift), expected)


def test_second_derivatives_pass_through_the_sampling() -> None:
    matrix, shift = torch.randn(2, 2, 2).double(), torch.randn(2, 2).double()
    assert torch.autograd.gradgradcheck(
        lambda image: resample(image, matrix, shift).square(), images(2, (1, 4, 3)).requires_grad_()
    )
