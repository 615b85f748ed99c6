"""Large images: a few at a time, over threads and forked processes, and in bands that change no pixel."""

import io
import subprocess
import sys
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from data.memory import WATCH
from PIL import Image

from trilemma.data.decoding import budget, convert, pixels
from trilemma.data.decoding.budget import Budget
from trilemma.data.decoding.decode import Item, decode

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (90, 70, 4), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (90, 70)).astype(np.uint16)


def picture(kind):
    """An image of 90x70 of a kind that needs converting, as a file."""
    opaque = COLOUR.copy()
    opaque[..., 3] = 255
    image, form = {
        "RGBA": lambda: (Image.fromarray(COLOUR), "png"),
        "opaque": lambda: (Image.fromarray(opaque), "png"),
        "LA": lambda: (Image.fromarray(COLOUR[..., :2].copy(), "LA"), "png"),
        "L": lambda: (Image.fromarray(COLOUR[..., 0].copy()), "png"),
        "RGB": lambda: (Image.fromarray(COLOUR[..., :3].copy()), "png"),
        "P": lambda: (Image.fromarray(COLOUR[..., :3].copy()).convert("P"), "png"),
        "CMYK": lambda: (Image.fromarray(COLOUR, "CMYK"), "tiff"),
        "I;16": lambda: (Image.fromarray(DEEP), "png"),
        "I": lambda: (Image.fromarray(DEEP.astype(np.int32)), "tiff"),
        "F": lambda: (Image.fromarray((DEEP / 65535).astype(np.float32)), "tiff"),
    }[kind]()
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["RGBA", "opaque", "LA", "L", "RGB", "P", "CMYK", "I;16", "I", "F"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(31, 17), (90, 70)])
def test_bands_change_no_pixel(monkeypatch, kind, channels, size):
    items = [Item(kind, lambda: io.BytesIO(picture(kind)))]
    whole = decode(items, size, channels)
    assert whole.skipped == []
    monkeypatch.setattr(convert, "BAND", 333)  # four rows and a part
    banded = decode(items, size, channels)
    assert torch.equal(banded.images, whole.images)
    assert banded.changes == whole.changes


def test_values_out_of_range_are_refused_in_any_band(monkeypatch):
    monkeypatch.setattr(convert, "BAND", 333)
    for wrong in (np.nan, 1.5, -1):
        values = np.zeros((90, 70), np.float32)
        values[50, 50] = wrong
        file = io.BytesIO()
        Image.fromarray(values).save(file, "tiff")
        (why,) = decode([Item("a.tif", lambda f=file: io.BytesIO(f.getvalue()))]).skipped
        assert "0 to 1 can be read" in why


@pytest.mark.parametrize("shared", [False, True])
def test_pixels_at_a_time(shared):
    if shared and not sys.platform.startswith("linux"):
        pytest.skip("processes are forked on Linux only")
    pool = Budget(get_context("fork") if shared else None)
    third, held, most, lock = budget.PIXELS // 3, [0], [0], threading.Lock()

    def hold(count):
        with pool.taken(count):
            with lock:
                held[0] += count
                most[0] = max(most[0], held[0])
            time.sleep(0.02)
            with lock:
                held[0] -= count

    threads = [threading.Thread(target=hold, args=(third,)) for _ in range(9)]
    threads += [threading.Thread(target=hold, args=(4 * budget.PIXELS,))]  # goes alone
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert held == [0]
    assert most[0] in (3 * third, 4 * budget.PIXELS)
    with pool.taken(budget.PIXELS), pool.taken(budget.SMALL - 1):  # a small one never waits
        pass
    with pytest.raises(ZeroDivisionError), pool.taken(budget.PIXELS):
        _ = 1 / 0
    with pool.taken(budget.PIXELS):  # what failed gave back its share
        pass


DECODE = """
from functools import partial
from trilemma.data.decoding import workers
from trilemma.data.decoding.decode import Item, decode
from trilemma.data.decoding.pixels import open_file

workers.cores = lambda: 4
workers._gather.__defaults__ = (1,)
watch()
done = decode([Item(str(k), partial(open_file, sys.argv[1])) for k in range(4)], (16, 16))
assert len(done.numbers) == 4
print(peak() - before())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.slow
def test_four_threads_meet_the_largest_transparent_image(tmp_path):
    """Measured: 1.2 GB, where they took 5.7 before; one alone takes 0.8, and took 1.4."""
    side = int(pixels.PIXELS**0.5)
    Image.new("RGBA", (side, side), (200, 10, 10, 128)).save(tmp_path / "a.png")
    words = [sys.executable, "-c", WATCH + DECODE, str(tmp_path / "a.png")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1.5e9
