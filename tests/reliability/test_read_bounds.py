"""Files of others are read within bounds of kind, size, depth and digits."""

import os

import pytest

from trilemma.errors import UserError
from trilemma.files import DEEPEST_JSON, open_plain, parse_json, read_json, read_plain


def nested(depth):
    return "[" * depth + "]" * depth


def test_only_plain_files_are_opened(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("a")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("a", "link"):
        with open_plain(tmp_path / name) as file:
            assert file.read() == b"abc"
    for name in ("pipe", "zero", "."):
        with pytest.raises(UserError, match="is not a plain file"):
            open_plain(tmp_path / name)


def test_size_is_bounded_exactly(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert read_plain(tmp_path / "a", 3) == b"abc"
    with pytest.raises(UserError, match="more than 2 bytes"):
        read_plain(tmp_path / "a", 2)


def test_depth_and_digits_of_json_are_bounded(tmp_path):
    parse_json(nested(DEEPEST_JSON))
    for text in (nested(DEEPEST_JSON + 1), nested(100_000)):
        with pytest.raises(UserError, match="nested"):
            parse_json(text)
    assert parse_json(str(2**64 - 1)) == 2**64 - 1
    for text in (str(2**64), "-" + "9" * 30, '{"a": [' + "9" * 5_000 + "]}"):
        with pytest.raises(UserError, match=r"integer|digits"):
            parse_json(text)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}", b"{'a': 1}"])
def test_a_file_that_is_no_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")
