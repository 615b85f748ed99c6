"""`imagine` with frames=: an animation and its frames, by pipelines of each kind with random weights."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from pretrained.films import save_adapted
from pretrained.folders import change_json

from trilemma import again, imagine
from trilemma.cli.main import main
from trilemma.errors import UserError
from trilemma.explore.film import SHOWN
from trilemma.pictures.levels import to_uint8
from trilemma.pictures.png import read_metadata
from trilemma.pretrained.content import content_id
from trilemma.pretrained.libraries import silence

SIZE = {"wan": 16, "cogvideox": 16, "ltx": 32}  # px, of the tiny pipelines that have no size of their own


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def levels(path):
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


@pytest.mark.slow
def test_a_film_is_an_animation_and_its_frames(folder_of):
    result = imagine(
        "a cat", model=folder_of("animatediff"), frames=4, steps=2, seed=3, fps=5, film="webp", out="o.png"
    )
    assert result.images.shape == (4, 3, 16, 16)
    assert [path.name for path in result.files] == [f"o-{k}.png" for k in range(4)]
    for image, path in zip(result.images, result.files, strict=True):
        assert torch.equal(to_uint8(image), levels(path))
    with Image.open(result.animation) as film:
        film.seek(2)
        film.load()
        assert (film.n_frames, film.info["duration"], film.size) == (4, 200, (16, 16))
        assert torch.equal(torch.from_numpy(np.array(film.convert("RGB"))).permute(2, 0, 1), to_uint8(result.images[2]))
    entry, frame = read_metadata(result.picture), read_metadata(result.files[2])
    assert (entry["frames"], entry["fps"], entry["frame"], frame["frame"]) == (4, 5, None, 2)
    assert entry["pipeline"] == "AnimateDiffPipeline" and set(entry["files"]) == {
        "o.webp",
        *(p.name for p in result.files),
    }
    other = imagine("a cat", model=folder_of("animatediff"), frames=4, steps=2, seed=3, first=1, out="p.png")
    assert (other.images - result.images).abs().max() > 0.01
    assert other.animation.name == "p.gif"


@pytest.mark.slow
def test_a_film_and_a_frame_of_it_are_made_again(folder_of):
    result = imagine("a cat", model=folder_of("animatediff"), frames=3, steps=1, out="o.gif")
    assert result.picture.name == "o.png" and result.animation.name == "o.gif"
    for path in (result.picture, result.files[1]):
        assert again(path).equal


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("adapted")
    with torch.random.fork_rng(), silence():
        torch.manual_seed(0)
        save_adapted(folder)
    return folder


@pytest.mark.slow
def test_a_stable_diffusion_with_a_motion_adapter_draws_the_film_of_both(adapted, tmp_path):
    adapter = shutil.copytree(adapted / "adapter", tmp_path / "adapter")
    keys = {"frames": 3, "steps": 2}
    result = imagine("a cat", model=adapted / "plain", adapter="adapter", out="o.png", **keys)
    assert torch.equal(result.images, imagine("a cat", model=adapted / "both", out="p.png", **keys).images)
    entry = read_metadata(result.picture)
    assert entry["pipeline"] == "AnimateDiffPipeline" and entry["drawn_by"]["beta_schedule"] == "linear"
    assert entry["adapter"] == str(adapter) and entry["adapter_origin"]["content"] == content_id(adapter)
    assert again(result.files[1]).equal
    change_json(adapter / "config.json", motion_max_seq_length=16)
    with pytest.raises(UserError, match="was made with another content of"):
        again(result.picture)


@pytest.mark.slow
def test_what_is_no_motion_adapter_is_refused(adapted, tiny, tmp_path):
    adapter = shutil.copytree(adapted / "adapter", tmp_path / "adapter")
    for keys, words in (
        ({"adapter": adapter}, "adapter= makes films; add frames="),
        ({"adapter": "absent", "frames": 3}, "adapter=absent: folder not found"),
        ({"adapter": adapted / "plain", "frames": 3}, "plain is not a MotionAdapter: it has no config.json"),
        ({"adapter": tiny / "unet", "frames": 3}, "unet is not a MotionAdapter"),
    ):
        with pytest.raises(UserError, match=words):
            imagine("a cat", model=adapted / "plain", **keys)
    with pytest.raises(UserError, match=r"both \(AnimateDiffPipeline\) takes no adapter="):
        imagine("a cat", model=adapted / "both", adapter=adapter, frames=3)
    with pytest.raises(UserError, match="cannot be loaded: "):
        imagine("a cat", model=tiny, adapter=adapter, frames=3)  # of other layers
    (adapter / "motion.py").write_text("")
    with pytest.raises(UserError, match=r"motion\.py is code"):
        imagine("a cat", model=adapted / "plain", adapter=adapter, frames=3)
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "frames"), [("ltx", 9), ("wan", 5), ("cogvideox", 9)])
def test_each_kind_draws_a_film_from_a_text(folder_of, kind, frames):
    keys = {"model": folder_of(kind), "frames": frames, "steps": 1, "size": SIZE[kind]}
    result = imagine("a cat", out="o.png", **keys)
    assert result.images.shape == (frames, 3, SIZE[kind], SIZE[kind])
    assert again(result.files[1]).equal
    assert (imagine("a cat", seed=1, out="p.png", **keys).images - result.images).abs().max() > 1e-3


@pytest.mark.slow
def test_a_film_from_an_image(folder_of, photo):
    pytest.importorskip("av")
    result = imagine("", model=folder_of("svd"), frames=3, steps=1, image=photo, out="o.png", film="mp4", fps=4)
    assert result.images.shape == (3, 3, 32, 40) and result.animation.read_bytes()[4:8] == b"ftyp"
    assert set(read_metadata(result.picture)["sums"]) == {"image"}
    assert again(result.files[2]).equal
    with pytest.raises(UserError, match="draws from an image; give image="):
        imagine("", model=folder_of("svd"), frames=3)
    with pytest.raises(UserError, match="reads no text, only an image"):
        imagine("a cat", model=folder_of("svd"), frames=3, image=photo)


@pytest.mark.slow
def test_frames_that_do_not_suit_a_model_are_said(folder_of, capsys):
    result = imagine("a cat", model=folder_of("wan"), frames=7, steps=1, size=16, out="o.png")
    assert len(result.images) == len(result.files) == 5
    assert "draws 5 frames where 7 are asked for" in capsys.readouterr().err


@pytest.mark.slow
def test_a_long_film_shows_some_frames(folder_of):
    result = imagine("a cat", model=folder_of("animatediff"), frames=20, steps=1, out="o.png")
    assert len(result.files) == 20
    assert again(result.picture).equal
    width, height = Image.open(result.picture).size
    assert width == 4 + 4 * (16 + 4) and SHOWN == 16 and height > 4 * 16


@pytest.mark.slow
def test_what_films_do_not_take_is_refused(tiny, folder_of, photo, capsys):
    animatediff = folder_of("animatediff")
    with pytest.raises(UserError, match=r"StableDiffusionPipeline\) draws no films; leave frames= out"):
        imagine("a cat", model=tiny, frames=4)
    with pytest.raises(UserError, match=r"AnimateDiffPipeline\) draws films; give frames="):
        imagine("a cat", model=animatediff)
    for keys in ({"n": 2}, {"x": "steps:1,2"}):
        with pytest.raises(UserError, match="frames= makes one film"):
            imagine("a cat", model=animatediff, frames=4, **keys)
    with pytest.raises(UserError, match="fps= needs frames="):
        imagine("a cat", model=animatediff, fps=4)
    with pytest.raises(UserError, match="does not take image="):
        imagine("a cat", model=animatediff, frames=4, image=photo)
    assert main(["imagine", "a cat", f"model={animatediff}", "film=webp"]) == 2
    assert "add frames=" in capsys.readouterr().err
    assert main(["imagine", "a cat", f"model={tiny}", "film=webp"]) == 2
    assert "draws images from a text: leave film= out" in capsys.readouterr().err
