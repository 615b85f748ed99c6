"""Data of others that are damaged, or made to take all memory, time or disk, or to reach what is not theirs.

The quick tests call the functions with small bounds; the slow ones run the command line on files of the full size.
"""

import bz2
import gzip
import io
import lzma
import os
import struct
import sys
import tarfile
import types
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reliability.bounds import MEMORY, refused, run_within

from trilemma.data import Loader, check, load_data, loader
from trilemma.data.decoding import limits, unpack
from trilemma.data.decoding.listing import listed
from trilemma.data.decoding.tar import HEADER_LIMIT, IN_A_ROW, members
from trilemma.errors import UserError
from trilemma.pictures.png import KEY, read_metadata, save_png

BLOCK = 512


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "decoded"


def png(level: int = 0, side: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side), level).save(file, "png")
    return file.getvalue()


def images(folder: Path, n: int = 4) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(n):
        (folder / f"{k}.png").write_bytes(png(k))
    return folder


# -- zip


def zeros(length: int) -> bytes:
    """A bzip2 stream of that many zeros, made without holding them."""
    packer = bz2.BZ2Compressor()
    return b"".join([*(packer.compress(bytes(2**20)) for _ in range(length >> 20)), packer.flush()])


def zip_of(path: Path, name: str, packed: bytes, method: int, stated: int) -> Path:
    """A zip with one member as it is packed, which states a length, and then images that can be read."""
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(4):
            archive.writestr(f"{k}.png", png(k))
        archive.writestr(name, b"")
    content = bytearray(path.read_bytes())
    local, central = content.rfind(b"PK\3\4"), content.rfind(b"PK\1\2")
    sizes = struct.pack("<II", len(packed), stated)
    content[central + 10 : central + 12] = content[local + 8 : local + 10] = struct.pack("<H", method)
    content[central + 20 : central + 28] = content[local + 18 : local + 26] = sizes
    first, end = content.find(b"PK\1\2"), content.rfind(b"PK\5\6")
    content[end + 16 : end + 20] = struct.pack("<I", first + len(packed))
    path.write_bytes(content[:first] + packed + content[first:])
    return path


def lzma_member(content: bytes) -> bytes:
    """As a zip holds it: version, length of the settings, settings, stream."""
    alone = lzma.compress(content, lzma.FORMAT_ALONE, preset=0)
    return b"\x09\x04\x05\x00" + alone[:5] + alone[13:]


@pytest.mark.parametrize(
    ("method", "pack"),
    [
        (zipfile.ZIP_DEFLATED, lambda content: zlib.compress(content)[2:-4]),
        (zipfile.ZIP_BZIP2, bz2.compress),
        (zipfile.ZIP_LZMA, lzma_member),
    ],
)
def test_a_member_unpacks_to_no_more_than_a_byte_beyond_its_length(method: int, pack: Any) -> None:
    content = bytes(range(256)) * 400
    info = zipfile.ZipInfo()
    info.compress_type = method
    for stated in (0, 1, 1000, len(content) - 1, len(content), len(content) + 9):
        info.file_size = stated
        assert unpack.inflate(pack(content), info) == content[: stated + 1]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zips_of_all_methods_are_read(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        for k in range(3):
            archive.writestr(f"{k}.png", png(50 * k))
    data = load_data(tmp_path / "a.zip")
    levels = sorted(int(image[0, 0, 0]) for split in data.splits.values() for image in split.images)
    assert levels == [0, 50, 100]


def test_members_that_lie_or_cannot_be_unpacked_are_named(tmp_path: Path) -> None:
    def of(packed: bytes, method: int, stated: int) -> str:
        ((name, why),) = check(zip_of(tmp_path / "a.zip", "x.png", packed, method, stated)).bad
        assert name == "x.png"
        return why

    assert "checksum" in of(zeros(2**22), zipfile.ZIP_BZIP2, 1000)
    assert "checksum" in of(lzma_member(bytes(2**22)), zipfile.ZIP_LZMA, 1000)
    huge = bytearray(lzma_member(bytes(100)))
    huge[5:9] = struct.pack("<I", 2**31)  # the dictionary that it asks memory for
    assert "memory" in of(bytes(huge), zipfile.ZIP_LZMA, 100).lower()
    assert "packed by method 99" in of(b"abc", 99, 3)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz", "tar.bz2", "npz"])
def test_what_becomes_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.bmp", bytes(2**20))
    elif kind == "npz":
        np.savez_compressed(path, x=np.zeros((2**8, 64, 64), np.uint8))
    else:
        with tarfile.open(path, f"w:{kind[4:]}") as archive:
            info = tarfile.TarInfo("a.bmp")
            info.size = 2**20
            archive.addfile(info, io.BytesIO(bytes(2**20)))
    monkeypatch.setattr(unpack, "SMALL", 2**20 - 1)
    monkeypatch.setattr(unpack, "RATIO", 2)
    monkeypatch.setattr(unpack, "STREAM_RATIO", 2)
    with pytest.raises(UserError, match=r"1,048,575 would be read; if you trust it, unpack it yourself"):
        load_data(path)


def test_a_file_may_become_so_many_times_as_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(bytes(10))
    monkeypatch.setattr(unpack, "SMALL", 100)
    for ratio, most in ((5, 100), (20, 200)):
        for name, stream in (("RATIO", False), ("STREAM_RATIO", True)):
            monkeypatch.setattr(unpack, name, ratio)
            unpack.check_unpacked(tmp_path / "a", most, stream=stream)
            with pytest.raises(UserError, match=f"has 10 bytes and unpacks to {most + 1}"):
                unpack.check_unpacked(tmp_path / "a", most + 1, stream=stream)


def test_the_number_of_files_follows_from_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for k in range(6):
            archive.addfile(tarfile.TarInfo(f"{k}.png"))
    images(tmp_path / "b", 6)
    np.save(tmp_path / "c.npy", np.zeros((6, 4, 4), np.uint8))
    (tmp_path / "d.idx3-ubyte").write_bytes(b"\0\0\x08\x03" + struct.pack(">III", 6, 1, 1) + bytes(6))
    monkeypatch.setattr(limits, "FEWEST", 5)
    monkeypatch.setenv("TRILEMMA_MEMORY", "100")
    for name in ("a.tar", "b", "c.npy"):
        with pytest.raises(UserError, match=r"more than 5 images or files.*TRILEMMA_MEMORY"):
            load_data(tmp_path / name)
    with pytest.raises(UserError, match="more than 5 images or files"):
        load_data(tmp_path / "d.idx3-ubyte")


# -- tar


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def blocks(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def record(key: str, value: bytes) -> bytes:
    """A record of a pax header, whose length counts itself."""
    rest = b" " + key.encode() + b"=" + value + b"\n"
    length = next(n for n in range(len(rest), len(rest) + 9) if n == len(str(n)) + len(rest))
    return str(length).encode() + rest


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_that_tarfile_finds(tmp_path: Path, form: int) -> None:
    long = "folder/" * 30 + "ä" * 40
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=form, pax_headers={"comment": "all"}) as archive:
        for name, size in (("a.png", 0), ("b/c.png", 1), ("d", 512), ("e", 513), (long, 700)):
            info = tarfile.TarInfo(name if form != tarfile.USTAR_FORMAT else name[:90])
            info.size, info.mtime = size, 1.5 if form == tarfile.PAX_FORMAT else 1
            archive.addfile(info, io.BytesIO(bytes([7]) * size))
        for name, kind in (("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("dir", tarfile.DIRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "d" if form == tarfile.USTAR_FORMAT else long
            archive.addfile(info)
    place = lambda info: (info.name, info.linkname, info.type, info.size, info.offset_data)  # noqa: E731
    with path.open("rb") as file, tarfile.open(path) as archive:
        assert [place(info) for info in members(file)] == [place(info) for info in archive]


def test_pax_headers_are_records_of_a_stated_length() -> None:
    def names(content: bytes) -> list[str]:
        head = header("pax", len(content), tarfile.XHDTYPE) + blocks(content)
        return [info.name for info in members(io.BytesIO(head + header("a.png", 0) + bytes(2 * BLOCK)))]

    assert names(record("path", b"b.png")) == ["b.png"]
    assert names(record("comment", b"x=y") + record("path", b"c=d\ne.png")) == ["c=d\ne.png"]
    assert names(record("path", b"b.png") + bytes(9)) == ["b.png"]
    for content in (
        b"9" * 100_000,
        b"0 path=a\n",
        b"-5 path=a\n",
        b"99 path=a\n",
        b"9 path=a ",
        b"path=a\n",
        b"8 path\n",
    ):
        with pytest.raises(tarfile.TarError, match="broken pax header"):
            names(content)
    with pytest.raises(tarfile.TarError, match="broken length"):
        names(record("size", b"-7"))


def test_headers_of_a_tar_are_bounded() -> None:
    def read(content: bytes) -> list[str]:
        return [info.name for info in members(io.BytesIO(content))]

    end = header("a.png", 0) + bytes(2 * BLOCK)
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE):
        with pytest.raises(tarfile.TarError, match=f"at most {HEADER_LIMIT:,} are read"):
            read(header("x", HEADER_LIMIT + 1, kind) + end)
    one = header("x", 2, tarfile.GNUTYPE_LONGNAME) + blocks(b"n\0")
    assert read(one * IN_A_ROW + end) == ["n"]
    with pytest.raises(tarfile.TarError, match=f"more than {IN_A_ROW} headers"):
        read(one * (IN_A_ROW + 1) + end)
    with pytest.raises(tarfile.TarError, match="ends early"):
        read(header("a.png", 10_000))
    negative = bytearray(header("a.png", 0))
    negative[124:136] = b"\xff" * 12  # base 256, two's complement
    negative[148:156] = b"%06o\0 " % (sum(negative[:148]) + sum(negative[156:]) + 8 * 32)
    with pytest.raises(tarfile.TarError, match="below zero"):
        read(bytes(negative))


def test_what_follows_a_file_with_holes_is_read() -> None:
    """Of GNU's old form, whose map may go on in blocks of its own, and of the new one, in a pax header."""
    old = bytearray(header("old", BLOCK, tarfile.GNUTYPE_SPARSE))
    old[482] = 1
    old[148:156] = b"%06o\0 " % (sum(old[:148]) + sum(old[156:]) + 8 * 32)
    more = bytearray(BLOCK)
    more[504] = 1
    keys = record("GNU.sparse.major", b"1") + record("GNU.sparse.name", b"new")
    new = header("x", len(keys), tarfile.XHDTYPE) + blocks(keys) + header("y", 3) + blocks(b"abc")
    whole = bytes(old) + bytes(more) + bytes(BLOCK) + blocks(b"data") + new + header("a.png", 0) + bytes(2 * BLOCK)
    result = list(members(io.BytesIO(whole)))
    assert [(info.name, info.issparse()) for info in result] == [("old", True), ("new", True), ("a.png", False)]


# -- arrays and idx


@pytest.mark.parametrize("limit", ["1000", None])
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_a_header_that_states_more_than_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: str | None
) -> None:
    file = io.BytesIO()
    np.save(file, np.zeros((9, 16, 16), np.uint8))
    lying = file.getvalue().replace(b"(9, 16, 16)", b"(%d, 4, 4)" % (10**12)).replace(b" " * 9 + b"\n", b"\n")
    length = len(lying) - 9 * 256 - 10
    lying = lying[:8] + struct.pack("<H", length) + lying[10:]
    path = tmp_path / name
    if name == "a.npy":
        path.write_bytes(lying)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", lying)
    if limit:
        monkeypatch.setenv("TRILEMMA_MEMORY", limit)
    with pytest.raises(UserError, match="its header states 16,000,000,000,000 bytes"):
        load_data(path)


@pytest.mark.parametrize("limit", ["100", None])
def test_arrays_that_numpy_would_not_have_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str | None
) -> None:
    if limit:
        monkeypatch.setenv("TRILEMMA_MEMORY", limit)
    file = io.BytesIO()
    np.save(file, np.zeros((9, 4, 4), np.uint8))
    long = b"\x93NUMPY\2\0" + struct.pack("<I", 2**31) + b" " * 2**14
    for content, method, why in (
        (file.getvalue(), zipfile.ZIP_BZIP2, "not packed as np.savez_compressed"),
        (file.getvalue(), zipfile.ZIP_LZMA, "not packed as np.savez_compressed"),
        (long, zipfile.ZIP_DEFLATED, "cannot be read"),
    ):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
            archive.writestr("x.npy", content)
        with pytest.raises(UserError, match=why):
            load_data(tmp_path / "a.npz")
    (tmp_path / "a.npy").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read"):
        load_data(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:  # what stands beside the images does them no harm
        archive.writestr("x.npy", file.getvalue())
        archive.writestr("README.txt", "about")
    assert sum(map(len, load_data(tmp_path / "b.npz").splits.values())) == 9


def test_an_idx_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trilemma.data.sources import idx

    path = tmp_path / "train.idx3-ubyte.gz"
    with gzip.open(path, "w") as file:
        file.write(b"\0\0\x08\x03" + struct.pack(">III", 4, 32, 32) + bytes(4096))
    assert sum(map(len, load_data(path).splits.values())) == 4
    monkeypatch.setattr(idx, "HELD", 4095)
    monkeypatch.setenv("TRILEMMA_MEMORY", "100")
    with pytest.raises(UserError, match=r"holds 4,096 bytes, more than the 4,095 .* TRILEMMA_MEMORY"):
        load_data(path)


# -- folders


def test_links_are_walked_once(tmp_path: Path) -> None:
    """Each of 40 folders has two links to the next: 2^40 paths."""
    folder = tmp_path / "d"
    images(folder / "00")
    for k in range(40):
        (folder / f"{k + 1:02}").mkdir()
        for name in "ab":
            (folder / f"{k:02}" / name).symlink_to(folder / f"{k + 1:02}", target_is_directory=True)
    (folder / "root").symlink_to("/", target_is_directory=True)
    data = load_data(folder)
    assert sum(map(len, data.splits.values())) == 4
    with listed(folder) as files:
        assert "root to a folder around the source" in files.links
        assert len(files.links) == 81


@pytest.mark.slow
def test_deep_folders_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    inner = folder
    for _ in range(1200):  # more than functions may call themselves
        inner = inner / "x"
        os.mkdir(inner)
    images(inner)
    try:
        assert sum(map(len, load_data(folder).splits.values())) == 4
    finally:  # from below: what tidies up after the tests calls itself for each folder
        for file in inner.iterdir():
            file.unlink()
        while inner != folder:
            inner.rmdir()
            inner = inner.parent


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    for name in ("a.tar", "a.zip", "a.parquet", "a.png", "metadata.jsonl", "0.json"):
        folder = images(tmp_path / name.replace(".", "-"))
        os.mkfifo(folder / name)
        assert sum(map(len, load_data(folder).splits.values())) == 4
    empty = tmp_path / "empty"
    empty.mkdir()
    os.mkfifo(empty / "a.parquet")
    with pytest.raises(UserError, match="holds no images"):
        load_data(empty)
    os.mkfifo(tmp_path / "b.tar")
    with pytest.raises(UserError, match="not of a kind"):
        load_data(tmp_path / "b.tar")


# -- metadata

DEEP, LONG = "[" * 100_000, "9" * 5000


@pytest.mark.parametrize("value", [DEEP, LONG, '{"a": ' * 100 + "1" + "}" * 100, "NaN", "1e999", '"\\ud800"'])
def test_any_json_beside_images_leaves_them_whole(tmp_path: Path, value: str) -> None:
    folder = images(tmp_path / "d")
    (folder / "0.json").write_text(value)
    (folder / "1.json").write_text('{"label": ' + value + "}")
    (folder / "metadata.jsonl").write_text('{"file_name": "2.png", "text": "two"}\n{"label": ' + value + "}\n")
    (folder / "dataset.json").write_text('{"labels": [["3.png", ' + value + "]]}")
    data = load_data(folder)
    captions = {
        name: caption
        for split in data.splits.values()
        for name, caption in zip(split.names, split.captions or [""] * 4, strict=False)
    }
    assert set(captions) == {f"{k}.png" for k in range(4)}
    assert captions["2.png"] == "two"


def test_a_table_has_as_many_rows_as_there_may_be_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = images(tmp_path / "d")
    (folder / "metadata.jsonl").write_text("1\n" * 200)
    monkeypatch.setattr(limits, "FEWEST", 100)
    monkeypatch.setenv("TRILEMMA_MEMORY", "1000")
    assert "metadata.jsonl: not used: more than 100 rows" in check(folder).unmatched


def test_rows_of_the_hub_open_no_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, fetched, private = tmp_path / "hub", tmp_path / "downloads", images(tmp_path / "home")
    own = images(hub / "datasets--who--what" / "snapshots" / "1", 2)
    got = images(fetched / "extracted" / "abc", 2)
    (own / "link.png").symlink_to(private / "0.png")
    paths = [*own.iterdir(), *got.iterdir(), private / "1.png", own / ".." / ".." / ".." / ".." / "home" / "2.png"]

    class Picture:
        def __init__(self, decode: bool = True) -> None:
            pass

    Picture.__name__ = "Image"

    class Rows:
        def __init__(self) -> None:
            self.features = {"image": Picture()}

        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, k: int) -> dict[str, Any]:
            return {"image": {"bytes": None, "path": str(paths[k])}}

        def cast_column(self, *_: object) -> "Rows":
            return self

        def select_columns(self, _: object) -> "Rows":
            return self

    library: Any = types.ModuleType("datasets")
    library.Image, library.load_dataset = Picture, lambda name: Rows()
    library.config = types.SimpleNamespace(DOWNLOADED_DATASETS_PATH=fetched)
    constants: Any = types.ModuleType("huggingface_hub.constants")
    constants.HF_HUB_CACHE = str(hub)
    package: Any = types.ModuleType("huggingface_hub")
    package.constants = constants
    for module in (library, package, constants):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    data = load_data("hf:who/what")
    assert sum(map(len, data.splits.values())) == 4
    assert [line.partition(": ")[2].partition(",")[0] for line in data.skipped] == [
        "it names a file outside the data set"
    ] * 3


# -- requests and pictures


def test_what_is_asked_for_by_mistake_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images(tmp_path / "d"))
    for empty in ("", " "):
        with pytest.raises(UserError, match="name of the data is empty"):
            load_data(empty)
    with pytest.raises(UserError, match=r"0\.png is one image; put it in a folder with others"):
        load_data("0.png")
    with pytest.raises(UserError, match="hf: has no name"):
        monkeypatch.setitem(sys.modules, "datasets", types.ModuleType("datasets"))
        load_data("hf:")
    data = load_data(".")
    monkeypatch.setattr(loader, "memory_bytes", lambda: 4 * 64 * 10)
    Loader(data.train, batch=10, seed=0).batch_at(0)
    with pytest.raises(UserError, match=r"batch=11 images take 2,816 bytes, more memory than the machine has"):
        Loader(data.train, batch=11, seed=0)


def test_the_entry_of_a_picture_is_read_without_its_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import PngImagePlugin

    path = save_png(Image.new("L", (9, 9)), tmp_path / "a.png", {"n": 1})
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda image: 1 / 0)
    assert read_metadata(path) == {"n": 1}
    monkeypatch.undo()
    for text in (DEEP, '{"n": ' + LONG + "}", "[1]"):
        info = PngImagePlugin.PngInfo()
        info.add_itxt(KEY, text)
        Image.new("L", (9, 9)).save(path, pnginfo=info)
        with pytest.raises(UserError, match="does not say how it was made"):
            read_metadata(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="not a plain file"):
        read_metadata(tmp_path / "pipe")


# -- the command line, at full size


def lying_zip(path: Path, packed: bytes, method: int) -> str:
    """Nothing but images that state 1,000 bytes and hold gigabytes."""
    zip_of(path / "a.zip", "x.png", packed, method, 1000)
    return "a.zip"


def bomb_zip(folder: Path) -> str:
    """Many images of 250 MB in some kilobytes each, as long as they say."""
    packed = zeros(250 * 2**20)
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("0.png", png())
    for k in range(1, 5):
        zip_of(folder / f"{k}.zip", "x.png", packed, zipfile.ZIP_BZIP2, 250 * 2**20)
    (folder / "d").mkdir()
    for k in range(1, 5):
        (folder / f"{k}.zip").rename(folder / "d" / f"{k}.zip")
    return "d"


def npz(folder: Path) -> str:
    with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_BZIP2) as archive, archive.open("x.npy", "w") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (2000, 1024, 1024)}
        )
        for _ in range(2000):
            file.write(bytes(2**20))
    return "a.npz"


def packed_idx(folder: Path) -> str:
    with gzip.open(folder / "a.idx3-ubyte.gz", "w", 1) as file:
        file.write(b"\0\0\x08\x03" + struct.pack(">III", 3000, 1024, 1024))
        for _ in range(3000):
            file.write(bytes(2**20))
    return "a.idx3-ubyte.gz"


def tar_header(folder: Path, kind: bytes) -> str:
    with gzip.open(folder / "a.tar.gz", "w", 1) as file:
        file.write(header("x", 2**31, kind))
        for _ in range(2**11):
            file.write(bytes(2**20))
    return "a.tar.gz"


def digits(folder: Path) -> str:
    content = b"9" * 1_000_000
    (folder / "a.tar").write_bytes(header("x", len(content), tarfile.XHDTYPE) + blocks(content) + header("a.png", 0))
    return "a.tar"


def names_in_a_row(folder: Path) -> str:
    one = header("x", 2, tarfile.GNUTYPE_LONGNAME) + blocks(b"n\0")
    (folder / "a.tar").write_bytes(one * 3000 + header("a.png", 0) + bytes(2 * BLOCK))
    return "a.tar"


def huge_npy(folder: Path) -> str:
    with (folder / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (40 * 10**6, 1000, 1000)}
        )
    return "a.npy"


def pipe(folder: Path) -> str:
    (folder / "d").mkdir()
    os.mkfifo(folder / "d" / "a.tar")
    os.mkfifo(folder / "d" / "a.parquet")
    return "d"


REFUSED = {
    "npz by bzip2": npz,
    "idx": packed_idx,
    "long name": lambda folder: tar_header(folder, tarfile.GNUTYPE_LONGNAME),
    "pax header": lambda folder: tar_header(folder, tarfile.XHDTYPE),
    "long file": lambda folder: tar_header(folder, tarfile.REGTYPE),
    "digits": digits,
    "names in a row": names_in_a_row,
    "npy of 40 TB": huge_npy,
    "pipes": pipe,
    "no name": lambda folder: "",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    source = REFUSED[name](tmp_path)
    sentence = refused(
        tmp_path, "train", "vae", source, "steps=1", "device=cpu", env={"TRILEMMA_MEMORY": str(5 * 10**7)}
    )
    assert sentence


def long_texts(folder: Path) -> str:
    images(folder / "d", 64)
    for k in range(64):
        (folder / "d" / f"{k}.txt").write_text("\u732b" * (20_000 if k % 2 else 660))
    return "d"


def doubling_links(folder: Path) -> str:
    images(folder / "d" / "00")
    for k in range(30):
        (folder / "d" / f"{k + 1:02}").mkdir()
        for name in "ab":
            (folder / "d" / f"{k:02}" / name).symlink_to(folder / "d" / f"{k + 1:02}", target_is_directory=True)
    return "d"


READ = {
    "bzip2 that lies": lambda folder: lying_zip(folder, zeros(3 * 2**30), zipfile.ZIP_BZIP2),
    "LZMA that lies": lambda folder: lying_zip(folder, lzma_member(bytes(2**30)), zipfile.ZIP_LZMA),
    "large members": bomb_zip,
    "long texts": long_texts,
    "links": doubling_links,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", READ)
def test_the_rest_is_read_within_the_bounds(tmp_path: Path, name: str) -> None:
    source = READ[name](tmp_path)
    process = run_within(tmp_path, "data", "show", source, "out=a.png")
    assert (process.code, process.err) == (0, ""), process
    assert process.peak < MEMORY
