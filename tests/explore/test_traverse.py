"""A traversal moves the units it says, over the range they have on real images, and nothing else."""

import numpy as np
import pytest
import torch
from explore.stand_ins import Shaded
from PIL import Image
from torch import nn

import trilemma
from trilemma.errors import UserError
from trilemma.explore.traverse import on_plane, one_at_a_time, traverse
from trilemma.pictures.png import read_metadata


class Corners(nn.Module):
    """A code of two numbers, the brightness of two pixels."""

    def encode(self, image, condition=None):
        return image[:, 0, 3, 3:5]

    def decode(self, z, condition=None):
        image = torch.zeros(len(z), 1, 8, 8)
        image[:, 0, 0, 0], image[:, 0, 7, 7] = z.T
        return image


@pytest.fixture
def pixels(run):
    """The codes of all held-out images (fewer than are measured at most), float64 (N, 64)."""
    return run.data.held_out[1].images.flatten(1).double() / 255


def test_only_the_chosen_unit_changes_and_by_standard_deviations(run, pixels, tmp_path):
    result = traverse(run, image=2, units="28,3", span=2, steps=5, out=tmp_path / "rows.png")
    assert result.units == (28, 3) and result.images.shape == (2, 5, 1, 8, 8) and result.values.shape == (2, 5)
    mean, std = pixels.mean(0), pixels.std(0, correction=0)
    for row, unit in enumerate((28, 3)):
        codes = result.images[row].flatten(1).double()  # (5, 64)
        expected = pixels[2].repeat(5, 1)
        steps = mean[unit] + torch.linspace(-2, 2, 5).double() * std[unit]
        expected[:, unit] = steps.clamp(pixels[:, unit].min(), pixels[:, unit].max())
        torch.testing.assert_close(codes, expected, rtol=0, atol=1e-6)
        assert (codes[1:4, unit].diff() > 0).all() and result.values[row].tolist() == codes[:, unit].float().tolist()


def test_no_unit_leaves_the_values_it_has_on_real_images(run, pixels, tmp_path):
    """Pixels are never negative, but three standard deviations below their mean would be. Those that are dark in most
    images stop early below and late above."""
    result = traverse(run, units=range(64), steps=9, out=tmp_path / "rows.png")
    least, most = pixels.amin(0), pixels.amax(0)
    free = pixels.mean(0)[:, None] + torch.linspace(-3, 3, 9).double() * pixels.std(0, correction=0)[:, None]
    inside = (free > least[:, None]) & (free < most[:, None])
    assert (free < least[:, None]).any() and (free > most[:, None]).any() and inside.any()
    values = result.values.double()
    torch.testing.assert_close(values[inside], free[inside], rtol=0, atol=1e-6)
    torch.testing.assert_close(values.amin(1), torch.maximum(free.amin(1), least), rtol=0, atol=1e-6)
    torch.testing.assert_close(values.amax(1), torch.minimum(free.amax(1), most), rtol=0, atol=1e-6)


def test_the_mean_code_and_the_most_active_units_by_default(run, pixels, tmp_path):
    result = traverse(run, out=tmp_path / "rows.png")
    std = pixels.std(0, correction=0)
    assert len(result.units) == 10 and (std[list(result.units)].diff() <= 1e-6).all()
    assert std[list(result.units)].min() >= std.sort(descending=True).values[10] - 1e-6
    torch.testing.assert_close(
        result.images[:, 3].flatten(1).double(), pixels.mean(0).expand(10, -1), rtol=0, atol=1e-6
    )
    receipt = read_metadata(result.picture)
    assert receipt["units"] == list(result.units) and receipt["image"] is None and receipt["span"] == 3.0


def test_units_that_never_move_are_left_out(run, tmp_path):
    run.model.encode = lambda image, condition=None: image.flatten(1) * (torch.arange(64) == 20)
    assert traverse(run, out=tmp_path / "rows.png").units == (20,)


def test_the_picture_has_the_start_before_the_rows(run, tmp_path):
    result = traverse(run, image=2, units=27, steps=3, out=tmp_path / "rows.png")
    page = np.asarray(Image.open(result.picture))[-(65 + 6) : -6, -(4 * 65 + 6) : -6]
    tiles = page.reshape(65, 4, 65).transpose(1, 0, 2)[:, :-1:8, :-1:8]
    assert np.array_equal(tiles[0], run.data.held_out[1].images[2, 0].numpy())
    assert np.abs(tiles[1:] - 255 * result.images[0, :, 0].clamp(0, 1).numpy()).max() <= 0.5 + 1e-4


def test_codes_that_differ_in_one_unit_or_two():
    start = torch.arange(4.0)
    codes = one_at_a_time(start, [2, 0], torch.tensor([[10.0, 11], [20, 21]]))
    assert codes.tolist() == [[0, 1, 10, 3], [0, 1, 11, 3], [20, 1, 2, 3], [21, 1, 2, 3]]
    codes = on_plane(start, [3, 1], torch.tensor([[10.0, 11], [20, 21]]))  # x from left to right, y from below
    assert codes.tolist() == [[0, 21, 2, 10], [0, 21, 2, 11], [0, 20, 2, 10], [0, 20, 2, 11]]
    assert start.tolist() == [0, 1, 2, 3]


# --- the plane ------------------------------------------------------------------------------------------------------


def test_two_numbers_are_walked_over_a_plane_through_their_quantiles(run, tmp_path):
    run.model = Corners()
    result = traverse(run, steps=5, out=tmp_path / "plane.png")
    codes = run.data.held_out[1].images[:, 0, 3, 3:5].double() / 255
    lines = torch.quantile(codes, torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]).double(), dim=0).T
    torch.testing.assert_close(result.values.double(), lines, rtol=0, atol=1e-6)
    assert result.units == (0, 1) and result.images.shape == (5, 5, 1, 8, 8)
    torch.testing.assert_close(result.images[:, :, 0, 0, 0].double(), lines[0].expand(5, 5), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        result.images[:, :, 0, 7, 7].double(), lines[1].flip(0)[:, None].expand(5, 5), rtol=0, atol=1e-6
    )
    assert read_metadata(result.picture)["plane"] == [0, 1]


def test_a_plane_of_any_two_units_and_no_plane(run, pixels, tmp_path):
    out = tmp_path / "plane.png"
    result = traverse(run, plane="30,20", spacing="even", span=1.5, steps=3, image=4, out=out)
    mean, std = pixels.mean(0), pixels.std(0, correction=0)
    for row, unit in enumerate((30, 20)):
        expected = mean[unit] + torch.tensor([-1.5, 0, 1.5]).double() * std[unit]
        expected = expected.clamp(pixels[:, unit].min(), pixels[:, unit].max())
        torch.testing.assert_close(result.values[row].double(), expected, rtol=0, atol=1e-6)
    changed = (result.images.flatten(2).double() - pixels[4]).abs().amax((0, 1)) > 1e-6
    assert changed.nonzero().flatten().tolist() == [20, 30]
    assert traverse(run, plane=True, steps=2, out=out).units == (0, 1)
    run.model = Corners()
    assert traverse(run, plane=False, out=out).images.shape == (2, 7, 1, 8, 8)
    assert traverse(run, units="1", out=out).units == (1,)


# --- the rest -------------------------------------------------------------------------------------------------------


def test_the_class_that_is_decoded(run, tmp_path):
    run.model, out = Shaded(), tmp_path / "rows.png"
    own = int(run.data.held_out[1].labels[5])
    for keys, label in (({}, 0), ({"label": "7"}, 7), ({"image": 5}, own), ({"image": 5, "label": 2}, 2)):
        assert torch.allclose(traverse(run, units=[0], out=out, **keys).images, torch.tensor(label / 9))


def test_the_model_of_a_run_and_the_default_place(folder):
    run = trilemma.load(folder, device="cpu")
    result = traverse(folder, units="3", steps=3)
    assert result.picture == folder / "traversal-units-3-steps-3.png" and result.picture.is_file()
    assert traverse(folder, plane="3,4", steps=3).picture == folder / "plane-steps-3-plane-3-4.png"
    with torch.no_grad():
        codes = run.model.encode(run.data.held_out[1].images.float() / 255)
        z = codes.mean(0).repeat(3, 1)
        z[:, 3] += torch.tensor([-3.0, 0, 3]) * codes[:, 3].std(correction=0)
        z[:, 3].clamp_(codes[:, 3].min(), codes[:, 3].max())
        torch.testing.assert_close(result.images[0], run.model.decode(z), rtol=0, atol=1e-5)


def test_what_is_refused(run, tmp_path):
    out = tmp_path / "none" / "rows.png"
    for keys, message in (
        ({"units": "64"}, "unknown units 64: give different numbers from 0 to 63"),
        ({"units": "a,b"}, "units='a,b': give a whole number or a list"),
        ({"units": "1,1"}, "different numbers"),
        ({"units": [-1]}, "unknown units"),
        ({"plane": "1"}, "give two units"),
        ({"plane": "0,64"}, "0 to 63"),
        ({"steps": 1}, "at least 2"),
        ({"span": 0}, "span=0: give a number above 0"),
        ({"spacing": "evn", "plane": "0,1"}, "spacing=evn: give one of quantiles, even"),
        ({"image": "0.1,0.2"}, "the code has 2 numbers"),
        ({"label": 2}, "trained without labels"),
    ):
        with pytest.raises(UserError, match=message):
            traverse(run, out=out, **keys)
    run.model = nn.Linear(1, 1)
    with pytest.raises(UserError, match=r"does not traverse codes: it has no encoder; models that do: .*vae"):
        traverse(run, out=out)
    assert not out.parent.exists()
