"""Metadata files, files beside the images, tar shards, idx, parquet and hub sources."""

import csv
import gzip
import io
import json
import sys
import tarfile
import types

import numpy as np
import pytest
import torch
from PIL import Image

from trilemma.data import Split, check, load_data
from trilemma.data.sources import parquet
from trilemma.data.split import captions_fingerprint_of
from trilemma.errors import UserError

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path_factory.mktemp("cache")))


def png(level=None):
    pixels = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8) if level is None else np.full((8, 8, 3), level, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def told(data):
    """{file name: (class, caption)} over all splits."""
    return {
        name: (
            data.classes[int(split.labels[k])] if split.labels is not None else None,
            split.captions[k] if split.captions is not None else None,
        )
        for split in data.splits.values()
        for k, name in enumerate(split.names)
    }


ROWS = [{"file_name": f"{k}.png", "label": "ab"[k % 2], "text": f"caption {k}, with a comma"} for k in range(6)]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("folder", ["", "train/"])
def test_metadata(tmp_path, form, folder):
    files = {f"{folder}{k}.png": png() for k in range(6)}
    if form == "jsonl":
        text = "".join(json.dumps(row) + "\n" for row in ROWS)
    else:
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, ROWS[0])
        writer.writeheader()
        writer.writerows(ROWS)
        text = "\ufeff" + out.getvalue()
    data = load_data(write(tmp_path / "d", {**files, f"{folder}metadata.{form}": text}))
    assert told(data) == {f"{folder}{row['file_name']}": (row["label"], row["text"]) for row in ROWS}
    assert data.classes == ("a", "b")
    assert not any("metadata" in note and "left out" in note for note in data.notes)
    assert check(tmp_path / "d").unmatched == []


def test_rows_and_files_that_do_not_match_are_counted_with_five_examples(tmp_path):
    rows = [*ROWS[:4], *({"file_name": f"lost{k}.png", "text": "x"} for k in range(7))]
    files = {f"{k}.png": png() for k in range(6)}
    write(tmp_path, {**files, "metadata.jsonl": "\n".join(map(json.dumps, rows))})
    data = load_data(tmp_path)
    lost = next(note for note in data.notes if note.startswith("7 rows of metadata.jsonl without a file"))
    assert lost.endswith("lost0.png, lost1.png, lost2.png, lost3.png, lost4.png and 2 more")
    assert any(note.startswith("2 files without a row in metadata.jsonl: 4.png, 5.png") for note in data.notes)
    assert data.classes == ()  # two images have no class
    assert "2 of the 6 train images have no class: classes are not used" in data.notes
    assert told(data)["4.png"] == (None, "")
    report = check(tmp_path)
    assert len(report.unmatched) == 9
    assert not report.ok


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.csv", "name,label\n0.png,a\n", "not used: no column file_name; its columns are name, label"),
        ("metadata.csv", "file_name,label\n0.png,\xff\n1.png,a\n", "metadata.csv row 0 (it is not UTF-8)"),
        ("metadata.csv", ",".join(f"c{k}" for k in range(1001)), "not used: 1,001 columns; at most 1,000 are read"),
        (
            "metadata.jsonl",
            '{"file_name": "0.png"}\n\n{"file_name": "1.png"',
            "line 3 (it is not valid JSON: Expecting",
        ),
        (
            "metadata.jsonl",
            '{"file_name": "0.png"}\n{"label": ' + "9" * 30 + "}",
            "line 2 (it is not valid: it has an int",
        ),
        (
            "metadata.jsonl",
            '{"file_name": "0.png"}\n"\xff"',
            "metadata.jsonl line 2 (it is not valid JSON: 'utf-8' codec",
        ),
        ("metadata.jsonl", '{"file_name": "0.png"}\n' + "[" * 100_000, "metadata.jsonl line 2 ("),
        ("metadata.jsonl", '{"file_name": "0.png"}\n{"text": "a"}', "metadata.jsonl: row 1: no file_name"),
        ("metadata.jsonl", "[1]\n", "not used: no column file_name"),
        (
            "metadata.jsonl",
            '{"file_name": "0.png", "text": "smile"}\n{"file_name": "1.png", "text": ["\\ud83d smile"]}',
            "metadata.jsonl line 2 (it has half of a letter, which is not Unicode text)",
        ),
        ("0.json", '{"text": "\\ud83d smile"}', "0.json: cannot be read: it has half of a letter"),
    ],
)
def test_broken_metadata_is_named_and_the_images_are_read(tmp_path, name, text, message):
    write(tmp_path, {"0.png": png(), "1.png": png(), name: text.encode("latin-1")})
    report = check(tmp_path)
    assert report.read == 2
    assert any(message in line for line in report.unmatched)
    assert not report.ok
    assert len(load_data(tmp_path).train) == 1


def test_whole_letters_of_two_escapes_are_read(tmp_path):
    rows = ['{"file_name": "0.png", "text": "\\ud83d\\ude00"}', '{"file_name": "1.png", "text": "\\ud83d"}']
    write(tmp_path, {"0.png": png(), "1.png": png(), "metadata.jsonl": "\n".join(rows)})
    assert told(load_data(tmp_path)) == {"0.png": (None, "\U0001f600"), "1.png": (None, "")}


def test_a_label_that_is_not_unicode_is_none(tmp_path):
    """Of a number of images for which a class each is needed."""
    images, labels = np.arange(16, dtype=np.uint8).repeat(64).reshape(16, 8, 8), ["a", "b"] * 7 + ["a", "\ud83d"]
    np.savez(tmp_path / "images.npz", images=images, labels=np.array(labels))
    data = load_data(tmp_path / "images.npz")
    assert data.classes == () and "1 of the 16 train images have no class: classes are not used" in data.notes
    assert "1 labels that are not a class: train image 15: not Unicode text" in data.notes
    with pytest.raises(UserError, match="1 of the 16 train images have no class"):
        load_data((images, labels))
    files = {f"{k}.png": png() for k in range(16)}
    pairs = [list(pair) for pair in zip(files, labels, strict=True)]
    data = load_data(write(tmp_path / "d", {**files, "dataset.json": json.dumps({"labels": pairs})}))
    assert data.classes == () and "dataset.json: 16 rows, of which 15 give the class of an image" in data.notes


def test_a_fingerprint_tells_captions_and_their_order_apart():
    captions = (None, ("a", "b"), ("b", "a"), ("ab", ""), ("a\n", "b"), ("a", "\nb"), ("a", "b", ""))
    images = torch.zeros(2, 1, 1, 1, dtype=torch.uint8)
    marks = [captions_fingerprint_of(Split(images, captions=texts)) for texts in captions]
    assert len(set(marks)) == len(captions) and all(len(mark) == 64 for mark in marks)
    assert captions_fingerprint_of(Split(images + 1, captions=("a", "b"))) == marks[1]


ODD = "a\u2028b", "a\u2029b", "a\x85b", "a\x0bb", "a\x1cb"  # str.splitlines ends a line at each


def test_lines_of_json_end_at_newlines_only(tmp_path):
    rows = [json.dumps({"file_name": f"{k}.png", "text": text}, ensure_ascii=False) for k, text in enumerate(ODD)]
    rows = [row.replace("\\u000b", "\u2028") for row in rows]
    write(tmp_path, {f"{k}.png": png() for k in range(len(ODD))} | {"metadata.jsonl": "\r\n".join(rows)})
    wanted = {f"{k}.png": (None, json.loads(row)["text"]) for k, row in enumerate(rows)}
    assert told(load_data(tmp_path)) == wanted


@pytest.mark.parametrize("suffix", ["txt", "json"])
def test_a_long_file_beside_an_image_is_read_whole(tmp_path, suffix):
    text = "long " * 40_000 + "end"
    write(
        tmp_path,
        {"0.png": png(), "1.png": png(), f"0.{suffix}": json.dumps({"text": text}) if suffix == "json" else text},
    )
    assert told(load_data(tmp_path))["0.png"] == (None, text)


def test_a_long_field_of_a_csv_is_read_and_the_limit_stays(tmp_path):
    before, text = csv.field_size_limit(), "w" * (csv.field_size_limit() + 1)
    write(tmp_path, {"0.png": png(), "1.png": png(), "metadata.csv": f"file_name,text\n0.png,{text}\n1.png,b\n"})
    assert told(load_data(tmp_path)) == {"0.png": (None, text), "1.png": (None, "b")}
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("suffix", "content", "words"),
    [
        ("json", json.dumps({"shapes": [1], "imageData": "x" * 2**17}), "no column of classes: not used"),
        ("json", "[1, 2]", "no column of classes: not used"),
        ("json", json.dumps({"label": [1, 2]}), "label (several values, not one)"),
        ("txt", "0 0.5 0.5 0.25 0.25\n1 0.1 0.2 0.3 0.4\n", "boxes, not captions: not used"),
    ],
)
def test_files_of_other_tools_are_no_fault_and_named(tmp_path, suffix, content, words):
    files = {f"{k}.png": png() for k in range(4)} | {f"{k}.{suffix}": content for k in range(3)}
    report = check(write(tmp_path, files))
    assert report.ok
    assert any(note.startswith(f"0.{suffix}, 1.{suffix}, 2.{suffix}: ") and words in note for note in report.notes)
    data = load_data(tmp_path)
    assert data.classes == ()
    assert data.train.captions is None


def classes_of(data):
    """The class of each image by its file, None for none."""
    return {
        name: None if split.labels is None else data.classes[split.labels[k]]
        for split in data.splits.values()
        for k, name in enumerate(split.names)
    }


@pytest.mark.parametrize("column", ["label", "labels", "Label", "CLASS", "class_name", "target", "y", "category"])
def test_the_column_of_classes_is_named(tmp_path, column):
    files = {f"{k}.png": png() for k in range(4)}
    rows = "".join(f"{k}.png,{'ab'[k % 2]},{k}\n" for k in range(4))
    data = load_data(write(tmp_path, {**files, "metadata.csv": f"file_name,{column},size\n{rows}"}))
    assert classes_of(data) == {f"{k}.png": "ab"[k % 2] for k in range(4)}
    assert f"metadata.csv: classes from the column {column}" in data.notes


def test_columns_that_are_not_used_are_named(tmp_path):
    rows = [
        {"file_name": f"{k}.png", "label": [k, 5], "target": k + 0.5, "class": "ab"[k % 2], "y": k} for k in range(4)
    ]
    text = "\n".join(map(json.dumps, rows))
    data = load_data(write(tmp_path, {f"{k}.png": png() for k in range(4)} | {"metadata.jsonl": text}))
    wanted = (
        "metadata.jsonl: classes from the column class; not used: label (several values, not one), "
        "target (class is used), y (class is used)"
    )
    assert wanted in data.notes
    assert data.classes == ("a", "b")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["0", "1", "-1", "1"], {"0", "1"}),  # -1: no class, so that training lacks one
        (["-1", "1", "-1", "1"], {"-1", "1"}),  # the two classes of a support vector machine
        (["1.0", "0.0", "2.0", "1.0"], {"0", "1", "2"}),
        (["01", "02", "01", "02"], {"01", "02"}),
        (["1.5", "0.0", "2.0", "1.0"], set()),
    ],
)
def test_labels_in_csv(tmp_path, labels, classes):
    rows = "".join(f"{k}.png,{label}\n" for k, label in enumerate(labels))
    write(tmp_path, {f"train/{k}.png": png() for k in range(4)} | {"train/metadata.csv": f"file_name,label\n{rows}"})
    write(tmp_path, {"test/9.png": png(), "test/metadata.csv": "file_name,label\n9.png,-1\n"} if "0" in labels else {})
    data = load_data(tmp_path)
    if "-1" in labels and len(classes) == 2 and "0" in classes:
        assert data.classes == ()
        assert any(note.endswith("have no class: classes are not used") for note in data.notes)
    else:
        assert set(data.classes) == classes


def test_captions_beside_the_images(tmp_path):
    files = {f"{k}.png": png() for k in range(4)} | {f"{k}.txt": f" a picture, {k}\n" for k in range(3)}
    write(tmp_path, {**files, "readme.txt": "other"})
    data = load_data(tmp_path)
    assert told(data) == {f"{k}.png": (None, f"a picture, {k}" if k < 3 else "") for k in range(4)}
    assert any(note.startswith("1 .txt files without an image: readme.txt") for note in data.notes)
    assert any(note.startswith("1 images without a .txt file: 3.png") for note in data.notes)
    assert check(tmp_path).unmatched == ["readme.txt: no image of this name", "3.png: no .txt file"]


def test_texts_without_any_image_are_other_files(tmp_path):
    data = load_data(write(tmp_path, {"0.png": png(), "1.png": png(), "readme.txt": "other"}))
    assert data.train.captions is None
    assert any("files skipped (not an image extension): readme.txt" in note for note in data.notes)


def test_composed_and_decomposed_names_match(tmp_path):
    row = {"file_name": "\u1ea3nh.png", "text": "one"}
    write(tmp_path, {"a\u0309nh.png": png(), "b.png": png(), "metadata.jsonl": json.dumps(row)})
    assert "one" in {caption for _, caption in told(load_data(tmp_path)).values()}


# -- tar


def tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def sample(k):
    return {f"{k:04}.png": png(), f"{k:04}.cls": str(k % 3).encode(), f"{k:04}.txt": f"text {k}".encode()}


@pytest.mark.parametrize("mode", ["", ":gz", ":bz2", ":xz"])
def test_a_tar_of_samples(tmp_path, mode):
    files = {name: content for k in range(12) for name, content in sample(k).items()}
    suffix = mode.replace(":", ".")
    data = load_data(tar(tmp_path / f"My Set.tar{suffix}", files, f"w{mode}"))
    assert told(data) == {f"{k:04}.png": (str(k % 3), f"text {k}") for k in range(12)}
    assert data.classes == ("0", "1", "2")


def test_a_tar_of_class_folders_with_links_and_bad_names(tmp_path):
    path = tar(tmp_path / "a.tar", {f"x/{kind}/{k}.png": png() for kind in "ab" for k in range(2)})
    with tarfile.open(path, "a") as archive:
        for name, kind in (("x/a/link.png", tarfile.SYMTYPE), ("x/a/pipe.png", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    before = set(tmp_path.iterdir())
    data = load_data(path)
    assert data.classes == ("a", "b")
    assert sum(map(len, data.splits.values())) == 4
    assert set(tmp_path.iterdir()) == before


def test_shards_with_splits_in_their_names_and_equal_keys(tmp_path):
    for split, n in (("train", 3), ("val", 1)):
        for shard in range(n):
            files = {"0.png": png(), "0.json": json.dumps({"label": shard, "caption": f"{split} {shard}"}).encode()}
            tar(tmp_path / f"{split}-{shard:05}.tar", files)
    data = load_data(tmp_path)
    assert {key: len(split) for key, split in data.splits.items()} == {"train": 3, "valid": 1}
    assert data.train.captions == ("train 0", "train 1", "train 2")
    assert data.train.names[2] == "train-00002.tar:0.png"
    assert data.train.labels.tolist() == [0, 1, 2]


def test_a_broken_shard_is_named_and_the_rest_read(tmp_path):
    for shard in range(3):
        tar(tmp_path / f"{shard}.tar", {f"{k}.png": png() for k in range(3)})
    whole = (tmp_path / "2.tar").read_bytes()
    (tmp_path / "2.tar").write_bytes(whole[:700])
    report = check(tmp_path)
    assert report.read == 6
    assert {name for name, _ in report.bad} >= {"2.tar"}
    (tmp_path / "3.tar").write_bytes(b"no tar at all" * 100)
    assert "3.tar" in {name for name, _ in check(tmp_path).bad}
    with pytest.raises(UserError, match="nothing in it can be read"):
        load_data(tmp_path / "3.tar")


# -- idx


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_by_path(tmp_path, packed):
    images = RNG.integers(0, 256, (30, 6, 7), dtype=np.uint8)
    labels = np.arange(30, dtype=np.uint8) % 3 + 4
    end, pack = (".gz", gzip.compress) if packed else ("", bytes)
    for word, n in (("train", 30), ("t10k", 5)):
        (tmp_path / f"{word}-images-idx3-ubyte{end}").write_bytes(pack(idx(images[:n])))
        (tmp_path / f"{word}-labels-idx1-ubyte{end}").write_bytes(pack(idx(labels[:n])))
    data = load_data(tmp_path / f"train-images-idx3-ubyte{end}")
    assert {key: len(split) for key, split in data.splits.items()} == {"train": 27, "valid": 3, "test": 5}
    assert data.shape == (1, 6, 7)
    assert data.classes == ("4", "5", "6")
    assert np.array_equal(data.splits["test"].images[:, 0].numpy(), images[:5])
    assert data.splits["test"].labels.tolist() == [0, 1, 2, 0, 1]
    (tmp_path / f"train-labels-idx1-ubyte{end}").write_bytes(pack(idx(labels[:7])))
    data = load_data(tmp_path / f"train-images-idx3-ubyte{end}")
    assert data.classes == ()
    assert any("holds axes (7,) for 30 images; one each is needed" in note for note in data.notes)
    assert "30 of the 30 train images have no class: classes are not used" in data.notes


# -- parquet and hub


@pytest.mark.slow
@pytest.mark.parametrize("nested", [False, True])
def test_a_value_that_a_parquet_file_holds_once_is_held_once(tmp_path, nested):
    """Rows that share their bytes by a dictionary: a file of kilobytes, and gigabytes if each row had its own."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows, content = 2_000, png() + bytes(100_000)
    values = pa.array([{"bytes": content, "path": None} for _ in range(rows)]) if nested else pa.array([content] * rows)
    pq.write_table(pa.table({"image": values}), tmp_path / "a.parquet", use_dictionary=True, compression="snappy")
    del values
    assert (tmp_path / "a.parquet").stat().st_size < 10 * len(content)
    before = pa.total_allocated_bytes()
    column = parquet._images(tmp_path / "a.parquet", 0, "image")
    assert pa.total_allocated_bytes() - before < 20 * len(content)
    value = column[rows - 1].as_py()
    assert (value["bytes"] if nested else value) == content
    parquet._images.cache_clear()


def test_captions_that_a_parquet_file_holds_once_are_bounded_in_all(tmp_path, monkeypatch):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"image": [png()] * 3, "caption": ["x" * 1000] * 3})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=True)
    assert load_data(tmp_path / "a.parquet").splits
    monkeypatch.setattr(parquet, "LARGEST_TEXTS", 2_999)
    with pytest.raises(UserError, match="the column caption holds 3,000 bytes; at most 2,999 are read"):
        load_data(tmp_path / "a.parquet", valid=0.5)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"pip install .*\[hub\]"):
        load_data(tmp_path / "a.parquet")


def table(n, first=0):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow (extra hub) is not installed")
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    rows = {
        "image": [{"bytes": png(10 * (first + k)), "path": f"{k}.png"} for k in range(n)],
        "label": [k % 2 for k in range(n)],
        "text": [f"text {k}" for k in range(n)],
    }
    return arrow.table(rows).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def hub_table(labels, names=("cat", "dog", "fish"), column="label"):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow (extra hub) is not installed")
    features = {column: {"names": list(names), "_type": "ClassLabel"}} if names else {}
    images = [{"bytes": png(k), "path": f"{k}.png"} for k in range(len(labels))]
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    return arrow.table({"image": images, column: labels}).replace_schema_metadata(meta)


@pytest.mark.parametrize("names", [("cat", "dog", "fish"), None])
def test_minus_one_in_parquet_is_no_class(tmp_path, names):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow (extra hub) is not installed")
    parquet.write_table(hub_table([0, 1, 2] * 4, names), tmp_path / "train.parquet")
    parquet.write_table(hub_table([-1] * 3, names), tmp_path / "test.parquet")
    data = load_data(tmp_path)
    assert data.classes == (names or ("0", "1", "2"))
    assert data.splits["test"].labels is None
    assert sorted(data.train.labels.tolist() + data.valid.labels.tolist()) == sorted([0, 1, 2] * 4)
    assert "3 of the 3 test images have no class" in data.notes


def test_a_label_beyond_the_names_is_named_with_row_and_value(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow (extra hub) is not installed")
    parquet.write_table(hub_table([0, 1, 3, -2] * 3), tmp_path / "train.parquet")
    report, data = check(tmp_path), load_data(tmp_path)
    assert report.unmatched[:2] == [
        "train.parquet row 2: label 3, where classes go from 0 to 2",
        "train.parquet row 3: label -2, where classes go from 0 to 2",
    ]
    assert len(report.unmatched) == 6
    assert not report.ok
    assert data.classes == ()
    assert "6 of the 12 train images have no class: classes are not used" in data.notes


def test_class_names_that_are_numbers_stand_at_their_positions(tmp_path):
    """The number 1 of the names "1", "2" is the second, "2"."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow (extra hub) is not installed")
    parquet.write_table(hub_table([0, 1] * 6, ("1", "2"), "fine_label"), tmp_path / "train.parquet")
    data = load_data(tmp_path)
    number = {
        name: data.classes[label]
        for split in data.splits.values()
        for name, label in zip(split.names, split.labels, strict=True)
    }
    assert data.classes == ("1", "2")
    assert number == {name: str(int(name.rpartition("row ")[2]) % 2 + 1) for name in number}


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([[0, 1]] * 8, "label (several values, not one)"),
        ([k + 0.5 for k in range(8)], "label (numbers with a fraction)"),
    ],
)
def test_parquet_labels_that_are_no_classes_are_named(tmp_path, labels, words):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow (extra hub) is not installed")
    parquet.write_table(hub_table(labels, None), tmp_path / "train.parquet")
    data = load_data(tmp_path)
    assert data.classes == ()
    assert f"no column of classes; not used: {words}" in data.notes


def test_parquet_files(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow (extra hub) is not installed")
    (tmp_path / "data").mkdir()
    parquet.write_table(table(12), tmp_path / "data" / "train-00000-of-00001.parquet", row_group_size=5)
    parquet.write_table(table(3, 20), tmp_path / "data" / "test-00000-of-00001.parquet")
    data = load_data(tmp_path, valid=0.25)
    assert {key: len(split) for key, split in data.splits.items()} == {"train": 9, "valid": 3, "test": 3}
    assert data.classes == ("cat", "dog")
    assert data.splits["test"].images[:, 0, 0, 0].tolist() == [200, 210, 220]
    for split in (data.train, data.valid):
        levels = split.images[:, 0, 0, 0] // 10
        assert split.labels.tolist() == (levels % 2).tolist()
        assert split.captions == tuple(f"text {k}" for k in levels.tolist())
    whole = (tmp_path / "data" / "test-00000-of-00001.parquet").read_bytes()
    (tmp_path / "one.parquet").write_bytes(whole[:-20])
    with pytest.raises(UserError, match="not a whole parquet file"):
        load_data(tmp_path / "one.parquet")


def test_metadata_in_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow (extra hub) is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path, {f"{k}.png": png() for k in range(6)})
    parquet.write_table(arrow.Table.from_pylist(ROWS), tmp_path / "metadata.parquet")
    assert told(load_data(tmp_path)) == {row["file_name"]: (row["label"], row["text"]) for row in ROWS}


class Image_:  # the features of the stand-in library
    def __init__(self, decode=True):
        self.decode = decode


Image_.__name__ = "Image"


class ClassLabel:
    names = ("cat", "dog")


class Rows:
    """What the library gives for a split: rows, columns, and features."""

    def __init__(self, n, first=0, decode=True):
        self.n, self.first, self.decode = n, first, decode
        self.features = {"image": Image_(), "label": ClassLabel(), "caption": object()}

    def __len__(self):
        return self.n

    def __getitem__(self, key):
        if key == "label":
            return [k % 2 for k in range(self.n)]
        if key == "caption":
            return [f"text {k}" for k in range(self.n)]
        assert not self.decode  # the bytes are asked for, not a picture decoded elsewhere
        return {"image": {"bytes": png(10 * (self.first + key)) if key != 1 else b"broken", "path": None}}

    def cast_column(self, name, feature):
        return Rows(self.n, self.first, feature.decode)

    def select_columns(self, names):
        return self


def test_a_data_set_of_the_hub(monkeypatch):
    stand_in = types.ModuleType("datasets")
    stand_in.Image = Image_
    result = {"train": Rows(6), "test": Rows(3, 10), "extra": Rows(1)}
    stand_in.load_dataset = lambda name: {"someone/things": result}[name]
    monkeypatch.setitem(sys.modules, "datasets", stand_in)
    data = load_data("hf:someone/things", valid=0.2)
    assert data.source == "hf:someone/things"
    assert data.name == "things"
    assert {key: len(split) for key, split in data.splits.items()} == {"train": 4, "valid": 1, "test": 2}
    assert data.splits["test"].images[:, 0, 0, 0].tolist() == [100, 120]
    assert data.splits["test"].captions == ("text 0", "text 2")
    assert data.classes == ("cat", "dog")
    assert [line.split(":")[0] for line in data.skipped] == ["train row 1", "test row 1"]
    assert any("splits skipped: extra" in note for note in data.notes)
    with pytest.raises(UserError, match="cannot load hf:nothing"):
        load_data("hf:nothing")


def test_local_files_through_the_hubs_own_library(tmp_path, monkeypatch):
    """Runs where the extra `hub` is installed."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets", minversion="4")
    for split, count in (("train", 6), ("test", 2)):
        for k in range(count):
            path = tmp_path / "set" / split / ("cat", "dog")[k % 2] / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(10 * k))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = load_data(f"hf:{tmp_path / 'set'}", valid=0.2)
    assert {key: len(split) for key, split in data.splits.items()} == {"train": 5, "valid": 1, "test": 2}
    assert data.classes == ("cat", "dog")
    pixels = {
        int(row[0, 0, 0]): int(label)
        for row, label in zip(data.splits["test"].images, data.splits["test"].labels, strict=True)
    }
    assert pixels == {0: 0, 10: 1}


def test_the_hub_without_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install .*\[hub\]"):
        load_data("hf:someone/things")
