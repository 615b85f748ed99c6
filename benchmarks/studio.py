"""The studio beside a training: how quick its pages are, what the training loses, and the pictures of docs/studio.md.

python benchmarks/studio.py            # times: pages while a model is trained; steps a second with and without a page
python benchmarks/studio.py --pictures # writes docs/figures/studio-*.png; needs playwright and Debian's chromium
python benchmarks/studio.py --pictures --all FOLDER # every page, of 390, 1200 and 1920 px, light and dark, into FOLDER
"""

import itertools
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
PORT = 8437
PAGES = ("/", "/runs", "/train", "/sample", "/compare", "/data", "/jobs")
ROUNDS = 10


@contextmanager
def studio(folder: Path) -> Iterator[str]:
    """A studio of a folder: the address that lets in."""
    words = [sys.executable, "-m", "trilemma", "studio", str(folder), f"port={PORT}", "open=false"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().rsplit(" ", 1)[1].strip()
        process.terminate()


def main() -> None:
    """Times, or with --pictures the pictures."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "digits"
        folder.mkdir()
        with studio(folder) as address:
            pictures(address, folder) if "--pictures" in sys.argv else times(address, folder)


def times(address: str, folder: Path) -> None:
    """Pages while a training runs, and its images a second with and without them."""
    base, token = re.match(r"(http://[^/]+)/enter\?token=(.*)", address).groups()  # type: ignore[union-attr]
    cookie = {"Cookie": f"trilemma-{PORT}={token}"}
    speeds = []
    for watched in (False, True):
        training = subprocess.Popen(
            [sys.executable, "-m", "trilemma", *f"train vae digits minutes=0.5 out=runs/{watched} quiet=true".split()],
            cwd=folder,
            stdout=subprocess.DEVNULL,
        )
        spent = []
        while training.poll() is None:
            for path in PAGES if watched else ():
                begin = time.perf_counter()
                urllib.request.urlopen(urllib.request.Request(base + path, headers=cookie)).read()
                spent.append(time.perf_counter() - begin)
            time.sleep(1.0)
        text = (folder / "runs" / str(watched) / "summary.json").read_text("utf-8")
        speeds.append(float(re.search(r'"images_per_second": ([\d.]+)', text)[1]))  # type: ignore[index]
    spent.sort()
    print(f"pages: median {1e3 * spent[len(spent) // 2]:.0f} ms, p95 {1e3 * spent[int(0.95 * len(spent))]:.0f} ms")
    print(f"training with a page each second / without: {speeds[1] / speeds[0]:.3f}")


def pictures(address: str, folder: Path) -> None:
    """What a person sees: a training, its run, the sliders, the map. Home is not among them, as it names its folder."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": 1100, "height": 760})
        page.set_default_timeout(180_000)
        page.goto(address)
        if "--all" in sys.argv:
            return every_page(page, address.split("/enter")[0], folder, Path(sys.argv[sys.argv.index("--all") + 1]))
        page.click("text=Train a model")
        page.fill("#key-minutes", "0.7")
        shot(page, "train")
        page.click("main button:has-text('Train')")
        page.wait_for_selector(".gallery img[alt^='samples']")
        shot(page, "job")
        page.wait_for_selector(".state.finished")
        page.click("main >> text=Explore")
        page.click("text=sliders")
        page.wait_for_selector("input[type=range]")
        page.click("text=At random")
        page.wait_for_function("document.querySelector('output').textContent")
        shot(page, "sliders")
        page.goto(page.url.split("/sliders")[0] + "/map?" + page.url.split("?")[1] + "&how=tsne")
        page.click("text=Make the map")
        page.click("main >> text=Map of codes")
        page.wait_for_selector("[data-ready]")
        page.click(".map-marks")
        shot(page, "map")
        browser.close()


def every_page(page: Any, base: str, folder: Path, where: Path) -> None:
    """Pictures of the whole of every page, NAME-WIDTH-SCHEME.png."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "studio"))
    from tour import prepare, tour

    prepare(folder)
    where.mkdir(parents=True, exist_ok=True)
    for name in tour(page, base, folder):
        for width, scheme in itertools.product((390, 1200, 1920), ("light", "dark")):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(100)
            page.screenshot(path=where / f"{name}-{width}-{scheme}.png", full_page=True)
        page.set_viewport_size({"width": 1200, "height": 900})


def shot(page: Any, name: str) -> None:
    """A picture of the window."""
    page.wait_for_timeout(500)
    page.screenshot(path=FIGURES / f"studio-{name}.png")


if __name__ == "__main__":
    main()
