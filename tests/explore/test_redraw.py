"""`edit` with a diffusion model: masks bit for bit, strength 0, noise, and what does not fit together."""

import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import trilemma
from trilemma.cli import main as cli
from trilemma.errors import UserError
from trilemma.explore.redraw import noise_of, read_mask
from trilemma.pictures.png import read_metadata

SMALL = {"width": 8, "multipliers": (1, 2), "depth": 1, "batch": 32, "steps": 4, "quiet": True, "device": "cpu"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> trilemma.Run:
    return trilemma.train("diffusion", "digits", out=tmp_path_factory.mktemp("redraw") / "run", **SMALL)


@pytest.fixture(scope="module")
def with_classes(tmp_path_factory: pytest.TempPathFactory) -> trilemma.Run:
    out = tmp_path_factory.mktemp("redraw") / "classes"
    return trilemma.train("diffusion", "digits", classes=True, out=out, **SMALL)


def held_out(run: trilemma.Run, number: int) -> torch.Tensor:
    return run.data.held_out[1].images[number].float() / torch.tensor(255.0)


def test_pixels_outside_the_mask_are_bit_identical(model: trilemma.Run, tmp_path: Path) -> None:
    result = trilemma.edit(model, 3, mask="0,0,4,8", rounds=2, steps=3, n=5, data="digits", out=tmp_path / "e.png")
    assert result.images.shape == (5, 1, 8, 8) and result.mask is not None
    original = held_out(model, 3)
    assert torch.equal(result.images[..., 4:], original[..., 4:].expand(5, 1, 8, 4))
    assert (result.images[0, :, :, :4] - result.images[1, :, :, :4]).abs().max() > 1e-3
    assert Image.open(result.picture).size[0] > 0 and result.noise is None
    assert [path.name for path in result.files] == [f"e-{k}.png" for k in range(5)]
    source = model.data.held_out[1].images[3, 0].numpy()
    for path in result.files:
        assert np.array_equal(np.asarray(Image.open(path))[:, 4:], source[:, 4:])
    receipt = read_metadata(result.files[4])
    assert (receipt["verb"], receipt["first"], receipt["n"], receipt["mask"]) == ("edit", 4, 1, "0,0,4,8")
    assert receipt["data"] == "digits"


def test_an_image_depends_on_its_own_number(model: trilemma.Run, tmp_path: Path) -> None:
    keys = {"mask": "0,0,4,8", "rounds": 2, "steps": 3, "seed": 5}
    many = trilemma.edit(model, 3, **keys, n=4, out=tmp_path / "m.png").images
    one = trilemma.edit(model, 3, **keys, n=1, first=2, out=tmp_path / "o.png").images
    assert (many[2] - one[0]).abs().max() <= 1 / 255
    other = trilemma.edit(model, 3, **{**keys, "seed": 6}, n=1, first=2, out=tmp_path / "s.png").images
    assert (other - one).abs().max() > 1e-3


def test_strength_0_is_the_image_and_more_changes_more(model: trilemma.Run, tmp_path: Path) -> None:
    original = held_out(model, 7)
    results = [
        trilemma.edit(model, 7, strength=s, n=2, steps=5, out=tmp_path / f"{s}.png").images for s in (0.0, 0.3, 1.0)
    ]
    assert torch.equal(results[0], original.expand(2, 1, 8, 8))
    small, large = ((images - original).square().mean() for images in results[1:])
    assert 0 < small < large


def test_noise_is_estimated_or_given(model: trilemma.Run, tmp_path: Path) -> None:
    result = trilemma.edit(model, 7, noise="auto", n=1, steps=4, out=tmp_path / "a.png")
    assert result.noise == noise_of(held_out(model, 7)[None]) > 0
    Image.new("L", (8, 8), 90).save(tmp_path / "flat.png")
    with pytest.raises(UserError, match="noise=auto: no noise is seen in this image; give noise= as a number"):
        trilemma.edit(model, tmp_path / "flat.png", noise="auto")
    given = trilemma.edit(model, 7, noise=0.2, steps=4, out=tmp_path / "g.png")
    assert given.noise == 0.2 and len(given.images) == 1  # nothing is random in it
    drawn = trilemma.edit(model, 7, noise=0.2, steps=4, sampler="ddpm", n=2, out=tmp_path / "d.png")
    assert not torch.equal(drawn.images[0], drawn.images[1])


@pytest.mark.parametrize(("typed", "used"), [("0.2", 0.2), ("1", 1.0)])
def test_noise_as_a_number_on_the_command_line(
    model: trilemma.Run, tmp_path: Path, typed: str, used: float, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["edit", str(model.path), "7", "steps=2", f"out={tmp_path / 'n.png'}"]
    assert cli.main([*words, f"noise={typed}"]) == 0
    assert read_metadata(tmp_path / "n.png")["noise"] == used
    assert cli.main([*words, "noise=25"]) == 2
    assert (
        "noise=25: give a number above 0 and up to 1 (for levels of 255 give 25/255 = 0.098)" in capsys.readouterr().err
    )
    assert cli.main([*words, "noise=auto"]) == 0


def test_noise_as_a_number_is_that_of_the_resized_image_which_is_said(
    model: trilemma.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    levels = np.random.default_rng(0).integers(90, 160, (32, 32), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "large.png")
    Image.fromarray(levels[:8, :12]).save(tmp_path / "cut.png")  # as large as the model's images, but wider
    for name in ("large", "cut"):
        result = trilemma.edit(model, tmp_path / f"{name}.png", noise=0.1, steps=2, out=tmp_path / "e.png")
        text = f"noise=0.1 is taken out of {name}.png after it was resized, where its noise is about "
        text += f"{noise_of(result.source):.2g}; noise=auto takes out that"
        assert (text in capsys.readouterr().err) == (name == "large") and result.noise == 0.1
    trilemma.edit(model, tmp_path / "large.png", noise="auto", steps=2, out=tmp_path / "e.png")
    assert "is taken out of" not in capsys.readouterr().err


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    """A folder of five images."""
    folder, levels = tmp_path / "drawings", np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    folder.mkdir()
    for k, image in enumerate(levels):
        Image.fromarray(image).save(folder / f"{k}.png")
    return folder


def test_each_image_of_a_folder_is_drawn_again_with_the_noise_of_its_number(
    model: trilemma.Run, drawings: Path, tmp_path: Path
) -> None:
    keys = {"strength": 0.5, "steps": 3}
    whole = trilemma.edit(model, drawings, **keys)
    assert whole.picture == model.path / "edit-drawings-strength-0.5.png"
    assert [path.name for path in whole.files] == [f"edit-drawings-strength-0.5-{k}.png" for k in range(5)]
    pixels = np.stack([np.asarray(Image.open(drawings / f"{k}.png")) for k in range(5)])
    assert torch.equal(whole.source, torch.from_numpy(pixels)[:, None].float() / torch.tensor(255.0))
    part = trilemma.edit(model, drawings, **keys, first=2, n=2, out=tmp_path / "part.png")
    assert torch.equal(part.source, whole.source[2:4]) and (part.images - whole.images[2:4]).abs().max() <= 1 / 255
    one = trilemma.edit(model, drawings / "3.png", **keys, first=3, n=1, out=tmp_path / "one.png")
    assert (one.images - whole.images[3:4]).abs().max() <= 1 / 255 < (one.images - one.source).abs().max()
    receipt = read_metadata(part.files[1])
    assert (receipt["image"], receipt["first"], receipt["n"]) == (str(drawings), 3, 1)
    unchanged = trilemma.edit(model, drawings, strength=0.0, animate=True, out=tmp_path / "none.png")
    assert torch.equal(unchanged.images, whole.source) and unchanged.animation == tmp_path / "none.gif"


def test_a_folder_of_more_images_than_a_call_draws(
    model: trilemma.Run, drawings: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(import_module("trilemma.explore.redraw"), "MOST", 3)
    keys = {"strength": 0.5, "steps": 1, "out": tmp_path / "e.png"}
    assert len(trilemma.edit(model, drawings, **keys).images) == 3
    assert "images 0 to 2 of 5 are drawn again; for the next give first=3" in capsys.readouterr().err
    assert len(trilemma.edit(model, drawings, **keys, first=3).images) == 2 and not capsys.readouterr().err
    for wrong, text in (({"first": 5}, "has 5 images, numbered from 0"), ({"mask": "0,0,4,8"}, "take strength= alone")):
        with pytest.raises(UserError, match=text):
            trilemma.edit(model, drawings, **keys, **wrong)
    with pytest.raises(UserError, match="take strength= alone; with mask= or noise= give one image"):
        trilemma.edit(model, drawings, noise=0.1)


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        ({"mask": "0,0,4,8", "rounds": 2}, ["0%", *["50% step 1 of 2"] * 2, "100% step 2 of 2"]),
        (
            {"strength": 1.0, "animate": True},
            ["0% part 1 of 2", "50% part 2 of 2", "75% part 2 of 2, step 1 of 2", "100% part 2 of 2, step 2 of 2"],
        ),
    ],
)
def test_progress_is_shown(
    model: trilemma.Run, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, keys: dict, shown: list[str]
) -> None:
    """A strength of 0, with which an animation begins, takes no step."""
    monkeypatch.setattr(import_module("trilemma.progress"), "PLAIN_EVERY_S", 0.0)
    monkeypatch.setattr(import_module("trilemma.explore.redraw"), "FRAMES", 2)
    trilemma.edit(model, 3, **keys, n=2, steps=2, out=tmp_path / "e.png")
    lines = [re.sub(r"% \S+", "%", " ".join(line.split())) for line in capsys.readouterr().err.splitlines()]
    assert lines == [f"drawing {text}" for text in shown]


def test_files_are_named_after_the_image_and_what_is_asked(model: trilemma.Run, with_classes, tmp_path: Path) -> None:
    result = trilemma.edit(model, 3, strength=0.5, n=1, steps=2, animate=True, guide=with_classes.path, guidance=1.5)
    assert result.picture == model.path / "edit-3-strength-0.5.png" and result.animation is not None
    assert result.animation == model.path / "edit-3-strength-0.5.gif" and result.animation.exists()
    assert read_metadata(result.files[0])["guide"]["model"] == "diffusion"
    Image.new("L", (8, 8), 90).save(tmp_path / "flat.png")
    masked = trilemma.edit(model, tmp_path / "flat.png", mask="0,0,4,8", n=1, steps=2, rounds=1)
    assert masked.picture == model.path / "edit-flat-mask.png" and masked.animation is None


def test_a_class_is_asked_for(with_classes: trilemma.Run, tmp_path: Path) -> None:
    keys = {"mask": "0,0,8,8", "rounds": 1, "steps": 3, "n": 1, "guidance": 2.0}
    one, other = (
        trilemma.edit(with_classes, 3, **keys, label=label, out=tmp_path / f"{label}.png").images
        for label in ("1", "7")
    )
    assert not torch.equal(one, other)
    plain = trilemma.edit(with_classes, 3, mask="0,0,8,8", rounds=1, steps=3, n=1, out=tmp_path / "p.png").images
    assert plain.isfinite().all()


def test_masks_by_hand(tmp_path: Path) -> None:
    area = read_mask("1,2,3,5", (1, 6, 4))[0, 0]
    assert area.sum() == 2 * 3 and area[2:5, 1:3].all()
    assert torch.equal(read_mask("outside:1,2,3,5", (1, 6, 4))[0, 0], 1 - area)
    Image.fromarray(np.uint8(255 * area.numpy())).save(tmp_path / "m.png")
    assert torch.equal(read_mask(str(tmp_path / "m.png"), (3, 6, 4))[0, 0], area)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_in_a_mask_stays(tmp_path: Path, mode: str) -> None:
    """White strokes on a transparent ground, whatever colour lies under it."""
    strokes = np.zeros((6, 4), np.uint8)
    strokes[2:5, 1:3] = 255
    image = Image.fromarray(np.dstack([np.full((6, 4, 3), 255, np.uint8), strokes]))
    (image.quantize(4) if mode == "P" else image.convert(mode)).save(tmp_path / "m.png")
    area = read_mask(str(tmp_path / "m.png"), (3, 6, 4))[0, 0]
    assert torch.equal(area, torch.from_numpy(strokes / 255).float())


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (
            "4,4,4,4",
            r"mask=4,4,4,4 holds no pixel of an image of 8x8 \(height x width\); give a rectangle left,top,right,"
            "bottom within 0,0,8,8, or an image file that is white where pixels are drawn",
        ),
        ("9,9,12,12", "holds no pixel"),
        ("outside:0,0,8,8", "holds no pixel"),
        ("outside:4,4,4,4", "mask=outside:4,4,4,4: the rectangle holds no pixel of an image of 8x8"),
        ("outside:9,9,12,12", "mask=outside:9,9,12,12: the rectangle holds no pixel"),
        (
            "outside:black.png",
            "mask=outside:black.png: outside: takes a rectangle left,top,right,bottom in px, such as "
            "mask=outside:0,0,4,8; in an image file, exchange black and white instead",
        ),
        ("black.png", r"mask=black\.png holds no pixel of an image of 8x8 .*white where pixels are drawn"),
        ("1,2,3", "mask=1,2,3: file not found; give an image file, or a rectangle left,top,right,bottom"),
        ("nowhere.png", "mask=nowhere.png: file not found"),
        ("~nobody-here/m.png", "mask=~nobody-here/m.png: file not found"),
        (
            "large.png",
            r"large.png is 16x16, the model's images are 8x8 \(height x width\); give a mask of that size, or a rect",
        ),
    ],
)
def test_masks_that_do_not_fit(model: trilemma.Run, tmp_path: Path, monkeypatch, mask: str, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((16, 16), 255, np.uint8)).save("large.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("black.png")
    before = set(model.path.glob("edit*"))
    with pytest.raises(UserError, match=text):
        trilemma.edit(model, 3, mask=mask)
    assert set(model.path.glob("edit*")) == before


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({}, "edit needs towards=, a class or a group of images; or for a diffusion model strength=, mask= or noise="),
        ({"rounds": 2}, "edit needs towards="),
        ({"strength": 0.5, "rounds": 2}, "rounds= belongs to mask=; leave it out"),
        ({"strength": 0.5, "shift": 2.0}, "away= and shift= belong to towards="),
        ({"noise": 0.1, "strength": 0.5}, "noise= takes out the noise of the image itself"),
        (
            {"noise": 25.0},
            r"noise=25: give a number above 0 and up to 1 \(for levels of 255 give 25/255 = 0.098\) or auto or none$",
        ),
        ({"noise": 1.01}, "noise=1.01: give a number above 0 and up to 1"),
        ({"strength": 1.5}, "strength=1.5: give a number of at least 0 and up to 1"),
        ({"strength": -0.1}, "strength=-0.1: give a number of at least 0 and up to 1"),
        ({"strength": float("nan")}, "strength=nan: give a finite number of at least 0 and up to 1"),
        (
            {"strength": 0.5, "caption": "a 3"},
            "does not take a caption: .*; train it with captions=true, or choose one of",
        ),
        ({"strength": 0.5, "towards": "1"}, "towards= moves the code of the image, and strength= is for images that"),
        ({"n": 2, "towards": "1"}, "and n= is for images that are drawn again; leave one out"),
        ({"seed": 1, "towards": "1"}, "and seed= is for"),
        ({"first": 1, "towards": "1"}, "and first= is for"),
        ({"film": "webp", "towards": "1"}, "and film= is for"),
        ({"strength": 0.5, "film": "webp"}, "film=webp is the format of an animation; give animate=true, or leave"),
        (
            {"strength": 0.5, "label": "1"},
            "was trained without labels; train it with classes=true, or choose one of vae-",
        ),
        ({"towards": "1", "guidance": 2.0}, 'unknown key "guidance"'),
        ({"mask": "0,0,4,8", "sampler": "heun"}, "sampler=heun: with mask= the steps are those of ddpm"),
        ({"mask": "0,0,4,8", "sampler": "ddim", "eta": 0.5}, "with mask= the steps are those of ddpm"),
        ({"strength": 0.5, "classifier": "auto"}, "classifier=auto leads to a class; add label="),
        ({"noise": 0.1, "n": 2}, "n=2: nothing is random where noise is taken out; leave n= out, or add sampler=ddpm"),
    ],
)
def test_what_does_not_fit_together(model: trilemma.Run, keys: dict, text: str) -> None:
    with pytest.raises(UserError, match=text):
        trilemma.edit(model, 3, **keys)


def test_guidance_needs_something_to_lead_to(with_classes: trilemma.Run) -> None:
    with pytest.raises(UserError, match="guidance=2 leads to a class or a caption; add label= or caption="):
        trilemma.edit(with_classes, 3, strength=0.5, guidance=2.0)


@pytest.mark.slow
def test_rounds_are_of_models_without_masks_in_their_training(tmp_path: Path) -> None:
    run = trilemma.train("diffusion-inpaint", "digits", out=tmp_path / "run", **SMALL)
    with pytest.raises(UserError, match="rounds=3: this model was trained with masks and takes each step once"):
        trilemma.edit(run, 3, mask="0,0,4,8", rounds=3)
    result = trilemma.edit(run, 3, mask="0,0,4,8", sampler="heun", steps=2, n=1, out=tmp_path / "e.png")
    assert torch.equal(result.images[..., 4:], result.source[..., 4:])


@pytest.mark.slow
def test_diffusion_small_draws_again_and_has_codes(tmp_path: Path) -> None:
    keys = {"widths": (8, 8), "T": 60, "batch": 32, "steps": 4, "quiet": True, "device": "cpu"}
    run = trilemma.train("diffusion-small", "digits", out=tmp_path / "run", **keys)
    original = held_out(run, 3)
    masked = trilemma.edit(run, 3, mask="0,0,4,8", steps=4, n=2, out=tmp_path / "m.png")
    assert torch.equal(masked.images[..., 4:], original[..., 4:].expand(2, 1, 8, 4))
    assert not torch.equal(masked.images[0], masked.images[1])
    nothing = trilemma.edit(run, 3, strength=0.0, n=1, out=tmp_path / "s.png").images
    assert torch.equal(nothing, original[None])
    assert len(trilemma.edit(run, 3, noise=0.1, steps=10, out=tmp_path / "n.png").images) == 1
    codes = trilemma.invert(run, 3, out=tmp_path / "i.png")
    assert codes.kind == "noise" and codes.codes.shape == (1, 64)
    walk = trilemma.interpolate(run, codes.codes_file, "seed:1", frames=2, animate=False, out=tmp_path / "w.png")
    torch.testing.assert_close(walk.frames["linear"][:1], codes.images, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_model_of_few_calls_draws_again(model: trilemma.Run, tmp_path: Path) -> None:
    keys = {"batch": 32, "steps": 2, "quiet": True, "device": "cpu"}
    run = trilemma.train("diffusion-few", "digits", init=model, out=tmp_path / "run", **keys)
    original = held_out(run, 3)
    masked = trilemma.edit(run, 3, mask="0,0,4,8", n=2, out=tmp_path / "m.png")
    assert torch.equal(masked.images[..., 4:], original[..., 4:].expand(2, 1, 8, 4))
    assert not torch.equal(masked.images[0], masked.images[1])
    assert len(trilemma.edit(run, 3, noise=0.1, out=tmp_path / "n.png").images) == 1
    for asked, text in (
        ({"noise": 0.1, "n": 2}, r"n=2: nothing is random where noise is taken out; leave n= out$"),
        ({"noise": 0.1, "steps": 2}, "steps=2: the noise of an image is taken out in one call; leave steps out"),
        ({"strength": 0.5, "sampler": "ddim"}, 'unknown key "sampler"'),
    ):
        with pytest.raises(UserError, match=text):
            trilemma.edit(run, 3, **asked)
    with pytest.raises(UserError, match=r"diffusion-few does not invert images.*models that do: .*diffusion-small"):
        trilemma.invert(run, 3)


def test_an_image_much_larger_than_the_model_is_resized_which_is_said(
    model: trilemma.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.full((400, 900, 3), 90, np.uint8)).save(tmp_path / "wide.png")
    result = trilemma.edit(model, tmp_path / "wide.png", strength=0.5, n=1, steps=2, out=tmp_path / "e.png")
    assert result.images.shape == result.source.shape == (1, 1, 8, 8)
    note = capsys.readouterr().err
    assert "wide.png: 400x900 colour (height x width), brought to 8x8 grey; 56% of it is cut off" in note  # 500 of 900


def test_a_mask_of_the_file_is_cut_as_the_file_is(model: trilemma.Run, tmp_path: Path) -> None:
    photograph = np.random.default_rng(0).integers(0, 256, (16, 24), dtype=np.uint8)
    Image.fromarray(photograph).save(tmp_path / "photo.png")
    mask = np.zeros((16, 24), np.uint8)
    mask[:, :12] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    asked = {"mask": str(tmp_path / "mask.png"), "rounds": 1, "steps": 2, "n": 1}
    result = trilemma.edit(model, tmp_path / "photo.png", **asked, out=tmp_path / "e.png")
    assert result.mask is not None and torch.equal(result.mask[0, 0, :, :4], torch.ones(8, 4))
    assert not result.mask[0, 0, :, 4:].any()  # the middle 16 x 16 of 16 x 24, at half its size
    with pytest.raises(UserError, match=r"mask.png is 16x24, the model's images are 8x8"):
        trilemma.edit(model, 3, **asked)


def test_a_model_without_noise_is_refused_with_those_that_have_it(tmp_path: Path) -> None:
    run = trilemma.train("vae", "digits", steps=1, batch=16, out=tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match=r"vae does not draw an image again.*diffusion"):
        trilemma.edit(run, 3, strength=0.5)


@pytest.mark.parametrize("std", [0.02, 0.1])
@pytest.mark.parametrize("channels", [1, 3])
def test_noise_is_estimated_on_a_smooth_image(std: float, channels: int) -> None:
    y, x = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 64), indexing="ij")
    image = (0.3 + 0.2 * x + 0.1 * y + 0.1 * (6 * x).sin()).double().expand(1, channels, 64, 64)
    assert noise_of(image) < 0.002
    assert noise_of(
        image + std * torch.randn(1, channels, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ) == pytest.approx(std, rel=0.06)
