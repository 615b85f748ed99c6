"""Inversion: PSNR, which images, the files, and what a GAN's codes are for in the other verbs."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import trilemma
from trilemma.cli.main import main
from trilemma.errors import UserError
from trilemma.explore import edit, interpolate, invert, reconstruct, traverse
from trilemma.explore.detection.report import Page
from trilemma.explore.directions import of_effect, of_spread
from trilemma.gans import codes as gan_codes
from trilemma.metrics.reconstruction import psnr_db
from trilemma.pictures.png import png_content, read_metadata
from trilemma.run.run import Run


class Shadow(nn.Module):
    """Draws an image from a code of 64 numbers as half of them; it inverts exactly what is not too bright."""

    code_length = 64
    sampling_network = nn.Identity()
    calls: tuple[int | None, int]

    def sample(self, n: int, **keys: object) -> Tensor:
        return torch.zeros(n, 1, 8, 8)

    def invert(self, image: Tensor, condition: object = None, *, steps: int | None = None, seed: int = 0) -> Tensor:
        self.calls = steps, seed
        for _ in range(steps or 3):
            self.sampling_network(image)
        return 2 * image.flatten(1).clamp(max=0.5)

    def generate(self, z: Tensor, condition: object = None) -> Tensor:
        return (z / 2).unflatten(1, (1, 8, 8))


class Styled(gan_codes.CodesModel):
    """Two latents, three styles w = (3 z_1, z_2, 1); of z the brightness of three pixels is a linear function."""

    def __init__(self) -> None:
        super().__init__()
        self.config = type("Config", (), {"shape": (1, 8, 8), "latent": 2})
        self.scale = nn.Parameter(torch.tensor([3.0, 1.0]))

    def to_w(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return torch.cat([self.scale * z, torch.ones(len(z), 1)], 1)

    def mean_w(self) -> Tensor:
        return torch.tensor([0.0, 0.0, 1.0])

    def from_w(self, w: Tensor) -> Tensor:
        return torch.cat([0.5 + w / 100, torch.zeros(len(w), 61)], 1).unflatten(1, (1, 8, 8))


@pytest.fixture
def shadow(folder: Path) -> Run:
    run = trilemma.load(folder, device="cpu")
    run.model = Shadow()
    return run


@pytest.fixture
def styled(folder: Path) -> Run:
    run = trilemma.load(folder, device="cpu")
    run.model = Styled().eval()
    return run


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gan") / "run"
    settings = {"steps": 2, "batch": 16, "width": 4, "latent": 5, "device": "cpu", "quiet": True}
    return trilemma.train("gan", "digits", out=out, **settings).path


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches of a few steps."""
    monkeypatch.setattr(gan_codes, "STEPS", 3)
    monkeypatch.setattr(gan_codes, "STARTS", 8)


# the verb


def test_psnr_is_10_log10_of_one_by_the_mean_squared_error() -> None:
    mse = torch.tensor([0.1**2, 1 / 4, 0])  # off by 0.1 everywhere, by 1 at a quarter of the pixels, nowhere
    assert psnr_db(mse).tolist() == pytest.approx([20, 10 * np.log10(4), np.inf], abs=1e-5)


def test_codes_images_values_and_cost_are_written(shadow: Run, tmp_path: Path) -> None:
    result = invert(shadow, n=3, steps=7, seed=2, out=tmp_path / "o.png")
    images = shadow.data.held_out[1].images[:3].float() / 255
    assert shadow.model.calls == (7, 2) and result.calls_per_image == 7 and result.seconds > 0
    torch.testing.assert_close(result.images, images.clamp(max=0.5))
    mse = (images.clamp(max=0.5) - images).double().square().flatten(1).mean(1)
    assert result.psnr_db.tolist() == pytest.approx((-10 * mse.log10()).tolist(), rel=1e-5)
    with np.load(result.codes_file) as arrays:
        assert list(arrays) == ["noise"] == [result.kind]
        assert np.array_equal(arrays["noise"], result.codes.numpy()) and result.codes.shape == (3, 64)
    assert result.codes_file == tmp_path / "o.npz" and result.file == tmp_path / "o.json"
    document = json.loads(result.file.read_text())
    assert document["codes"] == "noise"
    assert [row["image"] for row in document["values"]] == ["0", "1", "2"] == list(result.names)
    assert [row["psnr_db"] for row in document["values"]] == pytest.approx(result.psnr_db.tolist())
    receipt = read_metadata(result.picture)
    assert (receipt["verb"], receipt["steps"], receipt["seed"]) == ("invert", 7, 2)
    assert receipt["weights"] == shadow.weights_id and np.asarray(Image.open(result.picture)).shape[0] > 2 * 64


def test_images_are_numbers_files_and_folders(shadow: Run, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for k in range(4):
        Image.new("L", (16, 16), 30 * k).save(folder / f"{k}.png")
    file = tmp_path / "one.png"
    Image.new("RGB", (8, 8), (90, 90, 90)).save(file)
    result = invert(shadow, 5, "3", file, folder, n=2, data="digits", out=tmp_path / "o.png")
    assert read_metadata(result.picture)["data"] == "digits"
    held_out = shadow.data.held_out[1].images[[5, 3]].float() / 255
    flat = torch.tensor([90, 0, 30])[:, None, None, None].expand(-1, 1, 8, 8) / 255
    torch.testing.assert_close(result.images, torch.cat([held_out, flat]).clamp(max=0.5))
    assert result.names == ("5", "3", str(file), str(folder / "0"), str(folder / "1"))
    values = json.loads(result.file.read_text())["values"]
    assert values[2]["psnr_db"] is None and result.psnr_db[2] == torch.inf  # exactly
    np.save(tmp_path / "code.npy", result.codes[2].numpy())
    assert interpolate(shadow, tmp_path / "code.npy", 1, out=tmp_path / "p.png").picture.exists()


def test_what_is_refused(run: Run, shadow: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not invert images.*models that do: .*gan.*diffusion"):
        invert(run)
    for images, message in (
        ((10**6,), "image 1000000 not found"),
        (("no.png",), r"no\.png not found"),
        ((tmp_path,), "no images|holds no"),
    ):
        with pytest.raises(UserError, match=message):
            invert(shadow, *images, out=tmp_path / "x" / "o.png")
    with pytest.raises(UserError, match="n=0: give a whole number of at least 1"):
        invert(shadow, n=0)
    with pytest.raises(UserError, match="steps=0"):
        shadow.invert(torch.zeros(1, 1, 8, 8), steps=0)
    assert not (tmp_path / "x").exists()


def test_on_the_command_line(gan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["invert", str(gan), "0", "4", "steps=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["image", "PSNR", "dB"] and [line.split()[0] for line in lines[1:3]] == ["0", "4"]
    values = {line.split()[0]: line.split()[-1] for line in lines[3:]}
    assert values["codes"].endswith("inversion.npz") and float(values["seconds"]) > 0
    assert lines[-1].split() == ["calls", "per", "image", "6"]  # of 8 starts for two images, and 2 steps


def test_a_gan_of_classes_takes_those_of_the_images(gan: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = {"steps": 1, "batch": 16, "width": 4, "latent": 5, "device": "cpu", "quiet": True}
    run = trilemma.train("gan", "digits", classes=True, out=out, **settings)
    result = invert(run, 0, 1)
    images, labels = run.data.held_out[1].images[:2].float() / 255, run.data.held_out[1].labels[:2]
    torch.testing.assert_close(result.codes, run.invert(images, labels))
    shutil.copy(run.path / "batch.png", tmp_path / "x.png")
    with pytest.raises(UserError, match="give label="):
        invert(run, tmp_path / "x.png")
    assert invert(run, tmp_path / "x.png", label=3).codes.shape == (1, 5)


def test_other_verbs_use_the_codes_and_say_what_they_cost(
    gan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = (
        lambda: reconstruct(gan, n=2, out=tmp_path / "a.png"),
        lambda: interpolate(gan, 0, 1, frames=2, animate=False, out=tmp_path / "b.png"),
        lambda: edit(gan, 0, towards="3", steps=2, out=tmp_path / "c.png"),
        lambda: traverse(gan, image=0, units=0, steps=2, out=tmp_path / "d.png"),
    )
    for call in calls:
        assert call().picture.exists()
        assert "gan has no encoder: the code of each image takes many network calls" in capsys.readouterr().err
    traverse(gan, units=0, steps=2, out=tmp_path / "d.png")
    assert "no encoder" not in capsys.readouterr().err


# kinds of codes


def test_a_file_of_codes_stands_for_its_image_where_codes_are_of_that_kind(gan: Path, tmp_path: Path) -> None:
    one, other = (invert(gan, k, steps=2, out=tmp_path / f"{k}.png") for k in (0, 1))
    assert one.kind == "z"
    walk = {"frames": 2, "how": "linear", "animate": False, "out": tmp_path / "w.png"}
    frames = interpolate(gan, one.codes_file, str(other.codes_file), **walk).frames["linear"]
    torch.testing.assert_close(frames, torch.cat([one.images, other.images]), rtol=0, atol=1e-5)


def test_styles_are_not_read_as_latents(styled: Run, tmp_path: Path) -> None:
    result = invert(styled, 0, out=tmp_path / "o.png")
    assert result.kind == "w"
    walk: dict[str, Any] = {"frames": 2, "how": "linear", "animate": False, "out": tmp_path / "w.png"}
    frames = interpolate(styled, result.codes_file, result.codes_file, **walk).frames["linear"]
    torch.testing.assert_close(frames, result.images.expand_as(frames))
    with pytest.raises(UserError, match=r"o\.npz holds styles w, and codes of vae are latents z here; give the image"):
        interpolate(styled, result.codes_file, "0,0", space="z", **walk)


def test_noise_is_not_read_as_a_code_of_an_encoder(run: Run, tmp_path: Path) -> None:
    """Of a model that has both, of one length: each verb that takes codes refuses the noise."""

    class Both(Shadow):
        def encode(self, image: Tensor, condition: object = None) -> Tensor:
            return image.flatten(1)

        def decode(self, z: Tensor, condition: object = None) -> Tensor:
            return z.unflatten(1, (1, 8, 8))

    run.model = Both()
    result = invert(run, 3, out=tmp_path / "o.png")
    assert result.kind == "noise" and result.codes.shape[1] == run.encode(torch.zeros(1, 1, 8, 8)).shape[1]
    for verb in (
        lambda: interpolate(run, result.codes_file, 1, out=tmp_path / "i.png"),
        lambda: edit(run, result.codes_file, towards="3", out=tmp_path / "e.png"),
        lambda: traverse(run, image=result.codes_file, out=tmp_path / "t.png"),
    ):
        with pytest.raises(
            UserError, match=r"o\.npz holds noise that .*are what its encoder gives here; give the image"
        ):
            verb()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.json", "o.npz", "o.png"]


def test_a_file_that_is_not_of_codes_is_refused(shadow: Run, tmp_path: Path) -> None:
    for arrays, names in (
        ({"images": np.zeros(64)}, "images"),
        ({"noise": np.zeros(64), "z": np.zeros(64)}, "noise, z"),
    ):
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(
            UserError, match=rf"a\.npz holds no codes: its arrays are {names}; give a file that `invert`"
        ):
            interpolate(shadow, tmp_path / "a.npz", 1, out=tmp_path / "o.png")
    many = invert(shadow, n=2, out=tmp_path / "o.png")
    with pytest.raises(UserError, match=r"a code is one row of numbers, .*; got shape \(2, 64\)"):
        interpolate(shadow, many.codes_file, 1, out=tmp_path / "i.png")


# spaces and directions


def test_the_way_between_codes_is_through_styles_or_through_latents(styled: Run, tmp_path: Path) -> None:
    def ends(space: str | None, a: str, b: str) -> Tensor:
        result = interpolate(styled, a, b, frames=3, how="linear", space=space, animate=False, out=tmp_path / "o.png")
        return result.frames["linear"][:, 0, 0, :3]

    for space in (None, "w"):
        expected = 0.5 + torch.tensor([[0.0, 0, 1], [3, 1, 1], [6, 2, 1]]) / 100
        torch.testing.assert_close(ends(space, "0,0,1", "6,2,1"), expected)
    torch.testing.assert_close(ends("z", "0,0", "2,2"), expected)
    assert read_metadata(tmp_path / "o.png")["space"] == "z" and styled.model.code_length == 3
    with pytest.raises(UserError, match=r"the code has 3 numbers; codes of .* have 2"):
        ends("z", "0,0,1", "6,2,1")


def test_a_space_that_a_model_does_not_have_is_refused(gan: Path, run: Run, tmp_path: Path) -> None:
    for what in (gan, run):
        with pytest.raises(UserError, match=r"space=w: .* has no styles w; leave space out"):
            interpolate(what, 0, 1, space="w", out=tmp_path / "o.png")
    assert interpolate(run, 0, 1, space="z", animate=False, out=tmp_path / "o.png").picture.exists()


def test_principal_components_of_a_known_covariance() -> None:
    """Codes whose sample covariance is exactly V diag(9, 4, 1) V'."""
    white = torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    white = torch.linalg.qr(white - white.mean(0)).Q * 500**0.5
    basis = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q.T
    mean = torch.tensor([1.0, -2.0, 3.0]).double()
    parts = white * torch.tensor([3.0, 2.0, 1.0])
    directions = of_spread(mean + parts @ basis)
    torch.testing.assert_close(directions.shares, torch.tensor([9.0, 4.0, 1.0]).double() / 14)
    torch.testing.assert_close((directions.basis @ basis.T).abs(), torch.eye(3).double(), rtol=0, atol=1e-9)
    assert (directions.basis.gather(1, directions.basis.abs().argmax(1, keepdim=True)) > 0).all()
    torch.testing.assert_close(directions.parts(mean + parts @ basis).abs(), parts.abs())
    torch.testing.assert_close(directions.codes(directions.parts(mean[None] + 1)), mean[None] + 1)


def test_directions_of_effect_under_a_linear_generator() -> None:
    """G(z) = A z: the right singular vectors of A; all of the variance, by their squared singular values. Noise that z
    does not explain takes its share of it."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(400, 3, generator=generator, dtype=torch.float64)
    z = torch.linalg.qr(z - z.mean(0)).Q * 400**0.5  # of variance 1 exactly
    u, v = (torch.linalg.qr(torch.randn(n, 3, generator=generator, dtype=torch.float64)).Q for n in (10, 3))
    images = z @ v @ torch.diag(torch.tensor([4.0, 2.0, 1.0]).double()) @ u.T
    directions = of_effect(z + 7, images + 1)
    torch.testing.assert_close(directions.shares, torch.tensor([16.0, 4.0, 1.0]).double() / 21)
    torch.testing.assert_close((directions.basis @ v).abs(), torch.eye(3).double(), rtol=0, atol=1e-9)
    even = (z**2 - 1) @ torch.ones(3, 10).double()
    even -= z @ torch.linalg.lstsq(z, even).solution
    total = 21 + even.var(0, correction=0).sum()
    torch.testing.assert_close(of_effect(z, images + even).shares.sum(), 21 / total)


def test_a_row_of_a_traversal_follows_a_direction_of_the_styles(styled: Run, tmp_path: Path) -> None:
    result = traverse(styled, span=2, steps=5, out=tmp_path / "o.png")
    assert result.units == (0, 1) and result.images.shape == (2, 5, 1, 8, 8)  # the third style is constant
    assert result.shares == pytest.approx([0.9, 0.1], abs=0.02)
    moved = (result.images[:, :, 0, 0, :3] - 0.5) * 100
    torch.testing.assert_close(moved[0, :, 0], torch.linspace(-6, 6, 5), rtol=0.05, atol=0.1)
    torch.testing.assert_close(moved[1, :, 1], torch.linspace(-2, 2, 5), rtol=0.05, atol=0.1)
    assert moved[0, :, 1].abs().max() < 0.6 and (moved[:, :, 2] - 1).abs().max() < 1e-3
    plane = traverse(styled, plane="0,1", steps=3, spacing="even", out=tmp_path / "p.png")
    assert plane.images.shape == (3, 3, 1, 8, 8) and plane.shares == result.shares
    named = traverse(styled, units=2, steps=2, out=tmp_path / "q.png")
    assert named.shares == pytest.approx([0], abs=1e-9)


def test_a_traversal_of_a_gan_without_styles(gan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trilemma.load(gan, device="cpu")
    with pytest.raises(UserError, match="data has no effect without image: gan"):
        traverse(run, data="mnist", out=tmp_path / "o.png")
    assert not list(tmp_path.iterdir())
    result = traverse(run, steps=3, out=tmp_path / "o.png")
    assert result.units == tuple(range(5)) and result.shares is not None
    assert list(result.shares) == sorted(result.shares, reverse=True) and 0.2 < sum(result.shares) <= 1
    assert main(["traverse", str(gan), "units=1,0", f"out={tmp_path / 'o.png'}"]) == 0
    assert f"1 ({result.shares[1]:.1%} of variance), 0 (" in capsys.readouterr().out


def test_models_whose_codes_are_noise_are_not_traversed(shadow: Run) -> None:
    with pytest.raises(UserError, match="does not traverse codes: it has no encoder"):
        traverse(shadow)


def test_detection_by_the_critic(gan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blank = Image.new("L", (1, 1))
    page = Page("", png_content(blank), blank, None)
    monkeypatch.setattr("trilemma.explore.detection.report.draw_report", lambda *_: page)  # takes a second
    run = trilemma.load(gan, device="cpu")
    result = trilemma.detect(run, n=60, false_alarms=0.1, out=tmp_path / "d")
    assert result.score == "critic" and set(result.scores) == {"critic", "pca", "pca-relative", "nearest"}
    images = run.data.splits["test"].images
    every = -run.model.realness(images.float() / 255).double()
    scores = result.scores["critic"]["normal"]
    assert len(scores) == 60 and all((every - score).abs().min() < 1e-5 for score in scores)
    high = scores > result.threshold
    assert len(result.flagged) == int(high.sum())
