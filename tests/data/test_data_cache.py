"""Decoded sources are kept and opened again, never stale; sources larger than memory stream in the same order."""

import errno
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from data.memory import WATCH
from PIL import Image

from trilemma.data import Loader, load_data
from trilemma.data.decoding import cache, drafts, storage, workers
from trilemma.errors import UserError

SIDE = 32


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TRILEMMA_MEMORY", raising=False)
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def keep_all(monkeypatch):
    """Sources of any size are kept."""
    monkeypatch.setattr(cache, "SMALL", 0)


def flat(k, side=SIDE):
    """A picture of one colour that tells its number."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (k % 256, k // 256 % 256, k // 65536)).save(file, "png", compress_level=1)
    return file.getvalue()


def number(image):
    """The number of such a picture, uint8 or float (3, H, W)."""
    red, green, blue = (int(v) for v in (image[:, 0, 0].float() * (1 if image.dtype == torch.uint8 else 255)).round())
    return red + 256 * green + 65536 * blue


def zipped(path, n, side=SIDE, first=0):
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(n):
            archive.writestr(f"{k:06}.png", flat(first + k, side))
    return path


def folder_of(path, n):
    path.mkdir()
    for k in range(n):
        (path / f"{k:06}.png").write_bytes(flat(k))
    return path


def same(a, b):
    assert a.fingerprint == b.fingerprint
    assert (a.skipped, a.classes, a.shape, list(a.splits)) == (b.skipped, b.classes, b.shape, list(b.splits))
    for split, other in zip(a.splits.values(), b.splits.values(), strict=True):
        assert torch.equal(split.images, other.images)
        assert split.names == other.names
        assert split.captions == other.captions
        assert (split.labels is None) == (other.labels is None)


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_the_second_opening_decodes_nothing(tmp_path, keep_all, monkeypatch, own_cache, kind):
    path = zipped(tmp_path / "a.zip", 50) if kind == "zip" else folder_of(tmp_path / "a", 50)
    first = load_data(path)
    (entry,) = own_cache.iterdir()
    assert (entry / "images.u8").stat().st_size == 50 * 3 * SIDE * SIDE
    assert any("decoded once" in note for note in first.notes)
    monkeypatch.setattr("trilemma.data.sources.entries.decode", None)  # to be called would be an error
    same(load_data(path), first)
    other = load_data(path, seed=1)  # another choice for validation, from the same entry
    assert other.valid.names != first.valid.names
    assert len(list(own_cache.iterdir())) == 1


def test_small_sources_are_not_kept(tmp_path, own_cache):
    load_data(folder_of(tmp_path / "a", 10))
    assert not own_cache.exists()


def test_options_have_entries_of_their_own(tmp_path, keep_all, own_cache):
    path = zipped(tmp_path / "a.zip", 10)
    shapes = {load_data(path, size=size, channels=channels).shape for size in (None, 8) for channels in (1, 3)}
    assert shapes == {(c, s, s) for c in (1, 3) for s in (8, SIDE)}
    assert len(list(own_cache.iterdir())) == 4


def test_a_change_is_seen(tmp_path, keep_all):
    folder = folder_of(tmp_path / "a", 10)
    keys = {cache.key_of([folder], None, None)}

    def changed():
        key = cache.key_of([folder], None, None)
        assert key not in keys
        keys.add(key)

    (folder / "000003.png").write_bytes(flat(77))
    changed()
    assert 77 in {number(i) for split in load_data(folder).splits.values() for i in split.images}
    (folder / "000003.png").unlink()
    changed()
    (folder / "000004.png").rename(folder / "new.png")
    changed()
    (folder / "sub").mkdir()
    (folder / "sub" / "a.txt").write_text("x")
    changed()
    os.utime(folder / "sub" / "a.txt", (1, 1))
    changed()
    (folder / "sub" / "loop").symlink_to(folder, target_is_directory=True)
    changed()
    assert cache.key_of([folder], None, None) in keys  # and without a change it is the same


@pytest.mark.parametrize("damage", ["cut", "no json", "bad json", "other", "half", "one bit", "one bit, sealed"])
def test_a_broken_entry_is_made_again(tmp_path, keep_all, own_cache, damage):
    path = zipped(tmp_path / "a.zip", 20)
    first = load_data(path)
    (entry,) = own_cache.iterdir()
    if damage == "cut":
        os.truncate(entry / "images.u8", 100)
    elif damage == "no json":
        (entry / "entry.json").unlink()
    elif damage in ("half", "one bit", "one bit, sealed"):
        with (entry / "images.u8").open("r+b") as file:
            content = file.read()
            file.seek(1000)
            file.write(bytes(len(content) // 2) if damage == "half" else bytes([content[1000] ^ 8]))
        if "sealed" in damage:  # as a disk does it
            os.utime(entry / "images.u8", ns=(drafts.SEAL,) * 2)
    elif damage == "bad json":
        (entry / "entry.json").write_text('{"shape": [1')
    else:
        (entry / "entry.json").write_text(json.dumps({"shape": [20, 3, SIDE, SIDE], "unknown": 1}))
    same(load_data(path), first)
    assert [p.name for p in own_cache.iterdir()] == [entry.name]


def test_of_a_sealed_file_some_rows_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(drafts, "SAMPLED", 100)
    path = tmp_path / "a"
    path.write_bytes(bytes(10))
    assert drafts.sampled(path, 50, 10) == list(range(50))
    drafts.seal(path)
    few = [drafts.sampled(path, 50, 10) for _ in range(20)]
    assert {len(set(rows)) for rows in few} == {10}
    assert len({row for rows in few for row in rows}) > 30  # others each time
    path.write_bytes(bytes(10))
    assert drafts.sampled(path, 50, 10) == list(range(50))


def test_an_entry_that_was_copied_is_sealed_again(tmp_path, keep_all, own_cache):
    path = zipped(tmp_path / "a.zip", 20)
    first = load_data(path)
    (entry,) = own_cache.iterdir()
    os.utime(entry / "images.u8")
    same(load_data(path), first)
    assert (entry / "images.u8").stat().st_mtime_ns == drafts.SEAL


def test_what_is_kept_beside_the_images_is_made_again_where_it_is_damaged(tmp_path, keep_all, own_cache, monkeypatch):
    monkeypatch.setattr("trilemma.data.sources.divide.CACHED_FROM", 0)
    path = zipped(tmp_path / "a.zip", 20)
    first = load_data(path)
    (entry,) = own_cache.iterdir()
    texts = [file for file in entry.iterdir() if file.name.startswith(("equal", "fingerprint"))]
    assert len(texts) == 2
    for file in texts:
        whole = file.read_bytes()
        for content in (b"", b"\xff\xfe", whole[:-1], whole + b"0", b"[" * 100_000, whole.replace(b"\n", b"\n1", 1)):
            file.write_bytes(content)
            same(load_data(path), first)
            assert file.read_bytes() == whole


def test_images_replaced_with_their_times_are_read_again(tmp_path, keep_all):
    """As `cp -p` and `rsync -t` do."""
    folder = folder_of(tmp_path / "a", 10)
    for k in range(10):
        (folder / f"{k:06}.png").write_bytes(flat(k).ljust(300))
    load_data(folder)
    for k in range(10):
        path = folder / f"{k:06}.png"
        old = path.stat()
        path.write_bytes(flat(k + 100).ljust(300))
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (old.st_size, old.st_mtime_ns)
    numbers = {number(image) for split in load_data(folder).splits.values() for image in split.images}
    assert numbers == set(range(100, 110))


@pytest.mark.parametrize("limit", [None, "1000"])
@pytest.mark.parametrize("harm", ["refuses", "vanishes"])
def test_the_cache_is_never_needed(tmp_path, keep_all, own_cache, monkeypatch, harm, limit):
    path, other = zipped(tmp_path / "a.zip", 20), zipped(tmp_path / "b.zip", 20)
    wanted = [load_data(path), load_data(path, seed=1), load_data(other)]
    shutil.rmtree(own_cache)
    if limit:
        monkeypatch.setenv("TRILEMMA_MEMORY", limit)
    load_data(path)  # from now on there is an entry of the first, for one seed
    if harm == "refuses":
        refuse = lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EROFS, os.strerror(errno.EROFS)))  # noqa: E731
        for owner, name in ((drafts.uuid, "uuid4"), (os, "replace"), (os, "rename"), (os, "truncate"), (os, "utime")):
            monkeypatch.setattr(owner, name, refuse)
    else:
        write = cache.seal
        monkeypatch.setattr(cache, "seal", lambda file: (write(file), shutil.rmtree(own_cache)))
        monkeypatch.setattr(storage, "seal", lambda file: shutil.rmtree(own_cache, ignore_errors=True))
    for result, data in zip((load_data(path), load_data(path, seed=1), load_data(other)), wanted, strict=True):
        same(result, data)
        assert result.train.mapped == bool(limit)


def test_rows_that_are_damaged_are_gathered_again(tmp_path):
    images = torch.randint(0, 256, (50, 1, 5, 5), dtype=torch.uint8)
    index, path = torch.randperm(50)[:30], tmp_path / "rows.u8"
    storage.gather(images, index, path)
    for seal in (False, True):
        content = bytearray(path.read_bytes())
        content[300] ^= 1
        path.write_bytes(content)
        if seal:
            os.utime(path, ns=(drafts.SEAL,) * 2)
        assert torch.equal(storage.gather(images, index, path), images[index])
        assert path.read_bytes() == images[index].numpy().tobytes()


def test_an_error_leaves_nothing(tmp_path, keep_all, own_cache, monkeypatch):
    monkeypatch.setattr("trilemma.data.decoding.cache.write_checked", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load_data(zipped(tmp_path / "a.zip", 20))
    assert list(own_cache.iterdir()) == []


def test_leftovers_and_old_entries_go(tmp_path, keep_all, own_cache):
    making = drafts.Draft(own_cache)
    os.utime(making.path, (1, 1))  # a clock that jumps ends nobody's work
    for name, days in ((".tmp-left", 0), ("entry-old", 31), ("entry-new", 29)):
        (own_cache / name).mkdir(parents=True)
        os.utime(own_cache / name, (time.time() - days * 86_400,) * 2)
    load_data(zipped(tmp_path / "a.zip", 20))
    names = {p.name for p in own_cache.iterdir()}
    assert {making.path.name, "entry-new"} < names
    assert not {".tmp-left", "entry-old"} & names
    making.close()


def open_at_once(path, start, results):
    start.wait()
    results.put(load_data(path).fingerprint)


@pytest.mark.slow
def test_several_processes_at_once(tmp_path, monkeypatch, own_cache):
    path = zipped(tmp_path / "a.zip", 3000)  # 9 MB: kept without being told
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.Queue()
    processes = [context.Process(target=open_at_once, args=(path, start, results)) for _ in range(2)]
    for process in processes:
        process.start()
    start.set()
    result = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert result == {load_data(path).fingerprint}
    (entry,) = own_cache.iterdir()
    assert sorted(p.name.split("-")[0] for p in entry.iterdir()) == [
        "entry.json",
        "equal.json",
        "fingerprint",
        "images.u8",
    ]


def test_a_full_disk(tmp_path, keep_all, monkeypatch, own_cache):
    path = zipped(tmp_path / "a.zip", 20)
    monkeypatch.setattr("trilemma.data.decoding.cache.room_for", lambda *_: False)
    data = load_data(path)  # small enough for memory: no harm
    assert not data.train.mapped
    assert not own_cache.exists()
    monkeypatch.setenv("TRILEMMA_MEMORY", "1000")
    large = load_data(path)  # in a file without a name
    assert large.train.mapped
    same(large, data)
    monkeypatch.setattr(storage, "room_for", lambda *_: False)
    with pytest.raises(UserError, match=r"61,440 bytes, more than the 1,000 .* set TRILEMMA_CACHE"):
        load_data(path)


def test_a_wrong_limit(tmp_path, monkeypatch):
    monkeypatch.setenv("TRILEMMA_MEMORY", "1GB")
    with pytest.raises(UserError, match="give a number of bytes"):
        load_data(zipped(tmp_path / "a.zip", 20))


# -- processes


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked on Linux only")
def test_forked_processes_decode_the_same(tmp_path, keep_all, monkeypatch):
    path = zipped(tmp_path / "a.zip", 300)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("bad.png", b"no image")
    threads = load_data(path)
    used = []
    monkeypatch.setattr(workers, "FORK_FROM", 100)
    monkeypatch.setattr(workers, "cores", lambda: 2)
    monkeypatch.setattr(cache, "VERSION", -1)  # another key
    monkeypatch.setattr(workers, "get_context", lambda kind: used.append(kind) or multiprocessing.get_context(kind))
    same(load_data(path), threads)
    assert used == ["fork"]


def crash(i):
    if os.getpid() != PARENT:
        os._exit(1)
    return i


PARENT = os.getpid()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked on Linux only")
def test_a_process_that_crashes_is_replaced_by_threads(monkeypatch):
    monkeypatch.setattr(workers, "cores", lambda: 2)
    n = workers.FORK_FROM
    assert workers.each(crash, range(n), {}, shared=True) == {i: i for i in range(n)}


SLOW = """
import sys, time
from trilemma.data import load_data
from trilemma.data.decoding import decode, workers
from trilemma.data.decoding.decode import decode_into
workers.cores = lambda: 3
def slow(places, items):
    time.sleep(0.01)
    return decode_into(places, items)
decode.decode_into = slow
load_data(sys.argv[1])
"""


def living():
    """The parent of each process that lives, by number."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            parents |= {int(path.parent.name): int(parent)} if state != "Z" else {}
    return parents


def until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked on Linux only")
@pytest.mark.parametrize("ending", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_killed_decoding_leaves_no_process_and_no_files(tmp_path, own_cache, ending):
    path = zipped(tmp_path / "a.zip", 3000)  # 9 MB: kept without being told
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(path)], stderr=subprocess.DEVNULL)
    decoders = []

    def decoding():
        decoders[:] = [pid for pid, parent in living().items() if parent == process.pid]
        return len(decoders) == 3

    assert until(decoding, 60)
    process.send_signal(ending)
    process.wait()
    assert until(lambda: not living().keys() & set(decoders), 2)
    assert [p.name[:5] for p in own_cache.iterdir()] == [".tmp-"]
    load_data(folder_of(tmp_path / "other", 10))  # of any source, and one that is not kept
    assert list(own_cache.iterdir()) == []


HOLD = """
import sys, time
from pathlib import Path
from trilemma.data.decoding.drafts import Draft
draft = Draft(Path(sys.argv[1]))
print(draft.path, flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_only_what_ended_processes_wrote_is_left_over(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    path = Path(process.stdout.readline().strip())
    os.utime(path, (1, 1))
    drafts.remove_left_over(tmp_path)
    assert path.exists()
    process.kill()
    process.wait()
    drafts.remove_left_over(tmp_path)
    assert not path.exists()


def test_a_draft_that_was_taken_for_left_over_is_begun_again(tmp_path, monkeypatch):
    """Another process may look between the making of the folder and its lock."""
    mkdir, items = Path.mkdir, []

    def make(path, *args, **keys):
        mkdir(path, *args, **keys)
        if path.name.startswith(".tmp-"):
            items.append(path)
            if len(items) == 1:
                drafts.remove_left_over(tmp_path)

    monkeypatch.setattr(Path, "mkdir", make)
    with drafts.Draft(tmp_path) as draft:
        assert [path.exists() for path in items] == [False, True]
        assert draft.path == items[1]
        drafts.remove_left_over(tmp_path)
        assert draft.path.exists()
    assert list(tmp_path.iterdir()) == []


def test_without_locks_a_draft_is_left_over_after_a_day(tmp_path, monkeypatch):
    monkeypatch.setattr(drafts, "_take_lock", lambda file: None)
    with drafts.Draft(tmp_path) as old, drafts.Draft(tmp_path) as new:
        os.utime(old.path, (1, 1))
        drafts.remove_left_over(tmp_path)
        assert (old.path.exists(), new.path.exists()) == (False, True)


# -- larger than memory


@pytest.mark.slow
def test_a_source_larger_than_memory_is_the_same_data(tmp_path, monkeypatch, own_cache):
    path = zipped(tmp_path / "a.zip", 3000)
    small = load_data(path)
    assert not small.train.mapped
    monkeypatch.setenv("TRILEMMA_MEMORY", str(2**20))
    large = load_data(path)
    assert large.train.mapped
    assert large.valid.mapped
    assert any("more than memory allows" in note for note in large.notes)
    same(small, large)
    for names in ((), ("flip", "shift")):
        a, b = (Loader(data.train, batch=50, seed=3, augment=names) for data in (small, large))
        for position in (0, 2690, 12_345):
            x, y = a.batch_at(position), b.batch_at(position)
            assert torch.equal(x.image, y.image)
            assert torch.equal(x.index, y.index)
    same(load_data(path), large)  # opened again


def test_a_mapped_split_stays_where_it_is():
    from trilemma.data import Split

    class Kept(torch.Tensor):
        """Refuses to be moved as a whole."""

        def to(self, *args, **kwargs):
            raise AssertionError("the whole split is moved")

    images = torch.randint(0, 256, (10, 1, 4, 4), dtype=torch.uint8).as_subclass(Kept)
    loader = Loader(Split(images, mapped=True), batch=4, seed=0)
    loader.images = images.as_subclass(torch.Tensor)
    assert loader.batch_at(0).image.shape == (4, 1, 4, 4)
    with pytest.raises(AssertionError, match="whole split"):
        Loader(Split(images), batch=4, seed=0)


def test_rows_are_gathered_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "BLOCK", 100)
    images = torch.randint(0, 256, (50, 1, 5, 5), dtype=torch.uint8)
    index = torch.randperm(50)[:30]
    result = storage.gather(images, index, tmp_path / "rows.u8")
    assert torch.equal(result, images[index])
    assert torch.equal(torch.cat(list(storage.blocks(images))), images)
    assert storage.gather(images, torch.arange(3, 9), tmp_path / "no.u8").data_ptr() == images[3:].data_ptr()
    assert [p.name for p in tmp_path.iterdir()] == ["rows.u8"]


def test_rows_are_on_the_disk_before_they_get_their_name(tmp_path, monkeypatch):
    """A file of the right length is taken as it is, and its fingerprint is kept: it must not be one of zeros."""
    images = torch.randint(0, 256, (50, 1, 5, 5), dtype=torch.uint8)
    index, flushed, fsync, move = torch.randperm(50)[:30], {}, os.fsync, os.replace

    def note(number):
        fsync(number)
        flushed[os.fstat(number).st_ino] = os.pread(number, 30 * 25, 0)

    def check(old, new):
        assert flushed[os.stat(old).st_ino] == images[index].numpy().tobytes()
        move(old, new)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "replace", check)
    assert torch.equal(storage.gather(images, index, tmp_path / "rows.u8"), images[index])
    assert len(flushed) == 1


def test_rows_that_the_disk_refuses_leave_nothing(tmp_path, monkeypatch):
    def fail(number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    images, index = torch.arange(36, dtype=torch.uint8).reshape(9, 1, 2, 2), torch.tensor([3, 1, 2])
    rows = storage.gather(images, index, tmp_path / "rows.u8")  # in a file without a name
    assert torch.equal(rows, images[index])
    assert os.listdir(tmp_path) == []
    monkeypatch.setattr(storage, "room_for", lambda *_: False)
    with pytest.raises(UserError, match=r"neither the cache nor .* has room for 12 bytes"):
        storage.gather(images, index, tmp_path / "rows.u8")


STREAM = """
from trilemma import rng
from trilemma.data import Loader, batches, load_data
load_data("digits")
watch()
data = load_data(sys.argv[1], size=int(sys.argv[2]))
assert data.train.mapped
names, n = data.train.names, len(data.train)
loader, order = Loader(data.train, batch=16, seed=5), rng.permutation(n, 5, "order", 0)
for position in range(0, n - 16, max(1, n // 40)):
    batch = loader.batch_at(position)
    assert batch.index.tolist() == order[position : position + 16].tolist()
    for image, k in zip(batch.image, batch.index.tolist()):
        red, green, blue = (image[:, 0, 0] * 255).round().int().tolist()
        assert red + 256 * green + 65536 * blue == int(names[k].split(".")[0])
for k, batch in enumerate(batches(data.valid, 16)):
    assert len(batch.image) > 0
print(before(), peak(), n + len(data.valid), len(forked), simple[0])
"""


def watched(path, side, limit):
    """Of a process that streams a source: anonymous memory before and at its peak, with those that it forked; images;
    forked processes; and the peak where a page that they share counts for each."""
    environment = {**os.environ, "TRILEMMA_MEMORY": str(limit), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", WATCH + STREAM, str(path), str(side)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return tuple(map(int, done.stdout.split()))


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")


def from_files():
    """Bytes of mapped files, of a disk in memory too, that are in the memory of this process."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * sum(int(lines[kind].split()[0]) for kind in ("RssFile", "RssShmem"))


@needs_proc
def test_rows_that_come_into_memory_leave_the_mapped_file(tmp_path):
    path, shape = tmp_path / "images.u8", (512, 1, 256, 256)
    path.write_bytes(bytes(range(256)) * (2**25 // 256))
    images, index, before = storage.mapped(path, shape), torch.arange(0, 512, 2), from_files()
    total = images.sum().item()
    assert from_files() - before > 0.9 * 2**25
    rows = storage.load_rows(images, index)
    assert from_files() - before < 0.2 * 2**25
    assert torch.equal(rows, torch.arange(256, dtype=torch.uint8).repeat(2**17)[: rows.numel()].view_as(rows))
    assert images.sum().item() == total  # still there, in the file
    assert len(storage.load_rows(images, index[:0])) == 0


@pytest.mark.slow
@needs_proc
def test_memory_while_64_mb_stream_with_16_mb(tmp_path):
    n = 2**26 // (3 * 128 * 128) + 1
    before, peak, result, *_ = watched(zipped(tmp_path / "a.zip", n, 128), 128, 2**24)
    assert result == n
    assert peak - before < 0.75 * 2**26  # a block that is gathered, batches as floats, and what the allocator keeps


@needs_proc
@pytest.mark.slow
def test_four_gb_stream_under_one_gb(tmp_path):
    """All processes together. Measured: 385 MB with 4 forked processes, and 1,246 (with 2: 753) where the pages that
    they share with the first, its imports, count for each."""
    n = 2**32 // (3 * 256 * 256) + 1
    _, peak, result, forked, simple = watched(zipped(tmp_path / "a.zip", n, 256), 256, 2**28)
    print(f"peak {peak:,} bytes with {forked} forked processes; {simple:,} where shared pages count for each")
    assert result == n
    assert forked > 0 or len(os.sched_getaffinity(0)) == 1
    assert peak < 2**30


@pytest.mark.slow
@needs_proc
def test_memory_while_a_source_is_decoded_and_loaded(tmp_path):
    """At most 1.2 times the tensor, at the first opening and the second."""
    n, side = 1500, 128
    path = zipped(tmp_path / "a.zip", n, side)
    code = """
from trilemma.data import load_data
load_data("digits")
watch()
data = load_data(sys.argv[1])
print(before(), peak())
"""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", WATCH + code, str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        before, peak = map(int, done.stdout.split())
        assert peak - before <= 1.2 * n * 3 * side * side + 2**24
