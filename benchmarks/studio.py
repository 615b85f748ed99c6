"""The studio beside a training: how quick its pages are, and what the training loses by them; how quick its sliders
are; and the pictures of docs/studio.md.

    python benchmarks/studio.py [--pairs 5] [--minutes 1] [--model vae] [--data digits]
    python benchmarks/studio.py --sliders    # of a VAE and two GANs at 64 px
    python benchmarks/studio.py --pictures   # writes docs/figures/studio-*.png; needs playwright and Debian's chromium
    python benchmarks/studio.py --pictures --all FOLDER   # every page into FOLDER: 390, 1200 and 1920 px, light, dark

In each pair the same training runs twice, in turns first and second: by the command line, with no studio; and as a job
of a studio, started by its form. The page of the job is open: it holds the stream of news, and fetches its live part
and its new pictures whenever there are news, as its script does. And a person opens another page each second.

The figures are the 95th percentiles of the times of whole pages and of live parts, each apart; and the medians over the
pairs of the images per second that are lost: per second of the steps, and per second on the clock, in which validation,
pictures and checkpoints are, too.

With --sliders each model is trained for one step, as the time of a picture depends on the size of the network and not
on what it has learned. The first handle is moved from end to end, with a request for each picture after the answer to
the last, as the script of the page does: once in a folder of runs alone, and once beside a folder of many files.

A figure beyond its bar makes the exit code 1.
"""

import argparse
import html
import io
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from threading import Event
from typing import Any

import httpx
from PIL import Image
from serving import serving

from trilemma.run.locate import CONFIG
from trilemma.studio.library import Library
from trilemma.studio.painter import LONGEST_S

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
PAGES = ("/", "/data", "/train", "/runs", "/sample", "/explore", "/edit", "/detect", "/measure", "/compare", "/jobs")
LARGEST_P95_MS, LARGEST_LOSS = 200.0, 0.03  # the bars
WHAT = ("model", "data")  # of a form; what else there is are keys
VISIT_S = 1.0  # seconds between two pages that a person opens
ENDED = re.compile('class="state (finished|failed|stopped|interrupted|cancelled)"')
LIVE = "/live"  # end of the address of a part that news fetch anew
SLIDER_MODELS, SLIDER_DATA, SIDE_PX = ("vae", "gan-dcgan", "gan-style"), "shapes:1000", 64
WARM_UP, MOVES = 20, 300  # pictures of a handle that rests, and of one that is moved from end to end
LEAST_RATE, PICTURE_P95_MS = 10.0, 150.0  # the bars: pictures a second, and each of them
FILES = 20_000  # in a folder beside the runs
PICTURE = re.compile('data-sliders="([^"]*)"')
HANDLE = re.compile(r'name="(u\d+)" min="([^"]*)" max="([^"]*)" step="any" value="([^"]*)"')
STYLE = re.compile(r'name="(\w+)" [^>]*value="([^"]*)" data-style')


class Visitor:
    """A browser that was let in, and the seconds that each page took; no request goes through a proxy."""

    def __init__(self, address: str) -> None:
        self.base = address.split("/enter")[0]
        self.client = httpx.Client(base_url=self.base, trust_env=False, timeout=60, headers={"origin": self.base})
        self.client.get(address).raise_for_status()
        self.spent: list[tuple[float, str]] = []
        self.run = "/runs"  # the page of the run that is trained, once there is one

    def page(self, path: str) -> str:
        """A page, timed."""
        begin = time.perf_counter()
        answer = self.client.get(path)
        self.spent.append((time.perf_counter() - begin, re.sub("[0-9a-f]{16}", "ID", path)))
        return answer.raise_for_status().text

    def start(self, path: str, fields: dict[str, str]) -> str:
        """The page of the job that a form has started."""
        answer = self.client.post(path, data=fields)
        if answer.status_code != 303:
            raise RuntimeError(f"{path} answers {answer.status_code}: {answer.text}")
        return answer.headers["location"]

    def watch(self, job: str) -> str:
        """Look at the page of a job, which is fetched anew whenever there are news, until it ends: how it ended."""
        seen: set[str] = set()
        self.page(job)
        with self.client.stream("GET", "/events", timeout=None) as events:
            for _ in (line for line in events.iter_lines() if line == "event: news"):
                text = self.page(f"{job}/live")
                self.run = next(iter(re.findall('href="(/runs/[0-9a-f]{16})"', text)), self.run)
                for source in {*re.findall('<img[^>]* src="([^"]*)"', text)} - seen:
                    self.client.get(source).raise_for_status()
                    seen.add(source)
                if (end := ENDED.search(text)) is not None:
                    return end[1]
        raise RuntimeError("the stream of news has ended")

    def visit(self, job: str, over: Event) -> None:
        """Open one page after the other, also that of the run that is trained, until it is over."""
        for path in cycle([*PAGES, job, ""]):
            if over.wait(VISIT_S):
                return
            self.page(path or self.run)


def watched(folder: Path, fields: dict[str, str], spent: list[tuple[float, str]]) -> None:
    """A training that a form starts, with its page open and others visited, until it ends."""
    over = Event()
    with serving(folder) as (_, address), ThreadPoolExecutor() as pool:
        visitor = Visitor(address)
        job = visitor.start("/train", fields)
        visits = pool.submit(visitor.visit, job, over)
        try:
            if (end := visitor.watch(job)) != "finished":
                raise RuntimeError(f"the training is {end}")
        finally:
            over.set()
            visitor.client.post(f"{job}/cancel")  # where something failed: a job outlives the studio
        visits.result()
    spent += visitor.spent


def alone(folder: Path, fields: dict[str, str]) -> None:
    """A training by the command line, with no studio; its fields are those of the form."""
    words = ["train", fields["model"], fields["data"], *(f"{k}={v}" for k, v in fields.items() if k not in WHAT)]
    done = subprocess.run([sys.executable, "-m", "trilemma", *words], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)


def newest_speeds(folder: Path) -> tuple[float, float]:
    """Images per second of the training that ended last: of its steps, and on the clock from its config, which it
    writes before the first step, to its summary, which it writes last."""
    path = max((folder / "runs").glob("*/summary.json"), key=lambda path: path.stat().st_mtime)
    summary, clock_s = json.loads(path.read_text("utf-8")), mtime_s(path) - mtime_s(path.parent / CONFIG)
    return summary["images_per_second"], summary["images"] / clock_s


def mtime_s(path: Path) -> float:
    """When a file was written, in seconds."""
    return path.stat().st_mtime


def p95(seconds: Iterable[float]) -> float:
    """The 95th percentile."""
    ordered = sorted(seconds)
    return ordered[int(0.95 * len(ordered))]


def page_p95_ms(spent: Sequence[tuple[float, str]]) -> float:
    """Print the times of pages, (seconds, path), by their paths, and give the larger of the 95th percentiles of whole
    pages and of live parts, ms."""
    for path in sorted({path for _, path in spent}):
        times_s = [seconds for seconds, other in spent if other == path]
        print(f"{path:20} {len(times_s):5}, median {1e3 * statistics.median(times_s):.0f} ms")
    result = 0.0
    for name, is_live in (("pages", False), ("live parts", True)):
        group = [(seconds, path) for seconds, path in spent if path.endswith(LIVE) is is_live]
        p95_ms, (slowest_s, slowest) = 1e3 * p95(seconds for seconds, _ in group), max(group)
        print(f"{name}: {len(group)}, p95 {p95_ms:.0f} ms (at most {LARGEST_P95_MS:g}); the slowest {slowest}, "
              f"{1e3 * slowest_s:.0f} ms")  # fmt: skip
        result = max(result, p95_ms)
    return result


def times(pairs: int, minutes: float, model: str, data: str) -> int:
    """Measure and print; 1 if a figure is beyond its bar."""
    spent: list[tuple[float, str]] = []
    losses: list[tuple[float, ...]] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place).resolve()
        for k in range(pairs):
            speeds = {}
            for is_watched in (k % 2 == 0, k % 2 == 1):
                # of two seeds: the second would continue the first
                fields = {"model": model, "data": data, "minutes": f"{minutes:g}", "seed": str(2 * k + is_watched)}
                watched(folder, fields, spent) if is_watched else alone(folder, fields)
                speeds[is_watched] = newest_speeds(folder)
            beside, by_itself = speeds[True], speeds[False]
            losses.append(tuple(1 - a / b for a, b in zip(beside, by_itself, strict=True)))
            print(f"pair {k + 1}: {by_itself[0]:,.0f} images/s alone, {beside[0]:,.0f} beside pages; on the "
                  f"clock {by_itself[1]:,.0f} and {beside[1]:,.0f}", flush=True)  # fmt: skip
    p95_ms, medians = page_p95_ms(spent), []
    for name, by_pair in zip(("of its steps", "on the clock"), zip(*losses, strict=True), strict=True):
        medians.append(statistics.median(by_pair))
        print(f"images per second {name}: the training loses {medians[-1]:.1%} (at most {LARGEST_LOSS:.0%}); by pair "
              f"{', '.join(f'{x:.1%}' for x in by_pair)}")  # fmt: skip
    return int(p95_ms > LARGEST_P95_MS or max(medians) > LARGEST_LOSS)


def sliders() -> int:
    """Measure the sliders and print; 1 if a figure is beyond its bar."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place).resolve()
        for model in SLIDER_MODELS:
            fields = {"model": model, "data": SLIDER_DATA, "size": str(SIDE_PX), "steps": "1"}
            alone(folder, {**fields, "out": f"runs/{model}", "quiet": "true"})
        print(f"sliders at {SIDE_PX} px on {os.cpu_count()} processors", flush=True)
        keeps = [slide_all(folder)]
        (folder / "photos").mkdir()
        for k in range(FILES):
            (folder / "photos" / f"{k:05}.png").touch()
        print(f"beside a folder of {FILES:,} files", flush=True)
        keeps.append(slide_all(folder))
    return int(not all(keeps))


def slide_all(folder: Path) -> bool:
    """Move a handle of each model, and print the times; whether all keep the bars."""
    keeps = True
    with serving(folder) as (_, address):
        visitor, library = Visitor(address), Library(folder)
        for model in SLIDER_MODELS:
            begin = time.perf_counter()
            place, values, ends = handles_of(visitor, library.id_of(folder / "runs" / model))
            until_s = time.perf_counter() - begin
            seconds, rate = drag(visitor, place, values, ends)
            p95_ms = 1e3 * p95(seconds)
            keeps &= rate >= LEAST_RATE and p95_ms < PICTURE_P95_MS
            print(f"{model:10} {rate:6.1f} pictures/s (at least {LEAST_RATE:g}), median "
                  f"{1e3 * statistics.median(seconds):.0f} ms, p95 {p95_ms:.0f} ms (under {PICTURE_P95_MS:g}), slowest "
                  f"{1e3 * max(seconds):.0f} ms; {until_s:.1f} s until the handles", flush=True)  # fmt: skip
    return keeps


def handles_of(visitor: Visitor, ident: str) -> tuple[str, dict[str, str], tuple[float, float]]:
    """The sliders of a run: the address of their picture, what they send by name, and the ends of the first handle."""
    text = visitor.client.get(f"/explore/sliders/axes?run={ident}", timeout=LONGEST_S).raise_for_status().text
    place, handles = PICTURE.search(text), HANDLE.findall(text)
    if place is None or not handles:
        raise RuntimeError(f"no sliders in the answer: {text[:500]}")
    values = {name: value for name, _, _, value in handles} | dict(STYLE.findall(text))
    return html.unescape(place[1]), values, (float(handles[0][1]), float(handles[0][2]))


def drag(
    visitor: Visitor, address: str, values: Mapping[str, str], ends: tuple[float, float]
) -> tuple[list[float], float]:
    """Move the first handle from its low to its high end: the seconds of each picture, and pictures per second.

    Raises:
        RuntimeError: the pictures have another size, or do not follow the handle.
    """
    name, (low, high) = next(iter(values)), ends

    def draw(share: float) -> tuple[float, bytes]:
        moved = {**values, name: repr(low + share * (high - low))}
        begin = time.perf_counter()
        answer = visitor.client.get(address + "".join(f"&{key}={value}" for key, value in moved.items()))
        content = answer.raise_for_status().content
        return time.perf_counter() - begin, content

    for _ in range(WARM_UP):
        draw(0.0)
    begin = time.perf_counter()
    drawn = [draw(k / (MOVES - 1)) for k in range(MOVES)]
    rate = MOVES / (time.perf_counter() - begin)
    seconds, images = zip(*drawn, strict=True)
    with Image.open(io.BytesIO(images[0])) as image:
        if image.size != (SIDE_PX, SIDE_PX):
            raise RuntimeError(f"the pictures have {image.size} pixels, and not {SIDE_PX}x{SIDE_PX}")
    if images[0] == images[-1]:
        raise RuntimeError("the pictures at the two ends of the handle are the same: it moves nothing")
    return list(seconds), rate


def main() -> int:
    """Times, or with --sliders those of the sliders, or with --pictures the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--sliders", action="store_true", help="measure the sliders of models at 64 px")
    other.add_argument("--pictures", action="store_true", help="write the pictures of docs/studio.md")
    parser.add_argument(
        "--all", type=Path, metavar="FOLDER", help="with --pictures: those of every page, into a folder"
    )
    parser.add_argument("--pairs", type=int, default=5, help="of trainings, one without a studio and one in it")
    parser.add_argument("--minutes", type=float, default=1.0, help="of each training")
    parser.add_argument("--model", default="vae")
    parser.add_argument("--data", default="digits")
    asked = parser.parse_args()
    if asked.all is not None and not asked.pictures:
        parser.error("--all FOLDER is for the pictures of every page; give --pictures, too")
    if asked.sliders:
        return sliders()
    if not asked.pictures:
        return times(asked.pairs, asked.minutes, asked.model, asked.data)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place) / "digits"
        folder.mkdir()
        with serving(folder) as (_, address):
            pictures(address, folder, asked.all)
    return 0


def pictures(address: str, folder: Path, every: Path | None = None) -> None:
    """What a person sees: a training, its run, the sliders, the map. Home is not among them, as it names its folder."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": 1100, "height": 760})
        page.set_default_timeout(180_000)
        page.goto(address)
        if every is not None:
            return every_page(page, address.split("/enter")[0], folder, every)
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
    from tour import prepare, tour  # pyright: ignore[reportMissingImports]

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
    sys.exit(main())
