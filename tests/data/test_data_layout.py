"""What the names of files say: splits and classes in other people's data, and what speaks against them."""

import io
import json
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from trilemma.data import check, load_data
from trilemma.data.decoding.listing import CLOSED, LESS, TWIN, outweighs
from trilemma.data.sources.folder_layout import (
    ALONE,
    BESIDE,
    LOOSE,
    OUTSIDE,
    UNUSED,
    arrange,
    class_advice,
    name_splits,
    split_of,
)
from trilemma.data.sources.table import choose_column
from trilemma.errors import UserError

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path_factory.mktemp("cache")))


def png(level=None, side=8):
    shape = (side, side, 3)
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8) if level is None else np.full(shape, level, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def write(root, names, content=png):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content())
    return root


def zipped(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, png())
    return path


def tarred(path, names):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name in names:
            content = png()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def counts(data):
    return {key: len(split) for key, split in data.splits.items()}


def numbered(*folders, n=5):
    return [f"{folder}/{k}.png" for folder in folders for k in range(n)]


def splits_of(layout):
    return [place and place[0] for place in layout.places]


# -- splits


@pytest.mark.parametrize(
    ("train", "held", "split"),
    [
        ("train", "test", "test"),
        ("Training", "VAL", "valid"),
        ("train", "eval", "test"),
        ("train2017", "val2017", "valid"),
        ("train2014", "val2017", "valid"),
        ("train_images", "test_images", "test"),
        ("DIV2K_train_HR", "DIV2K_valid_HR", "valid"),
        ("seg_train/seg_train", "seg_test/seg_test", "test"),
        ("trainset", "testset", "test"),
        ("images/train", "images/val", "valid"),
        ("a/b/training_data", "a/b/validation", "valid"),  # every name of the level tells a split
        ("00_train", "01_dev", "valid"),
    ],
)
@pytest.mark.parametrize("classes", [("",), ("/cat", "/dog")])
def test_names_of_split_folders(train, held, split, classes):
    names = numbered(*(f"{folder}{kind}" for folder in (train, held) for kind in classes))
    layout = arrange(names)
    assert splits_of(layout) == ["train" if name.startswith(train) else split for name in names]
    assert layout.classes == tuple(kind[1:] for kind in classes if kind)
    assert not layout.left_out
    assert len(layout.notes) == 1


@pytest.mark.parametrize(
    "folders", [("train_station", "test_tube", "bus"), ("train", "bus"), ("trainers", "valley"), ("val", "test")]
)
def test_classes_that_are_named_like_splits_stay_classes(folders):
    layout = arrange(numbered(*folders))
    assert set(splits_of(layout)) == {"train"}
    assert layout.classes == tuple(sorted(folders))
    alike = sorted(name for name in folders if split_of(name))
    assert [note.partition(UNUSED)[2] for note in layout.notes[1:]] == ([f": {', '.join(alike)}"] if alike else [])


def test_what_pairs_of_splits_differ_in_is_the_class():
    layout = arrange(numbered("trainA", "testA", "trainB", "testB"))
    assert layout.classes == ("A", "B")
    assert layout.places[0] == ("train", "A") and layout.places[-1] == ("test", "B")


def test_splits_inside_the_classes():
    names = numbered("bottle/train", "bottle/test", "cable/train", "cable/test")
    layout = arrange(names)
    assert layout.places == [(name.split("/")[1], name.split("/")[0]) for name in names]


def test_a_few_folders_deep_inside_do_not_leave_out_the_rest():
    few = numbered("a/train", "a/test", n=2)
    layout = arrange([*numbered("a", "b"), *few])
    assert not layout.left_out
    assert layout.classes == ("a", "b")
    assert UNUSED in layout.notes[1]
    assert layout.notes[1].endswith("test, train")


def test_a_held_out_folder_inside_the_training_folder_is_held_out():
    names = numbered("train/train_images", "train/val_images", "test/test_images")
    assert splits_of(arrange(names)) == ["train"] * 5 + ["valid"] * 5 + ["test"] * 5


def test_images_outside_of_the_split_folders_and_a_loose_file_above_them():
    layout = arrange([*numbered("d/train", "d/test"), "d/unlabeled/1.png", "readme.png"])
    assert splits_of(layout) == ["train"] * 5 + ["test"] * 5 + [None, None]
    assert layout.left_out == {10: OUTSIDE, 11: OUTSIDE}


def test_files_named_like_splits_are_said():
    layout = arrange([f"images/{split}_{k}.jpg" for split in ("Train", "Test") for k in range(3)])
    assert set(splits_of(layout)) == {"train"}
    assert layout.notes[1].startswith(f"6 {UNUSED}")
    assert len(arrange([f"images/Train_{k}.jpg" for k in range(3)]).notes) == 1


def test_splits_of_names_are_found_whatever_their_order():
    names = ["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001", "notes"]
    assert name_splits(names) == name_splits(names[::-1])
    assert {name: named.split for name, named in name_splits(names).items()} == {
        name: name.split("-")[0] for name in names[:3]
    }


@pytest.mark.parametrize("kind", ["images", "tar", "zip", "parquet"])
@pytest.mark.parametrize("place", ["{split}/0000", "default/{split}/0000", "{split}-0000-of-0001", "my_{split}_set"])
def test_every_format_finds_the_splits_by_one_rule(tmp_path, kind, place):
    for split, n in (("train", 12), ("test", 3)):
        path = tmp_path / "d" / place.format(split=split)
        names = [f"{k}.png" for k in range(n)]
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "images":
            write(path, names)
        elif kind == "tar":
            tarred(path.with_suffix(".tar"), names)
        elif kind == "zip":
            zipped(path.with_suffix(".zip"), names)
        else:
            parquet(path.with_suffix(".parquet"), {"image": [{"bytes": png(), "path": None} for _ in names]})
    data = load_data(tmp_path / "d", valid=0.25)
    assert counts(data) == {"train": 9, "valid": 3, "test": 3}
    assert data.classes == ()


def test_one_archive_named_like_a_held_out_split_is_trained_on_and_that_is_said(tmp_path):
    tarred(tmp_path / "test.tar", [f"{k}.png" for k in range(6)])
    tarred(tmp_path / "more.tar", [f"{k}.png" for k in range(6)])
    data = load_data(tmp_path)
    assert set(counts(data)) == {"train", "valid"}
    assert any(note == f"1 {UNUSED}: test" for note in data.notes)


# -- classes


@pytest.mark.parametrize("prefix", ["", "data/", "train/"])
def test_a_loose_file_beside_the_class_folders_is_left_out_and_named(tmp_path, prefix):
    folders = [f"{prefix}{kind}" for kind in ("cat", "dog")]
    folders += [f"test/{kind}" for kind in ("cat", "dog")] if prefix == "train/" else []
    loose = f"{prefix}preview.png" if prefix == "train/" else "preview.png"
    report = check(write(tmp_path, [*numbered(*folders), loose]))
    assert report.left_out == {BESIDE: [loose]}
    assert report.files == report.read + 1
    data = load_data(tmp_path)
    assert data.classes == ("cat", "dog")
    assert sum(counts(data).values()) == 5 * len(folders)


@pytest.mark.parametrize("n", [4, 5])
def test_how_many_loose_files_speak_against_classes(n):
    """On both sides of the share: 20 in folders and 5 loose are just LOOSE of 25."""
    for loose in (n, n + 1):
        layout = arrange([*numbered("a", "b", n=10), *(f"{k}.png" for k in range(loose))])
        few = loose <= LOOSE * (20 + loose)
        assert layout.classes == (("a", "b") if few else ())
        assert len(layout.left_out) == (loose if few else 0)
        assert few or f"({loose} of {20 + loose} images lie in none, such as 0.png)" in layout.notes[0]


def test_a_flat_test_folder_keeps_its_images_and_is_named():
    layout = arrange([*numbered("train/cat", "train/dog"), *numbered("test")])
    assert splits_of(layout) == ["train"] * 10 + ["test"] * 5
    assert "(test: no class folders)" in layout.notes[0]


@pytest.mark.parametrize("names", [numbered("cat"), [*numbered("photos"), *(f"{k}.png" for k in range(9))]])
def test_one_folder_alone_is_no_class_and_that_is_said(names):
    layout = arrange(names)
    assert layout.classes == () and not layout.left_out
    alone = names[0].split("/")[0]
    assert layout.notes == [f"layout: no class folders ({ALONE}: {alone})"]
    assert class_advice(layout.notes).startswith("one class alone counts as none")
    assert "folder per class" in class_advice(arrange(["1.png", "2.png"]).notes)


def packed(n, size, form="img{:08}.png"):
    return [f"{k // size:05}/{form.format(k)}" for k in range(n)]


def test_numbered_folders_of_a_packing_tool_are_no_classes():
    assert arrange(packed(50, 20)).classes == ()
    assert "00000 to 00002" in arrange(packed(50, 20)).notes[0]
    for names in (
        [f"{kind:05}/{k:05}.png" for kind in range(3) for k in range(20)],  # each folder counts anew
        packed(50, 20)[:30],  # the first two: 20, 10, is a series
        [name.replace("00001/", "00001/0") for name in packed(50, 20) if not name.startswith("00000/img00000001")],
        [f"{kind}/{20 * kind + k}.png" for kind in range(3) for k in range(20)],  # names of digits
    ):
        layout = arrange(names)
        series = len(names) == 30
        assert bool(layout.classes) != series


def test_classes_of_dataset_json(tmp_path):
    names = packed(12, 5)
    write(tmp_path, names)
    labels = [[name, k % 2 + 7] for k, name in enumerate(names)]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    data = load_data(tmp_path)
    assert data.classes == ("7", "8")
    classes = {name: data.classes[k] for s in data.splits.values() for name, k in zip(s.names, s.labels, strict=True)}
    assert classes == {name: str(label) for name, label in labels}
    assert any("dataset.json: 12 rows, of which 12" in note for note in data.notes)


@pytest.mark.parametrize("labels", [None, [["00000/img00000000.png", [0.5, 1.5]]]])
def test_dataset_json_without_classes(tmp_path, labels):
    write(tmp_path, packed(12, 5))
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    data = load_data(tmp_path)
    assert data.classes == ()
    assert any("dataset.json" in note for note in data.notes)


def test_labels_of_dataset_json_are_read_as_all_labels(tmp_path):
    """1.0 is 1, and -1 is no class: with it, not every image has one."""
    names = packed(12, 5)
    write(tmp_path, names)
    for labels, classes in (([1.0, 2] * 6, ("1", "2")), ([0, 1, -1] * 4, ())):
        pairs = [list(pair) for pair in zip(names, labels, strict=True)]
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": pairs}))
        assert load_data(tmp_path).classes == classes


@pytest.mark.parametrize("content", ["", "[1]", '{"labels": 3}', '{"labels": [1]}', '{"images": []}'])
def test_a_dataset_json_of_another_form_is_another_file(tmp_path, content):
    write(tmp_path, numbered("cat", "dog"))
    (tmp_path / "dataset.json").write_text(content)
    assert load_data(tmp_path).classes == ("cat", "dog")
    assert "dataset.json" in str(check(tmp_path).left_out)


def test_labels_of_the_metadata_that_give_way_to_folders_are_said(tmp_path):
    write(tmp_path, numbered("cat", "dog"))
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "cat/0.png", "label": "tiger"}))
    data = load_data(tmp_path)
    assert data.classes == ("cat", "dog")
    assert any("classes of the metadata are not used: 9 of 10 images have none there" in note for note in data.notes)


SYSTEM = {
    **dict.fromkeys(("cat/.ipynb_checkpoints/0.png", "a/.Trash-1000/files/a.png"), ""),
    **dict.fromkeys(("cat/@eaDir/0.png/T.png", "@eaDir/x.png", "$RECYCLE.BIN/S/R1.png", "#recycle/old.png"), ""),
    **dict.fromkeys(("System Volume Information/a.png", "lost+found/b.png", "__MACOSX/cat/c.png"), ""),
}


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_folders_of_systems_are_passed_over_and_counted(tmp_path, kind):
    names = [*numbered("cat", "dog"), *SYSTEM]
    path = zipped(tmp_path / "a.zip", names) if kind == "zip" else write(tmp_path / "a", names)
    data = load_data(path)
    assert data.classes == ("cat", "dog")
    assert sum(counts(data).values()) == 10
    assert any(note.startswith(f"{len(SYSTEM)} hidden or system folders, skipped: #recycle") for note in data.notes)


# -- several candidates


def test_an_archive_beside_its_unpacked_images_stays_closed(tmp_path):
    names = numbered("food/cat", "food/dog")
    write(tmp_path, names)
    with tarfile.open(tmp_path / "food.tar", "w") as archive:
        archive.add(tmp_path / "food", "food")
    with zipfile.ZipFile(tmp_path / "food.zip", "w") as archive:
        for name in names:
            archive.write(tmp_path / name, name)
    report = check(tmp_path)
    assert report.left_out == {TWIN: ["food.zip"], CLOSED: ["food.tar"]}
    assert report.read == 10
    assert any("food.tar" in note for note in load_data(tmp_path).notes)
    shutil.rmtree(tmp_path / "food")  # and of two archives of one name one is read
    assert (check(tmp_path).left_out, check(tmp_path).read) == ({TWIN: ["food.zip"]}, 10)


def test_archives_that_hold_more_than_the_images_beside_them_are_read(tmp_path):
    write(tmp_path, ["preview.png"])
    for k in range(2):
        tarred(tmp_path / f"{k}.tar", numbered("cat", "dog", n=10))
    report = check(tmp_path)
    assert report.left_out == {LESS: ["preview.png"]}
    assert report.read == 40


@pytest.mark.parametrize("size", [1, 511, 512, 513, 10_000])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_an_archive_never_outweighs_its_own_images(size, form):
    for n in (1, 30):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=form) as archive:
            for k in range(n):
                info = tarfile.TarInfo(f"{k}.png")
                info.size, info.mtime = size, 1.5  # which takes a header more
                archive.addfile(info, io.BytesIO(b"x" * size))
        images = {f"{k}.png": size for k in range(n)}
        assert not outweighs({"a.tar": len(file.getvalue())}, images)
        assert outweighs({"a.tar": 2 * (n * (size + 2048) + tarfile.RECORDSIZE)}, images)


def test_metadata_beside_the_only_archive_is_of_its_images(tmp_path):
    zipped(tmp_path / "images.zip", [f"{k}.png" for k in range(4)])
    rows = [{"file_name": f"{k}.png", "text": f"picture {k}"} for k in range(4)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = load_data(tmp_path)
    captions = {name: text for s in data.splits.values() for name, text in zip(s.names, s.captions, strict=True)}
    assert captions == {f"images.zip:{k}.png": f"picture {k}" for k in range(4)}
    assert check(tmp_path).ok


def test_a_broken_zip_of_several_is_named(tmp_path):
    zipped(tmp_path / "a.zip", ["0.png", "1.png"])
    (tmp_path / "b.zip").write_bytes(b"no zip")
    assert [name for name, _ in check(tmp_path).bad] == ["b.zip"]


def test_a_folder_of_other_sources_names_them(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK")
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"holds no images.*it holds train-images-idx3-ubyte\.gz, x\.npz: give the path"
    ):
        load_data(tmp_path)


def parquet(path, columns):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow (extra hub) is not installed")
    writer = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.write_table(arrow.table(columns), path)


def row(level, side=8):
    return {"bytes": png(level, side), "path": None}


@pytest.mark.parametrize(
    ("columns", "taken"),
    [
        ({"conditioning_image": [row(10)] * 4, "image": [row(200)] * 4}, "image"),
        ({"sha": [bytes([k]) * 32 for k in range(4)], "pixels": [row(200)] * 4}, "pixels"),  # the larger
        ({"pixels": [row(200)] * 4}, "pixels"),
    ],
)
def test_which_column_holds_the_images(tmp_path, columns, taken):
    parquet(tmp_path / "a.parquet", columns)
    data = load_data(tmp_path / "a.parquet")
    assert data.train.images.unique().tolist() == [200]
    others = [name for name in columns if name != taken]
    messages = [note for note in data.notes if note.startswith("images are read from the column")]
    assert messages == ([f"images are read from the column {taken}, not from {others[0]}"] if others else [])


def test_a_column_by_its_place_where_no_name_tells():
    assert choose_column(["a", "b"])[0] == "a"
    assert choose_column(["a", "Image", "img"]) == ("Image", ["images are read from the column Image, not from a, img"])


@pytest.mark.parametrize("more", ["parquet", "images"])
def test_parquet_files_beside_images(tmp_path, more):
    n = 30 if more == "parquet" else 2
    parquet(tmp_path / "data" / "a.parquet", {"image": [{"bytes": png(), "path": None} for _ in range(n)]})
    write(tmp_path, [f"assets/{k}.png" for k in range(32 - n)])
    report = check(tmp_path)
    assert report.read == 30
    assert (LESS in report.left_out) == (more == "parquet")
    assert ("data/a.parquet" in str(report.left_out)) == (more == "images")


def test_a_folder_named_like_a_word_is_named_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not any("./digits" in note for note in load_data("digits").notes)
    write(tmp_path / "digits", numbered("a", "b"))
    assert load_data("digits").notes[-1] == "digits is the built-in data; for the folder here type ./digits"
    assert load_data("./digits").classes == load_data("digits/").classes == ("a", "b")
