"""`imagine` on a tiny pipeline with random weights: files, receipts, grids, and the same pictures again."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pretrained.folders import change_json
from pretrained.hub import COMMIT, publishing

import trilemma
from trilemma import again, imagine, progress
from trilemma.cli import main as cli
from trilemma.errors import UserError
from trilemma.explore import prompted
from trilemma.explore.axes import axis
from trilemma.explore.prompted import AXES, TEXTS
from trilemma.files import sha256_of
from trilemma.pictures.levels import to_uint8
from trilemma.pictures.png import read_metadata, save_png


@pytest.fixture
def photo(tmp_path):
    pixels = np.zeros((70, 67, 3), np.uint8)
    pixels[:, 30:] = (200, 30, 60)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture(scope="module")
def picture(tiny, tmp_path_factory):
    return imagine("a cat", model=tiny, steps=1, out=tmp_path_factory.mktemp("one") / "o.png")


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def is_made_again(*paths):
    for path in paths:
        result = again(path)
        assert result.equal and result.difference == 0 and result.changed == (), path
        assert np.array_equal(pixels(result.picture), pixels(path))


def test_one_image_is_one_file_that_says_how_it_was_made(tiny):
    result = imagine("a red cat", model=tiny, steps=2, seed=3, first=5, negative="blue")
    assert result.files == [result.picture] and result.images.shape == (1, 3, 64, 64)
    assert np.array_equal(pixels(result.picture), to_uint8(result.images[0]).permute(1, 2, 0).numpy())
    entry = read_metadata(result.picture)
    scheduler = json.loads((tiny / "scheduler/scheduler_config.json").read_text("utf-8"))
    assert entry["drawn_by"]["scheduler"] == "DDIMScheduler"
    assert {k: v for k, v in entry["drawn_by"].items() if k in scheduler} == {
        k: v for k, v in scheduler.items() if k[:1] != "_"
    }
    wanted = {"prompts": ["a red cat"], "seed": 3, "first": 5, "n": 1, "steps": 2, "negative": "blue", "size": None}
    assert {key: entry[key] for key in wanted} == wanted
    assert entry["pixels"] == [64, 64] and entry["folder"] == str(tiny) and len(entry["content"]) == 16
    assert entry["diffusers"] and entry["torch"] == torch.__version__ and entry["precision"] == "float32"
    is_made_again(result.picture)


@pytest.mark.slow
def test_an_image_is_the_same_in_any_call(tiny, tmp_path):
    several = imagine("a red cat", model=tiny, steps=2, n=3, out=tmp_path / "o.png")
    assert [path.name for path in several.files] == ["o-0.png", "o-1.png", "o-2.png"]
    alone = imagine("a red cat", model=tiny, steps=2, first=1, out=tmp_path / "p.png")
    assert torch.equal(alone.images[0], several.images[1])
    assert read_metadata(alone.picture) == read_metadata(several.files[1])
    is_made_again(several.picture, several.files[2])


def test_prompts_of_a_file_have_a_row_each(tiny, tmp_path):
    (tmp_path / "p.txt").write_text("a cat\n\n  a dog \n", "utf-8")
    result = imagine(tmp_path / "p.txt", model=tiny, steps=1, n=2, first=4, out=tmp_path / "o.png")
    assert [path.name for path in result.files] == ["o-0-4.png", "o-0-5.png", "o-1-4.png", "o-1-5.png"]
    entries = [read_metadata(path) for path in result.files]
    assert [(e["prompts"], e["first"], e["n"]) for e in entries] == [
        (["a cat"], 4, 1), (["a cat"], 5, 1), (["a dog"], 4, 1), (["a dog"], 5, 1),
    ]  # fmt: skip
    assert torch.equal(imagine("a dog", model=tiny, steps=1, first=5).images[0], result.images[3])


@pytest.mark.slow
def test_pictures_of_several_prompts_are_made_again(tiny, tmp_path):
    (tmp_path / "p.txt").write_text("a cat\na dog", "utf-8")
    result = imagine("p.txt", model=tiny, steps=1, n=2, out="o.png")
    is_made_again(result.picture, result.files[3])


@pytest.mark.slow
def test_a_grid_varies_two_keys_and_each_cell_has_its_receipt(tiny, tmp_path):
    result = imagine("a cat", model=tiny, x="steps:1,2,3", y="guidance:0,4", out=tmp_path / "o.png")
    assert [path.name for path in result.files] == [f"o-{row}-{column}.png" for row in (0, 1) for column in (0, 1, 2)]
    entries = [read_metadata(path) for path in result.files]
    assert [(e["steps"], e["guidance"]) for e in entries] == [(1, 0), (2, 0), (3, 0), (1, 4), (2, 4), (3, 4)]
    assert all(e["x"] is None and e["y"] is None for e in entries)
    assert torch.equal(imagine("a cat", model=tiny, steps=2, guidance=4).images[0], result.images[4])
    width, height = Image.open(result.picture).size
    assert width == 4 + 3 * (64 + 4) and height > 2 * 64
    is_made_again(result.picture, result.files[4])


@pytest.mark.slow
def test_a_grid_of_schedulers_ends_with_that_of_the_model(tiny, tmp_path):
    x = "scheduler:EulerDiscreteScheduler,DDIMScheduler"
    result = imagine("a cat", model=tiny, steps=2, x=x, out=tmp_path / "o.png")
    names = [read_metadata(path)["drawn_by"]["scheduler"] for path in result.files]
    assert names == ["EulerDiscreteScheduler", "DDIMScheduler"]
    assert read_metadata(result.picture)["drawn_by"]["scheduler"] == "DDIMScheduler"
    assert torch.equal(imagine("a cat", model=tiny, steps=2).images[0], result.images[1])


@pytest.mark.slow
def test_prompts_and_sizes_vary_and_smaller_images_have_a_white_margin(tiny, tmp_path):
    x, y = "prompt:red cat|dog, asleep", "size:32,48x64"
    result = imagine("a {}, in oil", model=tiny, steps=1, x=x, y=y, out=tmp_path / "o.png")
    prompts, sizes = ("a red cat, in oil", "a dog, asleep, in oil"), ((32, 32), (48, 64))
    entries = [read_metadata(path) for path in result.files]
    assert [(e["prompts"], e["size"]) for e in entries] == [([p], [*size]) for size in sizes for p in prompts]
    assert [pixels(path).shape[:2] for path in result.files] == [sizes[0], sizes[0], sizes[1], sizes[1]]
    assert result.images.shape == (4, 3, 48, 64)
    assert (result.images[:2, :, 32:] == 1).all() and (result.images[:2, :, :, 32:] == 1).all()
    alone = imagine(prompts[1], model=tiny, steps=1, size="48x64").images[0]
    assert torch.equal(alone, result.images[3]) and not torch.equal(alone, result.images[2])
    is_made_again(result.picture, result.files[1], result.files[2])


@pytest.mark.slow
def test_images_and_masks_vary(tiny, tmp_path):
    before = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    for name, image in zip("ab", before, strict=True):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    x, y = "image:a.png,b.png", "mask:none|0,0,40,64"
    result = imagine("a cat", model=tiny, steps=2, x=x, y=y, out="o.png")
    after = np.stack([pixels(path) for path in result.files])
    assert np.array_equal(after[2:, :, 40:], before[:, :, 40:])
    assert not any(np.array_equal(one[:, 40:], image[:, 40:]) for one, image in zip(after[:2], before, strict=True))
    assert torch.equal(imagine("a cat", model=tiny, steps=2, image="b.png").images[0], result.images[1])
    hashes = [sha256_of(tmp_path / f"{name}.png") for name in "ab"]
    both = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    assert read_metadata(result.picture)["sums"] == {"image": both}
    assert [read_metadata(path)["sums"] for path in result.files] == [{"image": one} for one in (*hashes, *hashes)]
    is_made_again(result.picture, result.files[3])
    Image.new("RGB", (64, 64)).save("b.png")
    with pytest.raises(UserError, match="files that are not here, or have changed since"):
        again(result.picture)


@pytest.mark.slow
def test_loras_vary_and_none_of_them_stays(tiny, lora, tmp_path):
    copy = shutil.copy(lora, tmp_path / "style.safetensors")
    x = "lora:none,style.safetensors"
    result = imagine("a cat", model=tiny, x=x, y="steps:1,2", out="o.png")
    plain, styled = (imagine("a cat", model=tiny, steps=2, lora=one, out="p.png").images[0] for one in (None, copy))
    assert torch.equal(result.images[2], plain) and torch.equal(result.images[3], styled)
    assert not torch.equal(plain, styled)
    entries = [read_metadata(path) for path in result.files]
    assert [entry["lora"] for entry in entries] == [None, str(copy), None, str(copy)]
    assert entries[0]["sums"] == {} and read_metadata(result.picture)["sums"] == entries[1]["sums"] != {}
    is_made_again(result.picture, result.files[2], result.files[3])


@pytest.mark.slow
def test_an_image_is_drawn_again_and_made_again(tiny, photo, tmp_path):
    result = imagine("a cat", model=tiny, steps=2, image=photo, strength=0.5, out=tmp_path / "o.png")
    assert result.images.shape == (1, 3, 64, 64)  # 70x67, cut to multiples of 8
    assert set(read_metadata(result.picture)["sums"]) == {"image"}
    is_made_again(result.picture)
    Image.new("RGB", (64, 64)).save(photo)
    with pytest.raises(UserError, match=rf"not here, or have changed since: image={re.escape(str(photo))}$"):
        again(result.picture)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "drawn"), [("50x60", (48, 56)), ("67", (64, 64))])
def test_an_image_at_a_size_that_is_no_whole_multiple_is_made_again(tiny, photo, size, drawn):
    result = imagine("a cat", model=tiny, steps=2, image=photo, strength=0.5, size=size, n=2, out="o.png")
    assert result.images.shape == (2, 3, *drawn)
    is_made_again(result.picture, result.files[1])


@pytest.mark.slow
def test_a_lora_changes_the_images_and_is_recorded(tiny, lora, photo, tmp_path):
    copy = shutil.copy(lora, tmp_path / "style.safetensors")
    result = imagine("a cat", model=tiny, steps=2, lora=copy, out="o.png")
    assert (result.images - imagine("a cat", model=tiny, steps=2, out="p.png").images).abs().max() > 1e-3
    assert set(read_metadata(result.picture)["sums"]) == {"lora"}
    is_made_again(result.picture)
    is_made_again(imagine("a cat", model=tiny, steps=2, lora=copy, image=photo, strength=0.5, out="q.png").picture)
    copy.write_bytes(b"other")
    with pytest.raises(UserError, match=rf"not here, or have changed since: lora={re.escape(str(copy))}$"):
        again(result.picture)
    with pytest.raises(UserError, match=r"lora=.*style\.safetensors: "):
        imagine("a cat", model=tiny, lora=copy)


def test_outside_a_mask_every_pixel_stays(tiny, tmp_path):
    before = np.random.default_rng(0).integers(0, 256, (64, 72, 3), np.uint8)
    Image.fromarray(before).save(tmp_path / "photo.png")
    result = imagine("a cat", model=tiny, steps=2, image="photo.png", mask="0,0,40,64", out="o.png")
    after = pixels(result.picture)
    assert after.shape == before.shape
    assert np.array_equal(after[:, 40:], before[:, 40:]) and not np.array_equal(after[:, :40], before[:, :40])
    is_made_again(result.picture)


def test_a_repository_of_the_hub_is_recorded_with_its_commit_and_not_fetched_for_a_picture(tiny, tmp_path, monkeypatch):
    with publishing(tiny, "owner/tiny", tmp_path / "home", monkeypatch) as hub:
        result = imagine("a cat", model="owner/tiny", steps=1, out="o.png")
        asked = len(hub.asked)
        is_made_again(result.picture)
        entry = read_metadata(result.picture)
        assert (entry["repository"], entry["commit"]) == ("owner/tiny", COMMIT)
        assert torch.equal(result.images, imagine("a cat", model=tiny, steps=1).images)
        save_png(result.images[0], tmp_path / "other.png", {**entry, "commit": "f" * 40})
        with pytest.raises(UserError, match="made with another commit of owner/tiny"):
            again("other.png")
        shutil.rmtree(tmp_path / "cache")
        with pytest.raises(UserError, match="owner/tiny was not downloaded here"):
            again(result.picture)
        assert len(hub.asked) == asked


def test_a_folder_that_changed_is_said(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "copy")
    result = imagine("a cat", model=folder, steps=1, out="o.png")
    change_json(folder / "scheduler/scheduler_config.json", beta_end=0.013)
    with pytest.raises(UserError, match="made with another content of"):
        again(result.picture)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "has format 2; this version reads 1: update"),
        ({"steps": 10**9}, "does not say how it was made as `imagine` does"),
        ({"size": [10**6, 8]}, "does not say how it was made"),
        ({"x": "steps:" + "1," * 500}, "does not say how it was made"),
        ({"x": "out:1"}, "does not say how it was made"),
        ({"prompts": []}, "a prompt is needed"),
        ({"size": [72, 64]}, "has 64x64 pixels, too few for the images that it says it shows"),
        ({"x": "seed:" + "1," * 65}, "too few for the images"),
        ({"x": "size:64,72"}, "too few for the images"),
        ({"x": "lora:a.safetensors|//host/share/b.safetensors"}, "does not name a pipeline and files of this machine"),
        ({"folder": "//host/share"}, "does not name a pipeline and files of this machine"),
        ({"folder": 3}, "does not name a pipeline"),
    ],
)
def test_a_strangers_receipt_is_bounded(picture, changes, words):
    save_png(picture.images[0], "stranger.png", {**read_metadata(picture.picture), **changes})
    with pytest.raises(UserError, match=words):
        again("stranger.png")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"y": "steps:1"}, "y= needs x="),
        ({"x": "steps:1,2", "n": 2}, "give one prompt, and n=1"),
        ({"x": "steps:1", "y": "steps:2"}, "both vary steps"),
        ({"x": "stpes:1"}, r'unknown key of x= "stpes".*did you mean "steps"'),
        ({"x": "steps"}, "x=steps: give a key and its values"),
        ({"x": "steps:0"}, "steps=0: give a whole number of at least 1"),
        ({"x": "prompt:a dog,a fox"}, 'to vary the prompt, write {} where its parts stand, as "a photo of {}"'),
        ({"x": "size:0"}, "size=0: give one side as 32"),
        ({"x": "image:absent.png|other.png"}, "absent.png: file not found"),
        ({"x": "mask:0,0,8,8|0,0,9,9"}, "mask= needs image="),
        ({"mask": "0,0,8,8"}, "mask= needs image="),
        ({"image": "absent.png"}, "file not found"),
        ({"size": "48x60", "steps": 1}, "divisible by 8"),
        ({"scheduler": "ddim"}, 'unknown scheduler "ddim"'),
        ({"n": 401}, "n=401: give a whole number of at least 1 and up to 400"),
        ({"out": ".."}, "has no name"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tiny, keys, words):
    with pytest.raises(UserError, match=words):
        imagine("a cat", model=tiny, **keys)
    assert not list(Path().glob("*.png"))


def test_prompts_that_are_no_text_are_refused(tiny, tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name, words in (("absent.txt", "not found"), ("empty.txt", "is empty"), ("binary.txt", "not a text in UTF-8")):
        with pytest.raises(UserError, match=words):
            imagine(name, model=tiny)


def test_files_of_others_stay(tiny, tmp_path):
    (tmp_path / "o-1.png").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"o-1\.png exists and was not written by trilemma"):
        imagine("a cat", model=tiny, n=2, out="o.png")
    assert (tmp_path / "o-1.png").read_bytes() == b"mine" and not (tmp_path / "o-0.png").exists()


@pytest.mark.slow
def test_an_interruption_leaves_whole_files_of_ours(tiny, monkeypatch, capsys):
    draw, count = prompted.draw, []

    def interrupted(*args, **keys):
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt
        return draw(*args, **keys)

    monkeypatch.setattr(prompted, "draw", interrupted)
    words = ["imagine", "a cat", f"model={tiny}", "steps=1", "n=3", "out=o.png"]
    assert cli.main(words) == 130 and "Traceback" not in capsys.readouterr().err
    assert {path.name for path in Path().glob("*")} - {"cache"} == {"o-0.png", "o-1.png"}
    monkeypatch.setattr(prompted, "draw", draw)
    is_made_again(Path("o-1.png"))
    assert cli.main(words) == 0 and Path("o.png").is_file()


class Updates(progress.Display):
    """What is shown of the progress; at update number `stops_at` the user presses Ctrl-C."""

    shown, closed, stops_at = [], [], None

    def update(self, progress, text):
        self.shown.append((progress, text))
        if len(self.shown) == self.stops_at:
            raise KeyboardInterrupt

    def close(self):
        self.closed.append(True)


@pytest.fixture
def updates(monkeypatch):
    for name in ("shown", "closed"):
        monkeypatch.setattr(Updates, name, [])
    monkeypatch.setattr(progress, "Display", Updates)
    return Updates


@pytest.mark.slow
def test_images_and_their_steps_are_reported(tiny, updates):
    imagine("a cat", model=tiny, steps=2, n=2, out="o.png")
    both = [("image 1 of 2", 0.0), ("image 2 of 2", 0.5)]
    assert updates.shown == [
        line
        for image, start in both
        for line in (
            (start, image), (start + 0.25, f"{image}, step 1 of 2"), (start + 0.5, f"{image}, step 2 of 2"),
        )
    ]  # fmt: skip
    assert updates.closed == [True]


@pytest.mark.slow
def test_the_steps_of_an_image_drawn_again_are_those_that_are_taken(tiny, photo, updates):
    result = imagine("a cat", model=tiny, steps=4, image=photo, strength=0.5, out="o.png")
    assert updates.shown == [(0.0, ""), (0.5, "step 1 of 2"), (1.0, "step 2 of 2")]
    assert again(result.picture).equal and len(updates.shown) == 6


@pytest.mark.slow
def test_an_interruption_between_steps_ends_the_progress(tiny, updates, monkeypatch, capsys):
    monkeypatch.setattr(updates, "stops_at", 2)
    assert cli.main(["imagine", "a cat", f"model={tiny}", "steps=3", "out=o.png"]) == 130
    assert updates.shown[-1] == (pytest.approx(1 / 3), "step 1 of 3") and updates.closed == [True]
    assert not list(Path().glob("*.png")) and "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_long_drawing_is_reported_in_lines_where_there_is_no_terminal(tiny, monkeypatch, capsys):
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", 0.0)
    imagine("a cat", model=tiny, steps=2, out="o.png")
    lines = capsys.readouterr().err.splitlines()
    assert [" ".join(line.split()[:2]) for line in lines[1:]] == ["drawing 0%", "drawing 50%", "drawing 100%"]
    assert lines[-1].endswith("step 2 of 2")


def test_an_axis_is_a_key_and_its_values():
    assert axis("x", "scheduler: A , B", AXES) == ("scheduler", ["A", "B"])
    assert axis("y", "guidance:0,7.5", AXES) == ("guidance", [0, 7.5])
    assert axis("x", "prompt:1, 2|none|3", AXES, TEXTS) == ("prompt", ["1, 2", None, "3"])
    assert axis("x", "mask:outside:0,0,8,8|", AXES, TEXTS) == ("mask", ["outside:0,0,8,8"])


def test_the_command_line_draws_and_says_where(tiny, capsys):
    words = ["imagine", "a red cat", f"model={tiny}", "steps=1", "n=2", "size=32", "out=o.png"]
    assert cli.main(words) == 0
    said = capsys.readouterr()
    assert "o.png" in said.out and "o-0.png, o-1.png" in said.out and "Traceback" not in said.err
    assert trilemma.again("o-1.png").equal and pixels("o-1.png").shape == (32, 32, 3)
    assert cli.main(["imagine", "a cat", "model=sd-turbbo"]) == 2
    assert 'did you mean "sd-turbo"?' in capsys.readouterr().err


def test_without_the_extra_one_line_installs_it(tiny, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert cli.main(["imagine", "a cat", f"model={tiny}"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "need the library diffusers" in said and "[pretrained]" in said


@pytest.mark.slow
def test_a_new_process_says_what_is_loaded_and_nothing_else(tiny, photo):
    words = ["imagine", "a cat", f"model={tiny}", "steps=2", f"image={photo}", "strength=1", "out=o.png"]
    done = subprocess.run([sys.executable, "-m", "trilemma", *words], capture_output=True, text=True, check=True)
    assert done.stderr.count("\n") == 1 and "of weights in float32 on" in done.stderr
    assert done.stdout.split() == ["picture", "o.png"]


def test_the_help_says_where_the_picture_is_written(capsys):
    assert cli.main(["imagine", "--help"]) == 0
    assert "imagine-PROMPT.png in this folder" in " ".join(capsys.readouterr().out.split())
