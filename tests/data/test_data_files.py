"""Files are whole or absent, and pictures keep all 256 levels and say how they were made."""

import errno
import hashlib
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from trilemma.errors import UserError
from trilemma.files import sha256_of, write_atomic, write_json
from trilemma.pictures.grid import LINES, MORE, _wrap, font, grid
from trilemma.pictures.levels import to_uint8
from trilemma.pictures.png import read_metadata, save_png


def test_write_replaces_the_whole_file(tmp_path):
    path = tmp_path / "new folder" / "a.txt"
    write_atomic(path, "first, and longer")
    write_atomic(path, b"second")
    assert path.read_bytes() == b"second"
    assert os.listdir(path.parent) == ["a.txt"]
    assert sha256_of(path) == hashlib.sha256(b"second").hexdigest()


def test_json_keeps_letters(tmp_path):
    path = write_json(tmp_path / "a.json", {"name": "Ảnh đẹp", "n": [1, 2.5, None]})
    assert json.loads(path.read_text("utf-8")) == {"name": "Ảnh đẹp", "n": [1, 2.5, None]}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_full_disk_keeps_the_old_file_and_says_what_is_needed(tmp_path, monkeypatch, code):
    path = write_atomic(tmp_path / "a.bin", b"old")

    def fail(number):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=r"a\.bin.*12,345 bytes needed.*bytes free"):
        write_atomic(path, b"x" * 12_345)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_interruption_leaves_no_temporary_file(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a", b"x")
    assert os.listdir(tmp_path) == []


def test_all_levels_survive(tmp_path):
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    assert torch.equal(to_uint8(levels / 255), levels)
    assert to_uint8(torch.tensor([-1.0, 2.0])).tolist() == [0, 255]
    path = save_png(levels / 255, tmp_path / "a.png")
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), levels[0].numpy())


def test_grid_places_and_enlarges_each_image():
    images = torch.randint(0, 256, (5, 3, 2, 4), dtype=torch.uint8)
    sheet = np.asarray(grid(images, columns=3, scale=2, pad=1))
    assert sheet.shape == (1 + 2 * (4 + 1), 1 + 3 * (8 + 1), 3)
    for k in range(5):
        y, x = 1 + k // 3 * 5, 1 + k % 3 * 9
        expected = images[k].permute(1, 2, 0).repeat_interleave(2, 0).repeat_interleave(2, 1)
        assert np.array_equal(sheet[y : y + 4, x : x + 8], expected.numpy())
    assert (sheet[6:10, 19:27] == 255).all()  # the empty place


def test_grid_writes_texts_in_any_alphabet():
    images = torch.zeros(2, 1, 8, 8)
    plain, written = grid(images), grid(images, texts=["Ảnh đẹp", "averyveryverylongnamewithoutanyspace"])
    assert written.width == plain.width
    assert written.height > plain.height
    assert (np.asarray(written)[plain.height :] < 128).any()


@pytest.mark.parametrize("text", ["猫" * 60_000, "https://a.b/" + "x" * 20_000, "word " * 3_000, "a\u0301" * 3_000])
def test_a_long_text_takes_a_few_lines_that_fit(text):
    """At once, too: a test of a minute would show the cost of measuring each beginning for each line."""
    lines = _wrap(text, 64, font().getlength)
    assert len(lines) == LINES
    assert lines[-1].endswith(MORE)
    assert all(font().getlength(line) <= 64 for line in lines)
    assert " ".join(text.split()).startswith(lines[0])
    few, many = (grid(torch.zeros(2, 1, 8, 8), texts=[words, "b"]) for words in ("a\n", text))
    assert many.height - few.height == (LINES - 1) * 13  # px: 11 of a letter and 2 between lines


def test_lines_break_between_words_and_lose_no_letter():
    text = "one two three four five"
    lines = _wrap(text, 90, font().getlength)
    assert " ".join(lines) == text
    assert all(font().getlength(line) <= 90 for line in lines)
    assert "".join(_wrap("averyveryverylongname", 64, font().getlength)) == "averyveryverylongname"
    assert _wrap("", 64, font().getlength) == [""]


def test_metadata_comes_back(tmp_path):
    path = save_png(Image.new("RGB", (2, 2)), tmp_path / "a.png", {"seed": 3, "label": "Ảnh"})
    assert read_metadata(path) == {"seed": 3, "label": "Ảnh"}


def test_metadata_missing_is_said(tmp_path):
    path = save_png(Image.new("L", (2, 2)), tmp_path / "a.png")
    with pytest.raises(UserError, match="does not say how it was made"):
        read_metadata(path)
    with pytest.raises(UserError, match="not found"):
        read_metadata(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"text")
    with pytest.raises(UserError, match="not a readable PNG"):
        read_metadata(tmp_path / "c.png")


def test_a_picture_of_somebody_else_is_never_written_over(tmp_path):
    path, picture = tmp_path / "a.png", Image.new("L", (2, 2))
    picture.save(path)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"a\.png exists and was not written by trilemma.*; choose another out="):
        save_png(picture, path, {"n": 1})
    (tmp_path / "b.txt").write_text("mine")
    with pytest.raises(UserError, match="not written by trilemma"):
        save_png(picture, tmp_path / "b.txt", {"n": 1})
    assert path.read_bytes() == before and (tmp_path / "b.txt").read_text() == "mine"
    path.write_bytes(b"")
    for n in (1, 2):  # an empty file, and then one of ours
        assert read_metadata(save_png(picture, path, {"n": n})) == {"n": n}
