"""The ways between two codes keep their laws, and the pictures show them."""

import math

import numpy as np
import pytest
import torch
from explore.stand_ins import Shaded
from PIL import Image
from torch import nn

import trilemma
from trilemma.errors import UserError
from trilemma.explore.interpolate import FINER, interpolate
from trilemma.interpolation import linear, spherical
from trilemma.pictures.png import read_metadata

T = torch.linspace(0, 1, 9, dtype=torch.float64)


def unit(*values):
    vector = torch.tensor(values, dtype=torch.float64)
    return vector / vector.norm()


# --- the ways -------------------------------------------------------------------------------------------------------


def test_a_straight_line_is_followed_evenly():
    a, b = torch.tensor([1.0, -2.0, 3.0]).double(), torch.tensor([4.0, 0.0, -1.0]).double()
    torch.testing.assert_close(linear(a, b, T) - a, T[:, None] * (b - a), rtol=0, atol=1e-15)


@pytest.mark.parametrize("angle", [1e-4, 0.3, math.pi / 2, 3.0])
def test_an_arc_keeps_the_norm_and_turns_evenly(angle):
    """Between unit vectors at an angle theta, the point at t lies at the angle t theta on the sphere."""
    a = unit(1.0, 2.0, -1.0, 0.5)
    across = unit(
        *(torch.tensor([0.3, -1.0, 2.0, 1.0]).double() - a * (a @ torch.tensor([0.3, -1.0, 2.0, 1.0]).double()))
    )
    b = math.cos(angle) * a + math.sin(angle) * across
    points = spherical(a, b, T)
    expected = (T * angle).cos()[:, None] * a + (T * angle).sin()[:, None] * across
    torch.testing.assert_close(points, expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(points.norm(dim=1), torch.ones_like(T), rtol=0, atol=1e-11)


def test_the_ends_are_exact_and_an_arc_is_not_a_line():
    a, b = torch.tensor([3.0, 0.1, -2.0]).double(), torch.tensor([-0.2, 5.0, 1.0]).double()
    for way in (linear, spherical):
        points = way(a, b, T)
        assert torch.equal(points[0], a) and torch.equal(points[-1], b)
    middle = spherical(unit(1.0, 0.0), unit(0.0, 1.0), T)[4]
    assert middle.norm() == pytest.approx(1, abs=1e-12)  # on a line: sqrt(1/2)


@pytest.mark.parametrize("b", [[2.0, 4.0, 6.0], [-1.0, -2.0, -3.0], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
def test_without_a_plane_to_turn_in_the_way_is_straight(b):
    a, b = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor(b).double()
    assert torch.equal(spherical(a, b, T), linear(a, b, T))
    assert torch.equal(spherical(b, a, T), linear(b, a, T))


# --- the verb -------------------------------------------------------------------------------------------------------


def tiles(path, rows, columns, side=8):
    """The images of a table, shrunk to their own pixels: (rows, columns, side, side)."""
    page = np.asarray(Image.open(path))
    step = 64 + 1
    body = page[-(rows * step + 6) : -6, -(columns * step + 6) : -6]
    return body.reshape(rows, step, columns, step).transpose(0, 2, 1, 3)[:, :, :-1:8, :-1:8]


def test_rows_of_the_picture_are_the_ways(run, tmp_path):
    result = interpolate(run, 1, "4", out=tmp_path / "way.png")
    a, b = run.data.held_out[1].images[[1, 4], 0].double() / 255
    assert set(result.frames) == {"linear", "spherical"} and all(
        f.shape == (7, 1, 8, 8) for f in result.frames.values()
    )
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    expected = {"linear": linear(a.flatten(), b.flatten(), t), "spherical": spherical(a.flatten(), b.flatten(), t)}
    shown = tiles(result.picture, 3, 7)
    for k, name in enumerate(expected):
        images = expected[name].unflatten(1, (8, 8)).clamp(0, 1)
        torch.testing.assert_close(result.frames[name][:, 0].double(), images, rtol=0, atol=1e-6)
        assert np.abs(shown[k] - 255 * images.numpy()).max() <= 0.5 + 1e-4
    assert np.abs(shown[2].astype(int) - shown[0]).max() <= 1  # for this model, the line blends the pixels
    assert (expected["linear"] - expected["spherical"]).abs().max() > 0.05
    receipt = read_metadata(result.picture)
    assert (receipt["verb"], receipt["a"], receipt["b"], receipt["frames"], receipt["how"]) == (
        "interpolate",
        "1",
        "4",
        7,
        "both",
    )


def test_the_animation_goes_there_and_back_for_ever(run, tmp_path):
    result = interpolate(run, 1, 4, frames=3, how="linear", out=tmp_path / "way.gif")
    assert result.animation == tmp_path / "way.gif" and result.picture == tmp_path / "way.png"
    assert list(result.frames) == ["linear"]
    a, b = run.data.held_out[1].images[[1, 4], 0].double().numpy()
    steps = 2 * FINER
    with Image.open(result.animation) as film:
        assert film.info["loop"] == 0 and film.n_frames == 2 * steps
        for k in range(film.n_frames):
            film.seek(k)
            t = min(k, 2 * steps - k) / steps
            frame = np.asarray(film.convert("L"))
            assert frame.shape == (128 + 8, 128 + 8)
            assert np.abs(frame[4:-4:16, 4:-4:16] - ((1 - t) * a + t * b)).max() <= 1
            assert film.info["duration"] == (600 if k in (0, steps) else 60)


def test_between_codes_there_are_no_pixels_to_blend(run, tmp_path):
    np.save(tmp_path / "b.npy", np.full(64, 0.5))
    result = interpolate(
        run, ",".join(["0.25"] * 64), tmp_path / "b.npy", frames=2, animate=False, how="linear", out=tmp_path / "w.png"
    )
    assert result.animation is None and not (tmp_path / "w.gif").exists()
    assert (tiles(result.picture, 1, 2) == np.array([64, 128])[None, :, None, None]).all()


def test_each_frame_has_the_class_of_the_nearer_end(run, tmp_path):
    run.model = Shaded()
    labels = run.data.held_out[1].labels
    other = int((labels != labels[0]).nonzero()[0])
    frames = interpolate(run, 0, other, frames=4, out=tmp_path / "w.png").frames["linear"][:, 0, 0, 0]
    ends = labels[[0, other]].float() / 9
    torch.testing.assert_close(frames, ends.repeat_interleave(2))
    fixed = interpolate(run, 0, other, label="9", out=tmp_path / "w.png").frames["linear"]
    assert (fixed == 1).all()
    with pytest.raises(UserError, match="needs the class"):
        interpolate(run, [0.0] * 64, 1, out=tmp_path / "w.png")


def test_the_model_of_a_run_and_the_default_place(folder):
    run = trilemma.load(folder, device="cpu")
    result = interpolate(folder, 0, 1)
    assert result.picture == folder / "interpolation.png" and result.animation == folder / "interpolation.gif"
    with torch.no_grad():
        ends = run.model.decode(run.model.encode(run.data.held_out[1].images[:2].float() / 255))
    for frames in result.frames.values():
        torch.testing.assert_close(frames[[0, -1]], ends, rtol=0, atol=1e-5)


def test_what_is_refused(run, tmp_path):
    out = tmp_path / "none" / "way.png"
    for keys, message in (
        ({"frames": 1}, "at least 2"),
        ({"how": "sperical"}, 'how=sperical: give one of .*did you mean "spherical"'),
        ({"b": "1,2"}, "the code has 2 numbers"),
        ({"b": 10**6}, "image 1000000 not found"),
        ({"b": np.zeros((1, 10, 8))}, "the image is 1 x 10 x 8"),
        ({"label": 3}, "trained without labels"),
        ({"film": "webp", "animate": False}, "film=webp is the format of an animation; give animate=true"),
        (
            {"caption": "one|two|three"},
            r"caption=one\|two\|three: 3 captions, and a walk has two ends; give one or two",
        ),
    ):
        with pytest.raises(UserError, match=message):
            interpolate(run, **{"a": 0, "b": 1, "out": out, **keys})
    run.model = nn.Linear(1, 1)
    with pytest.raises(UserError, match=r"does not interpolate: it has no encoder; models that do: .*vae"):
        interpolate(run, 0, 1, out=out)
    assert not out.parent.exists()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["gan", "diffusion"])
def test_a_walk_between_codes_that_are_drawn(tmp_path, model):
    small = {"width": 8, "multipliers": (1, 2), "depth": 1} if model == "diffusion" else {}
    keys = {"steps": 1, "batch": 16, "out": tmp_path / "run", "quiet": True, "device": "cpu"}
    run = trilemma.train(model, "digits", **small, **keys)
    walk = {"frames": 2, "how": "linear", "animate": False}
    one = interpolate(run, "seed:1", "seed:2", out=tmp_path / "a.png", **walk).frames["linear"]
    again = interpolate(run, "seed:2", "seed:1", out=tmp_path / "b.png", **walk).frames["linear"]
    torch.testing.assert_close(one, again.flip(0), rtol=0, atol=1e-5)
    assert (one[0] - one[1]).abs().max() > 1e-3
    as_codes = {"steps": 50, "sampler": "unipc", "order": 3, "grid": "log-snr"} if model == "diffusion" else {}
    drawn = run.sample(1, seed=1, **as_codes)  # in the steps that go from a code to an image
    torch.testing.assert_close(one[:1], drawn, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vae", "vae-conditional", "diffusion-latent"])
def test_a_walk_between_images_that_are_drawn_by_a_model_that_encodes(tmp_path, model):
    small = {"check": False, "width": 8, "multipliers": (1, 2), "size": 16}
    small |= {"autoencoder.feature_loss": 0, "autoencoder.steps": 1}
    keys = {"steps": 1, "batch": 16, "out": tmp_path / "run", "quiet": True, "device": "cpu"}
    run = trilemma.train(model, "digits", **keys, **(small if model == "diffusion-latent" else {}))
    label = {"label": 3} if model == "vae-conditional" else {}
    ends = torch.cat([run.sample(1, seed=seed, **label) for seed in (1, 2)])
    walk = interpolate(run, "seed:1", "seed:2", frames=2, how="linear", animate=False, **label).frames["linear"]
    rebuilt = run.reconstruct(ends, **({"label": torch.tensor([3, 3])} if label else {}))
    torch.testing.assert_close(walk, rebuilt, rtol=0, atol=1e-5)


def test_a_model_that_draws_no_images_has_no_seeds(tmp_path):
    run = trilemma.train("ae-kl", "digits", steps=1, batch=16, out=tmp_path / "run", quiet=True, feature_loss=0)
    with pytest.raises(UserError, match="ae-kl"):
        interpolate(run, "seed:1", 3)
