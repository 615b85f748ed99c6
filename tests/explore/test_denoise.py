"""Denoising step by step: what is shown is what the sampler does, and the last image is the one that `sample` draws."""

import pytest
import torch
from PIL import Image, ImageSequence
from torch import nn

import trilemma
from trilemma import rng
from trilemma.cli.main import main
from trilemma.diffusion.grids import times_of
from trilemma.errors import UserError
from trilemma.explore.denoise import REST_MS
from trilemma.pictures.png import read_metadata

SHORT = {"steps": 2, "batch": 16, "device": "cpu", "quiet": True}
SMALL = {
    "diffusion-small": {"widths": (8, 8)},
    "diffusion": {"width": 8, "multipliers": (1,), "depth": 1, "attention_px": 0, "classes": True},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    base = tmp_path_factory.mktemp("denoise")
    return {
        name: trilemma.load(trilemma.train(name, "digits", out=base / name, **SHORT, **keys).path, device="cpu")
        for name, keys in SMALL.items()
    }


@pytest.mark.parametrize("name", SMALL)
def test_the_last_image_is_the_sample_and_the_first_is_its_noise(name, runs, tmp_path):
    run = runs[name]
    result = trilemma.denoise(run, n=3, first=4, seed=7, steps=5, out=tmp_path / "x.png")
    drawn = run.sample(3, first=4, seed=7, steps=5)
    assert torch.equal(result.x_t[-1], drawn) and torch.equal(result.x0_hat[-1], drawn)
    assert result.x_t.shape == result.x0_hat.shape == (6, 3, 1, 8, 8)
    assert list(result.times) == sorted(result.times, reverse=True) and result.times[-1] == 0
    noise = rng.normal(torch.arange(4, 7), (1, 8, 8), 7, "x_T")
    torch.testing.assert_close(result.x_t[0], (noise + 1).div(2).clamp(0, 1), atol=1e-3, rtol=0)
    torch.testing.assert_close(result.x0_hat[-2], drawn, atol=1e-5, rtol=0)  # the last step goes to the estimate


def test_a_time_that_is_asked_twice_is_shown_once_at_the_image_that_the_step_ends_with(runs, tmp_path):
    run = runs["diffusion"]
    result = trilemma.denoise(run, sampler="heun", grid="uniform", steps=4, animate=False, out=tmp_path / "x.png")
    assert result.times == pytest.approx(times_of("uniform", run.model.schedule, 4).tolist())
    fewer = trilemma.denoise(run, sampler="euler", grid="uniform", steps=4, animate=False, out=tmp_path / "x.png")
    assert torch.equal(result.x_t[0], fewer.x_t[0])
    assert (result.x_t[1] - fewer.x_t[1]).abs().max() > 1e-3  # corrected, not the guess, which is that of euler


def test_a_flow_of_full_strength_is_shown_in_the_range_of_images(runs, tmp_path):
    """On the edm schedule x_t begins with a standard deviation of 80."""
    result = trilemma.denoise(runs["diffusion"], n=4, schedule="edm", steps=3, out=tmp_path / "x.png", animate=False)
    noise = rng.normal(torch.arange(4), (1, 8, 8), 0, "x_T")
    torch.testing.assert_close(result.x_t[0], (noise + 1).div(2).clamp(0, 1), atol=1e-3, rtol=0)


def test_the_picture_has_the_steps_asked_for_and_the_animation_all(runs, tmp_path):
    run = runs["diffusion"]
    result = trilemma.denoise(run, n=2, steps=9, grid="uniform", frames=4, label=3, out=tmp_path / "x.gif")
    assert (result.picture, result.animation) == (tmp_path / "x.png", tmp_path / "x.gif")
    with Image.open(tmp_path / "x.gif") as film:
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(film)]
    assert len(durations) == len(result.times) == 10 and durations[-1] == REST_MS > durations[0]
    with Image.open(result.picture) as sheet:
        assert 4 * 64 < sheet.width < 5 * 64 + 80 and 4 * 64 < sheet.height < 4 * 64 + 60
    receipt = read_metadata(result.picture)
    assert (receipt["verb"], receipt["n"], receipt["label"], receipt["frames"]) == ("denoise", 2, 3, 4)
    assert receipt["settings"] == {"steps": 9, "grid": "uniform"} and receipt["weights"] == run.weights_id
    assert torch.equal(result.x_t[-1], run.sample(2, label=3, steps=9, grid="uniform"))


def test_a_guided_step_is_one_frame(runs, tmp_path):
    result = trilemma.denoise(runs["diffusion"], steps=3, guidance=2.0, animate=False, out=tmp_path / "x.png")
    assert len(result.times) == 4 and result.animation is None
    assert torch.equal(result.x_t[-1], runs["diffusion"].sample(1, steps=3, guidance=2.0))


def test_where_it_is_written(runs):
    run = runs["diffusion-small"]
    assert trilemma.denoise(run, animate=False, steps=2).picture == run.path / "denoising-steps-2.png"


def test_what_cannot_be_shown(runs, tmp_path):
    vae = trilemma.train("vae", "digits", out=tmp_path / "vae", **SHORT)
    with pytest.raises(UserError, match="vae does not denoise; models that do: diffusion-small, diffusion"):
        trilemma.denoise(vae)
    with pytest.raises(UserError, match="film=webp is the format of an animation; give animate=true"):
        trilemma.denoise(runs["diffusion"], animate=False, film="webp")
    with pytest.raises(UserError, match='did you mean "frames"'):
        trilemma.denoise(runs["diffusion"], framse=3)
    with pytest.raises(UserError, match="diffusion-small does not take a class: it was trained without labels"):
        trilemma.denoise(runs["diffusion-small"], label=3)


def test_the_command_line_prints_both_files(runs, tmp_path, capsys):
    words = ["denoise", str(runs["diffusion-small"].path), "steps=2", f"out={tmp_path / 'x.png'}"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert str(tmp_path / "x.png") in printed and str(tmp_path / "x.gif") in printed


class Fades(nn.Module):
    """A plain module: image k of a seed goes from 1 down to k / 10 in `steps` steps."""

    sampling_network = nn.Identity()

    def denoise(self, x_t, t):
        return x_t

    def sample(self, n, *, seed, first=0, steps: int = 3, watch=None):
        end = (torch.arange(first, first + n) / 10).view(n, 1, 1, 1).expand(n, 1, 8, 8)
        for k in range(steps):
            watch(1 - k / steps, end + (1 - end) * (1 - k / steps), end)
        return end


def test_a_plain_module_takes_its_settings_as_keywords(runs, tmp_path, monkeypatch):
    run = trilemma.load(runs["diffusion-small"].path, device="cpu")
    run.model = Fades()
    result = trilemma.denoise(run, first=3, steps=4, animate=False, out=tmp_path / "x.png")
    assert result.times == (1, 0.75, 0.5, 0.25, 0) and float(result.x_t[-1].mean()) == pytest.approx(0.3)
    with pytest.raises(UserError, match=r'unknown key "watch".* drawing from diffusion-small takes steps$'):
        run.sampling({"watch": 1}, trilemma.denoise)
    with pytest.raises(UserError, match="images are numbered up to"):
        trilemma.denoise(run, first=2**62)
