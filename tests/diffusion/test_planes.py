"""Small images and masks beside noisy images, and images in tiles."""

import math
from collections.abc import Sequence
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from trilemma import rng
from trilemma.diffusion.model import PixelDiffusion
from trilemma.diffusion.planes import (
    MOST_NUMBERS,
    OUTSIDE,
    OVERLAP,
    WHOLE,
    draw_masks,
    enlarge,
    mask_planes,
    places_of,
    shrink,
    tile_denoiser,
    window,
)
from trilemma.diffusion.sampling import DiffusionSampling
from trilemma.errors import UserError
from trilemma.nets.network_input import NetworkInput
from trilemma.registry import create
from trilemma.types import Batch, Condition, Redraw, Upscales

SMALL = {"width": 8, "multipliers": (1, 2), "depth": 1}
KEYS = DiffusionSampling(steps=4)


def images(n: int, *shape: int) -> Tensor:
    return rng.uniform(torch.arange(n), shape, 0, "images")


def model(name: str, shape: tuple[int, int, int] = (1, 8, 8), **settings: object) -> PixelDiffusion:
    result = create(name, shape=shape, **SMALL, **settings)
    assert isinstance(result, PixelDiffusion)
    for parameter in result.parameters():  # those that begin at zero say nothing yet
        torch.nn.init.normal_(parameter, std=0.1)
    return result.eval()


def test_to_shrink_what_was_enlarged_gives_back_what_is_smooth():
    level = torch.full((1, 2, 3, 4), 0.3)
    assert torch.allclose(shrink(enlarge(level, 4), 4), level) and enlarge(level, 4).shape == (1, 2, 12, 16)
    x = images(1, 1, 4, 4)
    assert torch.allclose(shrink(x, 2)[0, 0, 1, 0], x[0, 0, 2:, :2].mean())


@pytest.mark.parametrize(
    ("side", "tile", "step"), [(64, 28, 4), (28, 28, 4), (29 * 4, 28, 4), (30, 28, 2), (100, 8, 2)]
)
def test_tiles_cover_a_side_and_overlap(side: int, tile: int, step: int):
    places = places_of(side, tile, step)
    assert places[0] == 0 and places[-1] == side - tile and all(place % step == 0 for place in places)
    assert all(one < other <= one + tile - math.ceil(OVERLAP * tile) for one, other in pairwise(places))


@pytest.mark.parametrize("together", [1, 4, 100])
def test_tiles_that_agree_make_the_whole(together: int):
    x, t = images(2, 1, 20, 12), torch.tensor([0.5, 0.9])
    given: list[tuple[int, list[float]]] = []

    def denoise_at(corners: Sequence[tuple[int, int]]):
        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            given.append((len(corners), t.tolist()))
            return x_t * 3 + t[:, None, None, None]

        return denoise

    denoise = tile_denoiser(denoise_at, (20, 12), (8, 8), 2, together)
    assert torch.allclose(denoise(x, t), 3 * x + t[:, None, None, None], atol=1e-6)
    assert all(times == pytest.approx([0.5, 0.9] * tiles) for tiles, times in given)  # all images of each tile
    tiles = 4 * 2
    assert [count for count, _ in given] == [min(together, tiles)] * math.ceil(tiles / together)
    assert window((8, 8)).min() > 0 and window((8, 6)).shape == (1, 1, 8, 6)


def test_no_seams_where_tiles_differ():
    """Tiles of two levels meet in a slope: no step is larger than that of the weights."""

    def denoise_at(corners: Sequence[tuple[int, int]]):
        lefts = torch.tensor([float(left > 0) for _, left in corners])[:, None, None, None]
        return lambda x_t, t: lefts.expand_as(x_t)

    denoise = tile_denoiser(denoise_at, (8, 12), (8, 8), 1, 2)
    row = denoise(torch.zeros(1, 1, 8, 12), torch.ones(1))[0, 0, 4]
    assert row[0] == 0 and row[-1] == 1 and (row.diff() >= -1e-6).all() and row.diff().max() < 0.35


def test_an_image_of_one_tile_is_a_sample():
    upscaler = model("diffusion-upscale")
    assert isinstance(upscaler, Upscales) and upscaler.factor == 4
    small = images(3, 1, 2, 2)
    whole = upscaler.upscale(small, seed=5, keys=KEYS)
    assert torch.allclose(whole, upscaler.sample(3, seed=5, condition=Condition(image=small), keys=KEYS), atol=1e-6)
    alone = upscaler.upscale(small[1:2], seed=5, first=1, keys=KEYS)
    assert torch.allclose(alone, whole[1:2], atol=1e-5)
    other = upscaler.upscale(small.flip(0), seed=5, keys=KEYS)
    assert (other[0] - whole[0]).abs().max() > 1e-4  # it looks at the small image


class Steep(torch.nn.Module):
    """A network whose every pixel depends strongly on all that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(200.0))

    def forward(self, x: Tensor, level: Tensor, given: NetworkInput) -> Tensor:
        assert given.planes is not None
        mean = (x + given.planes).mean((1, 2, 3), keepdim=True)
        return (self.gain * mean).sin().expand_as(x)


def reach(rows: range, columns: range, size: tuple[int, int], calls: int) -> Tensor:
    """Where an image of tiles of 8x8 px, half of which the next one covers, can depend on some of its pixels, bool
    (H, W): a call of the denoiser sees the tiles that hold them, and the next call those that hold what has changed."""
    changed = torch.zeros(size, dtype=torch.bool)
    changed[rows.start : rows.stop, columns.start : columns.stop] = True
    for _ in range(calls):
        seen = changed.clone()
        for top, left in product(range(0, size[0] - 7, 4), range(0, size[1] - 7, 4)):
            tile = slice(top, top + 8), slice(left, left + 8)
            if seen[tile].any():
                changed[tile] = True
    return changed


@pytest.mark.parametrize(("calls", "columns"), [(1, range(12, 24)), (2, range(8, 28)), (3, range(4, 32))])
def test_a_tile_sees_its_part_of_the_image_alone(calls: int, columns: range):
    """What changes with one pixel of the small image are the tiles that hold it, and with each further call their
    neighbours; nothing else, bit for bit."""
    upscaler = model("diffusion-upscale", upscale=2)
    upscaler.network = Steep()
    small = images(1, 1, 8, 20)
    other = small.clone()
    other[0, 0, 2, 9] = 1 - other[0, 0, 2, 9]  # pixels 4 and 5 by 18 and 19 of the large one
    keys = DiffusionSampling(steps=calls)
    one, two = (upscaler.upscale(image, seed=0, keys=keys)[0, 0] for image in (small, other))
    inside = reach(range(4, 6), range(18, 20), (16, 40), calls)
    assert inside.any(0).nonzero()[:, 0].tolist() == list(columns)
    assert torch.equal(one[~inside], two[~inside])
    assert torch.equal((one != two).any(0), inside.any(0)) and torch.equal((one != two).any(1), inside.any(1))


@pytest.mark.parametrize("network", ["steep", "own"])
def test_how_many_tiles_are_denoised_together_changes_no_image(network: str, monkeypatch: pytest.MonkeyPatch):
    upscaler = model("diffusion-upscale", upscale=2, classes=True, n_classes=3)
    if network == "steep":
        upscaler.network = Steep()
    small, asked = images(2, 1, 7, 12), Condition(label=torch.tensor([2, 0]))
    sizes: list[int] = []
    upscaler.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    results = []
    for most in (MOST_NUMBERS, 2 * 64 * 4, 1):
        monkeypatch.setattr("trilemma.diffusion.model.MOST_NUMBERS", most)
        results.append(upscaler.upscale(small, seed=1, condition=asked, keys=DiffusionSampling(steps=1)))
    tiles = 3 * 5  # of 8x8 px in 14x24, half of which the next one covers
    assert sizes == [2 * tiles, 8, 8, 8, 6, *[2] * tiles]
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=0, atol=0 if network == "steep" else 1e-5)


@pytest.mark.parametrize(("sampler", "steps"), [("auto", [1, 2, 3]), ("heun", [1, 2, 2, 3, 3])])  # heun: both ends
def test_the_step_of_each_call_is_told(sampler: str, steps: list[int]):
    told: list[tuple[int, int]] = []
    keys = DiffusionSampling(steps=3, sampler=sampler, schedule="edm")
    model("diffusion-upscale").upscale(images(1, 1, 4, 4), seed=0, keys=keys, on_step=lambda *at: told.append(at))
    assert told == [(step, 3) for step in steps]


def test_larger_images_are_enlarged_and_smaller_ones_refused():
    upscaler = model("diffusion-upscale", upscale=2)
    assert upscaler.upscale(images(1, 1, 9, 5), seed=0, keys=KEYS).shape == (1, 1, 18, 10)
    for shape in ((1, 3, 8), (3, 4, 4)):
        with pytest.raises(UserError, match=r"this model enlarges images of 1 channels and at least 4x4 px"):
            upscaler.upscale(images(1, *shape), seed=0, keys=KEYS)
    with pytest.raises(UserError, match="upscale=8 does not divide images of 12x8; give another size="):
        model("diffusion-upscale", (1, 12, 8), upscale=8)


def test_samples_without_an_image_enlarge_those_of_the_training():
    upscaler = model("diffusion-upscale")
    x = images(5, 1, 8, 8)
    upscaler.take_examples([Batch(x)], 0)
    asked = Condition(image=shrink(x, 4)[[0, 1, 2, 3, 4, 0, 1]])
    assert torch.equal(upscaler.sample(7, seed=1, keys=KEYS), upscaler.sample(7, seed=1, condition=asked, keys=KEYS))


def test_masks_are_rectangles_or_all():
    masks = draw_masks(4000, (6, 8), torch.Generator().manual_seed(0))
    assert masks.shape == (4000, 1, 6, 8) and set(masks.unique().tolist()) <= {0.0, 1.0}
    rows, columns = masks.amax(3)[:, 0], masks.amax(2)[:, 0]
    known = 1 - masks
    known_rows, known_columns = known.amax(3)[:, 0], known.amax(2)[:, 0]
    drawn = (masks[:, 0] == rows[:, :, None] * columns[:, None, :]).flatten(1).all(1)
    left = (known[:, 0] == known_rows[:, :, None] * known_columns[:, None, :]).flatten(1).all(1)
    assert (drawn | left).all()
    whole = masks.flatten(1).all(1).double().mean().item()
    # both sides of a rectangle whole by chance: u below 1/n and above 1 - 1/n in either order, 2 / n**2 each
    expected = WHOLE + (1 - WHOLE) * (1 - OUTSIDE) * (2 / 36) * (2 / 64)
    assert abs(whole - expected) < 4 * (expected * (1 - expected) / 4000) ** 0.5
    outside = (left & ~drawn).double().mean().item()
    assert abs(outside - (1 - WHOLE) * OUTSIDE) < 0.03  # but for what is both, such as a half


def test_a_masked_image_hides_what_is_to_be_drawn():
    x, mask = images(2, 3, 4, 4), torch.zeros(2, 1, 4, 4)
    mask[:, :, :2] = 1
    planes = mask_planes(x, mask)
    assert planes.shape == (2, 4, 4, 4) and torch.equal(planes[:, :1], mask)
    assert not planes[:, 1:, :2].any() and torch.equal(planes[:, 1:, 2:], x[:, :, 2:])


def test_what_a_model_that_enlarges_is_asked_of_images_is_asked_of_what_they_shrink_to():
    upscaler = model("diffusion-upscale", upscale=2)
    x = images(3, 1, 8, 8)
    asked = Condition(image=shrink(x, 2))
    codes = upscaler.invert(x, asked, steps=4)
    assert upscaler.generate(codes, asked).shape == x.shape
    with pytest.raises(UserError, match="so that noise alone is not a code of it"):
        upscaler.invert(x, steps=4)
    how = Redraw(strength=0.5)
    again = upscaler.redraw(x, how, seed=1, keys=KEYS)
    assert torch.equal(again, upscaler.redraw(x, how, seed=1, condition=asked, keys=KEYS))
    bound = [upscaler.bound(x, torch.Generator().manual_seed(0), c, calls=2) for c in (Condition(), asked)]
    assert torch.equal(*bound)
    with pytest.raises(UserError, match="from noise and a smaller image; give that, as trilemma upscale does"):
        upscaler.generate(torch.zeros(1, 64))
    with pytest.raises(UserError, match=r"the smaller images are \(1, 3, 3\); this model takes \(1, 4, 4\)"):
        upscaler.sample(1, seed=0, condition=Condition(image=images(1, 1, 3, 3)))


def test_a_model_of_masks_does_not_see_what_it_draws():
    painter = model("diffusion-inpaint")
    x, mask = images(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)
    mask[..., 4:] = 1
    changed = torch.where(mask > 0, 1 - x, x)
    one, other = (painter.redraw(image, Redraw(mask=mask), seed=3, keys=KEYS) for image in (x, changed))
    assert torch.equal(one, other)
    assert torch.allclose(one[..., :4], x[..., :4], atol=1e-5)
    outside = painter.redraw(torch.where(mask > 0, x, 1 - x), Redraw(mask=mask), seed=3, keys=KEYS)
    assert (outside[..., 4:] - one[..., 4:]).abs().max() > 1e-4  # it sees what is outside


def test_a_model_of_masks_is_given_an_image_and_its_mask_or_neither():
    painter = model("diffusion-inpaint")
    x, mask = images(2, 1, 8, 8), torch.ones(2, 1, 8, 8)
    drawn = painter.sample(2, seed=0, keys=KEYS)
    assert torch.equal(drawn, painter.sample(2, seed=0, condition=Condition(image=x, mask=mask), keys=KEYS))
    for condition, text in (
        (Condition(image=x), "an image was given and no mask; give both, or neither"),
        (Condition(mask=mask), "a mask was given and no image; give both, or neither"),
        (
            Condition(image=x[..., :6], mask=mask),
            r"the image is \(1, 8, 6\) and its mask \(1, 8, 8\) \(channels, .*\); this model takes \(1, 8, 8\)",
        ),
        (Condition(image=x, mask=mask[:, :, :4]), r"the image is \(1, 8, 8\) and its mask \(1, 4, 8\)"),
    ):
        with pytest.raises(UserError, match=text):
            painter.sample(2, seed=0, condition=condition, keys=KEYS)
    whole = painter.redraw(x, Redraw(strength=0.5), seed=0, keys=KEYS)  # without a mask, as of nothing known
    masked = painter.redraw(x, Redraw(strength=0.5, mask=mask), seed=0, keys=KEYS)
    assert torch.equal(whole, masked)


def test_both_at_once_are_refused():
    with pytest.raises(UserError, match="a model learns one of them"):
        model("diffusion-upscale", inpaint=True)
