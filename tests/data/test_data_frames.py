"""frames=all: each frame of a GIF, WebP, PNG or TIFF file is an image of its own, exact, bounded and never mixed up."""

import io
import tarfile
import zipfile
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

import trilemma
from trilemma.cli import main as cli
from trilemma.data import check, load_data
from trilemma.data.decoding import cache, convert, pixels
from trilemma.data.decoding.decode import Item, decode
from trilemma.data.hold_out import split_off
from trilemma.data.options import share
from trilemma.data.split import Split
from trilemma.errors import UserError

SIDE = (12, 16)  # height, width
FORMS = {
    "gif": {},
    "webp": {"lossless": True},
    "png": {},
    "tiff": {"compression": "tiff_deflate"},
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def pictures(n, seed=0, colours=8):
    """n pictures, uint8 (n, H, W, 3), each the one before with a new patch: what an encoder stores as a difference."""
    rng = np.random.default_rng(seed)
    palette = rng.integers(0, 256, (colours, 3), dtype=np.uint8)
    index = rng.integers(0, colours, SIDE)
    items = []
    for _ in range(n):
        y, x = rng.integers(0, 8, 2)
        index = index.copy()
        index[y : y + 4, x : x + 5] = rng.integers(0, colours, (4, 5))
        items.append(palette[index])
    return np.stack(items)


def animation(images, form, **options):
    file = io.BytesIO()
    first, *rest = [Image.fromarray(image) for image in images]
    first.save(file, form, save_all=True, append_images=rest, **FORMS[form] | options)
    return file.getvalue()


def still(level):
    file = io.BytesIO()
    Image.new("RGB", SIDE[::-1], (level, 7, 7)).save(file, "png")
    return file.getvalue()


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def by_name(data):
    """Name to image (H, W, C) over all splits."""
    return {
        name: image.permute(1, 2, 0).numpy()
        for split in data.splits.values()
        for name, image in zip(split.names, split.images, strict=True)
    }


def notes_of(data):
    return "\n".join(data.notes)


@pytest.mark.parametrize("form", FORMS)
def test_each_frame_is_exact_and_its_name_tells_its_number(tmp_path, form):
    frames = pictures(9)
    assert len({image.tobytes() for image in frames}) == 9
    root = write(tmp_path / "d", {f"a.{form}": animation(frames, form), "b.png": still(1), "c.png": still(2)})
    images = by_name(load_data(root, frames="all"))
    assert set(images) == {"b.png", "c.png", *(f"a.{form}#{k}" for k in range(9))}
    for k, image in enumerate(frames):
        assert np.array_equal(images[f"a.{form}#{k}"], image), k
    first = load_data(root)
    assert set(by_name(first)) == {"b.png", "c.png", f"a.{form}"}
    assert np.array_equal(by_name(first)[f"a.{form}"], frames[0])
    assert "1 of the images: several frames or pages, of which the first is used (frames=all" in notes_of(first)
    assert (first.options.frames, load_data(root, frames="first").fingerprint) == ("first", first.fingerprint)


def test_class_caption_and_split_are_the_file_s(tmp_path):
    files = {
        "train/cat/a.gif": animation(pictures(3, 1), "gif"),
        "train/dog/b.tiff": animation(pictures(4, 2), "tiff"),
        "train/dog/c.png": still(3),
        "test/cat/d.webp": animation(pictures(2, 3), "webp"),
        "test/dog/e.png": still(4),
        "train/cat/a.txt": b"a cat that runs",
    }
    data = load_data(write(tmp_path / "d", files), frames="all", valid=0.3)
    assert data.classes == ("cat", "dog")
    assert sorted(data.splits["test"].names) == ["test/cat/d.webp#0", "test/cat/d.webp#1", "test/dog/e.png"]
    for split in data.splits.values():
        for name, label, caption in zip(split.names, split.labels.tolist(), split.captions or (), strict=False):
            assert data.classes[label] == name.split("/")[1]
            assert caption == ("a cat that runs" if "a.gif" in name else "")
    assert len(data.train) + len(data.valid) == 3 + 4 + 1
    assert "frames=all: 3 files hold 9 frames or pages" in notes_of(data)


def test_archives_hold_the_same_as_a_folder(tmp_path):
    files = {f"{k}.{form}": animation(pictures(3, k), form) for k, form in enumerate(FORMS)}
    expected = by_name(load_data(write(tmp_path / "d", files), frames="all"))
    assert len(expected) == 12
    with zipfile.ZipFile(tmp_path / "d.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with tarfile.open(tmp_path / "d.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    for path in ("d.zip", "d.tar.gz"):
        images = by_name(load_data(tmp_path / path, frames="all"))
        assert images.keys() == expected.keys()
        assert all(np.array_equal(images[name], expected[name]) for name in images)


def test_rows_of_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow (extra hub) is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    frames = [pictures(3, seed) for seed in range(3)]
    rows = {
        "image": [{"bytes": animation(images, "gif"), "path": "a.gif"} for images in frames],
        "label": ["x", "y", "x"],
    }
    parquet.write_table(arrow.table(rows), tmp_path / "a.parquet")
    result = by_name(load_data(tmp_path / "a.parquet", frames="all"))
    assert len(result) == 9
    assert all(np.array_equal(result[f"row {k}#{j}"], frames[k][j]) for k in range(3) for j in range(3))


def test_pages_of_several_sizes_and_kinds(tmp_path):
    grey, colour = Image.new("L", (20, 10), 40), Image.new("RGB", (8, 8), (200, 10, 10))
    deep = Image.fromarray(np.full((10, 20), 257 * 90, np.uint16))
    file = io.BytesIO()
    grey.save(file, "tiff", save_all=True, append_images=[colour, deep])
    data = load_data(write(tmp_path / "d", {"a.tif": file.getvalue()}), frames="all")
    images = by_name(data)
    assert data.shape == (3, 8, 8)  # the square of the smallest side
    assert [images[f"a.tif#{k}"][0, 0].tolist() for k in range(3)] == [[40] * 3, [200, 10, 10], [90] * 3]
    assert f"1 of the images: {convert.DEPTH}" in data.notes


@pytest.mark.parametrize("form", ["gif", "tiff", "png"])
def test_grey_frames_stay_grey(tmp_path, form):
    frames = pictures(5)[..., 0]
    whole = {"optimize": False} if form == "gif" else {}  # a palette of all levels in order is what makes a GIF grey
    data = load_data(write(tmp_path / "d", {f"a.{form}": animation(frames, form, **whole)}), frames="all")
    assert data.shape == (1, *SIDE)
    assert all(np.array_equal(by_name(data)[f"a.{form}#{k}"][..., 0], image) for k, image in enumerate(frames))


def test_a_frame_in_colour_after_a_grey_one_keeps_its_colour(tmp_path):
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    file = io.BytesIO()
    red = Image.new("RGB", ramp.size, (250, 0, 0)).quantize(4)
    ramp.save(file, "gif", save_all=True, append_images=[ramp.rotate(180), red, ramp])
    with Image.open(file) as image:
        assert image.mode == "L"
    images = by_name(load_data(write(tmp_path / "d", {"a.gif": file.getvalue()}), frames="all"))
    for k, image in enumerate([ramp, ramp.rotate(180), red, ramp]):
        assert np.array_equal(images[f"a.gif#{k}"], np.asarray(image.convert("RGB"))), k


def test_transparent_frames_are_composed_over_white(tmp_path):
    clear = np.zeros((3, *SIDE, 4), np.uint8)
    for k in range(3):
        clear[k, 4 * k : 4 * k + 4] = (0, 0, 200, 255)
    options = {"gif": {"disposal": 2}, "png": {}, "webp": {"kmin": 1, "kmax": 1}}  # webp: every frame a whole one
    for form, more in options.items():
        content = animation(clear, form, **more)
        images = by_name(load_data(write(tmp_path / form, {f"a.{form}": content}), frames="all"))
        for k in range(3):
            expected = np.where(clear[k, ..., 3:] == 255, clear[k, ..., :3], 255)
            assert np.array_equal(images[f"a.{form}#{k}"], expected), (form, k)


# Bounds.


def gif_of(frames, side=(2, 2)):
    """A GIF of that many frames of one pixel on a canvas of that size, made byte by byte."""
    head = (
        b"GIF89a"
        + bytes([side[1] % 256, side[1] // 256, side[0] % 256, side[0] // 256, 0x80, 0, 0])
        + b"\0\0\0\xff\0\0"
    )
    frame = b"!\xf9\x04\0\0\0\0\0," + b"\0\0\0\0\x01\0\x01\0\0" + b"\x02\x02L\x01\0"
    return head + frame * frames + b";"


def refused(tmp_path, content):
    data = load_data(write(tmp_path / "d", {"a.gif": content, "b.png": still(1), "c.png": still(2)}), frames="all")
    assert set(by_name(data)) == {"b.png", "c.png"}
    return data.skipped


def test_a_bomb_of_frames_is_named_and_skipped(tmp_path):
    (line,) = refused(tmp_path, gif_of(pixels.FRAME_LIMIT + 1))
    assert line.startswith("a.gif: more than 20,000 frames")


def test_a_bomb_of_pixels_is_named_and_skipped(tmp_path):
    side, count = (9000, 9000), pixels.FRAME_PIXELS // 9000**2 + 1
    assert side[0] * side[1] < pixels.PIXELS  # each frame by itself would be opened
    (line,) = refused(tmp_path, gif_of(count, side))
    assert "1,073,741,824 pixels in all" in line


def test_up_to_the_bounds_all_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pixels, "FRAME_LIMIT", 6)
    monkeypatch.setattr(pixels, "FRAME_PIXELS", 6 * SIDE[0] * SIDE[1])
    root = write(tmp_path / "d", {f"a.{form}": animation(pictures(6), form) for form in FORMS})
    assert len(by_name(load_data(root, frames="all"))) == 24
    for name in ("FRAME_LIMIT", "FRAME_PIXELS"):
        with monkeypatch.context() as patch:
            patch.setattr(pixels, name, getattr(pixels, name) - 1)
            with pytest.raises(UserError, match=r"4 unreadable and skipped: a\.gif: more than"):
                load_data(root, frames="all")


def test_a_page_too_large_is_skipped_alone(tmp_path, monkeypatch):
    file = io.BytesIO()
    pages = [Image.new("RGB", side, (k, 0, 0)) for k, side in enumerate([(10, 10), (40, 40), (10, 10)])]
    pages[0].save(file, "tiff", save_all=True, append_images=pages[1:])
    monkeypatch.setattr(pixels, "PIXELS", 1000)
    data = load_data(write(tmp_path / "d", {"a.tif": file.getvalue()}), frames="all")
    assert set(by_name(data)) == {"a.tif#0", "a.tif#2"}
    assert data.skipped == ("a.tif#1: 40x40 pixels; more than 1,000 are not opened",)


def test_a_file_is_opened_once_to_count_and_once_to_decode(tmp_path):
    for form in FORMS:
        opened = []
        content = animation(pictures(50), form)

        def open_(content=content, opened=opened):
            opened.append(1)
            return io.BytesIO(content)

        items = pixels.frames_of(Item(f"a.{form}", open_))
        assert [item.frame for item in items] == list(range(50))
        assert len(decode(items).images) == 50
        assert len(opened) == 2


def test_frames_are_decoded_in_one_pass(monkeypatch):
    content, loads = animation(pictures(40), "gif"), []
    from PIL import GifImagePlugin

    load_end = GifImagePlugin.GifImageFile.load_end
    monkeypatch.setattr(GifImagePlugin.GifImageFile, "load_end", lambda self: loads.append(1) or load_end(self))
    decode(pixels.frames_of(Item("a.gif", lambda: io.BytesIO(content))))
    assert 40 <= len(loads) <= 2 * 40


# Damage.


def test_a_broken_page_is_named_and_the_others_are_kept(tmp_path):
    content = bytearray(animation(pictures(5), "tiff"))
    with Image.open(io.BytesIO(bytes(content))) as image:
        image.seek(2)
        (start,), (length,) = image.tag_v2[273], image.tag_v2[279]
    content[start : start + length] = b"\xff" * length
    data = load_data(write(tmp_path / "d", {"a.tif": bytes(content)}), frames="all")
    assert set(by_name(data)) == {f"a.tif#{k}" for k in (0, 1, 3, 4)}
    assert [line.partition(": ")[0] for line in data.skipped] == ["a.tif#2"]
    assert all(np.array_equal(by_name(data)[f"a.tif#{k}"], pictures(5)[k]) for k in (0, 1, 3, 4))
    report = check(tmp_path / "d", frames="all")
    assert (report.files, report.read, len(report.bad)) == (5, 4, 1)
    assert "5 images, 4 read, 1 bad" in str(report)


def test_a_page_of_an_unknown_kind_is_named_and_the_others_are_kept(tmp_path):
    content = bytearray(animation(pictures(4), "tiff", compression=None))
    with Image.open(io.BytesIO(bytes(content))) as image:
        image.seek(1)
        at = image._frame_pos[1]
    entries = int.from_bytes(content[at : at + 2], "little")
    for k in range(entries):
        entry = at + 2 + 12 * k
        if int.from_bytes(content[entry : entry + 2], "little") == 262:  # photometric interpretation
            content[entry + 8 : entry + 10] = b"\x63\x00"
    data = load_data(write(tmp_path / "d", {"a.tif": bytes(content)}), frames="all")
    assert set(by_name(data)) == {f"a.tif#{k}" for k in (0, 2, 3)}
    assert [line.partition(": ")[0] for line in data.skipped] == ["a.tif#1"]


@pytest.mark.parametrize("form", FORMS)
def test_what_stands_before_a_break_is_exact_and_nothing_after_it_is_used(tmp_path, form):
    frames = pictures(8)
    whole = animation(frames, form)
    for k, part in enumerate(np.linspace(0.2, 0.99, 25)):
        root = write(
            tmp_path / f"{k}", {f"a.{form}": whole[: int(part * len(whole))], "b.png": still(1), "c.png": still(2)}
        )
        data = load_data(root, frames="all")
        kept = [image for name, image in sorted(by_name(data).items()) if name.startswith("a.")]
        assert all(np.array_equal(image, true) for image, true in zip(kept, frames, strict=False))
        # A GIF does not tell how many frames it should have: a cut between two of them cannot be seen.
        assert len(kept) == 8 or any(line.startswith(f"a.{form}") for line in data.skipped) or form == "gif"
        assert part < 0.5 or form != "gif" or len(kept) >= 2  # those before the cut are there


def test_frames_drawn_over_a_broken_one_are_not_used(monkeypatch):
    content, frames = animation(pictures(6), "gif"), pictures(6)
    real = pixels.to_plain

    def plain(image, words, ground):
        if image.tell() == 3:
            raise OSError("broken data stream")
        return real(image, words, ground)

    monkeypatch.setattr(pixels, "to_plain", plain)
    decoded = decode(pixels.frames_of(Item("a.gif", lambda: io.BytesIO(content))))
    assert decoded.skipped == ["a.gif#3: broken data stream"] + [
        f"a.gif#{k}: drawn over a frame that cannot be decoded" for k in (4, 5)
    ]
    assert np.array_equal(decoded.images.permute(0, 2, 3, 1).numpy(), frames[:3])


# The validation split.


def sides(data):
    """For each file the splits in which its frames are."""
    results = {}
    for key, split in data.splits.items():
        for name in split.names:
            results.setdefault(name.partition("#")[0], set()).add(key)
    return results


def test_a_file_s_frames_are_on_one_side(tmp_path):
    files = {f"{k}.gif": animation(pictures(1 + k % 4, k), "gif") for k in range(20)}
    root = write(tmp_path / "d", files)
    seen = Counter()
    for seed in range(5):
        data = load_data(root, frames="all", valid=0.3, seed=seed)
        assert all(len(result) == 1 for result in sides(data).values())
        assert len(data.valid) == round(0.3 * 50)  # files of 1 to 4 frames fill it up
        assert "chosen by the seed, in whole files" in notes_of(data)
        seen.update(name.partition("#")[0] for name in data.valid.names)
    assert len(seen) > 10


def test_one_file_alone_is_divided_and_the_note_says_so(tmp_path):
    data = load_data(write(tmp_path / "d", {"a.gif": animation(pictures(10), "gif")}), frames="all", valid=0.2)
    assert sides(data) == {"a.gif": {"train", "valid"}}
    assert (len(data.train), len(data.valid)) == (8, 2)
    assert "neighbouring frames of the one file may be in both" in notes_of(data)


def test_which_files_are_set_aside():
    def held(sizes, fraction):
        files = [name for name, size in sizes.items() for _ in range(size)]
        split = Split(torch.arange(len(files), dtype=torch.uint8).view(-1, 1, 1, 1))
        rest, valid = split_off(split, share(len(split), fraction), 0, files)
        assert len(rest) and len(rest) + len(valid) == len(files)
        return {files[k] for k in valid.images.flatten().tolist()}

    assert held({"large": 90, "small": 10}, 0.1) == {"small"}  # never the one that does not fit
    assert held({"large": 30, "small": 20, "middle": 25}, 0.1) == {"small"}  # none fits: the smallest
    single = {str(k): 1 for k in range(40)}  # files of one image: as without files
    split = Split(torch.arange(40, dtype=torch.uint8).view(-1, 1, 1, 1))
    plain = split_off(split, 8, 0)[1].images.flatten().tolist()
    assert held(single, 0.2) == {str(k) for k in plain}


# The whole path.


def test_the_cache_keeps_both_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SMALL", 0)
    root = write(tmp_path / "d", {f"{k}.gif": animation(pictures(3, k), "gif") for k in range(4)})
    counts = [len(by_name(load_data(root, frames=frames))) for frames in ("first", "all", "first", "all")]
    assert counts == [4, 12, 4, 12]
    assert len(list((tmp_path / "cache" / "decoded").iterdir())) == 2


def test_wrong_words_and_sources_without_files(tmp_path):
    for verb in (load_data, check, trilemma.show):
        with pytest.raises(UserError, match=r"frames=some: choose first .* or all"):
            verb("digits", frames="some")
    with pytest.raises(UserError, match="choose first"):
        trilemma.train("vae", "digits", frames="some", quiet=True)
    data = load_data("digits", frames="all")
    assert "frames=all is not used: the source has no image files" in data.notes
    assert data.options.frames == "first"


def test_loaded_data_keeps_its_frames(tmp_path):
    root = write(tmp_path / "d", {f"{k}.gif": animation(pictures(4, k), "gif") for k in range(3)})
    both = load_data(root, frames="all")
    assert load_data(both) is both
    assert load_data(both, size=8).train.names == both.train.names
    assert len(by_name(load_data(both, frames="first"))) == 3
    assert load_data(load_data(root), frames="all").fingerprint == both.fingerprint
    assert check(both).frames == "all"


@pytest.mark.parametrize("loaded", [False, True])
def test_a_run_reads_the_same_frames_again(tmp_path, loaded):
    root = write(tmp_path / "d", {f"{k}.gif": animation(pictures(6, k), "gif") for k in range(5)})
    source = load_data(root, frames="all") if loaded else root
    words = {} if loaded else {"frames": "all"}
    run = trilemma.train("vae", source, steps=2, batch=4, size=8, quiet=True, **words)
    assert run.config["data_config"]["frames"] == "all"
    assert " frames=all" in run.config["command"]
    assert len(by_name(trilemma.load(run.path).data)) == 30
    again = trilemma.train("vae", source, steps=2, batch=4, size=8, quiet=True, **words)
    other = trilemma.train("vae", root, steps=2, batch=4, size=8, frames="first", quiet=True)
    assert (again.path, other.path.name) == (run.path, f"{run.path.name}-2")
    assert "frames" not in other.config["command"]
    assert len(by_name(other.data)) == 5


def test_a_run_without_the_key_reads_first_frames(tmp_path):
    root = write(tmp_path / "d", {f"{k}.gif": animation(pictures(2, k), "gif") for k in range(5)})
    run = trilemma.train("vae", root, steps=2, batch=4, size=8, quiet=True)
    run.config["data_config"]["frames"] = None
    assert len(by_name(run.data)) == 5


def test_the_command_line(tmp_path, capsys):
    root = write(tmp_path / "d", {f"{k}.gif": animation(pictures(3, k), "gif") for k in range(4)})
    assert cli.main(["data", "show", str(root), "frames=all", f"out={tmp_path / 'a.png'}"]) == 0
    assert "frames=all: 4 files hold 12 frames" in capsys.readouterr().out
    assert (tmp_path / "a.png").exists()
    assert cli.main(["data", "check", str(root), "frames=all"]) == 0
    assert "12 images, 12 read" in capsys.readouterr().out
    assert cli.main(["data", "check", str(root)]) == 0
    assert "4 image files, 4 read" in capsys.readouterr().out
    assert cli.main(["train", "vae", str(root), "frames=all", "steps=1", "batch=4", "out=run", "quiet=true"]) == 0
    assert len(by_name(trilemma.load("run").data)) == 12
    capsys.readouterr()
    assert cli.main(["data", "show", str(root), "frames=some"]) == 2
    assert "choose first" in capsys.readouterr().err
