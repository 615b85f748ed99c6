"""The studio beside a training: how quick its pages are, and what the training loses by them; how quick its sliders
are; and the pictures of docs/studio.md.

    python benchmarks/studio.py [--pairs 12] [--seconds 10] [--model vae] [--data digits]
    python benchmarks/studio.py --sliders    # of a VAE and two GANs at 64 px
    python benchmarks/studio.py --pictures   # writes docs/figures/studio-*.png; needs playwright and Debian's chromium
    python benchmarks/studio.py --pictures --all FOLDER   # every page into FOLDER: 390, 1200 and 1920 px, light, dark

A training runs as a job that a form has started. A pair is two periods of it, in turns first and second: one in which
no page is open, and one in which the page of the job is: it holds the stream of news, and fetches its live part and its
new pictures whenever there are news, as its script does. And a person opens another page each second. (Two trainings,
one with a studio and one without, would differ by more than what is measured: from one minute to the next a machine
computes 10% more or less.)

The figures are the 95th percentiles of the times of whole pages and of live parts, each apart; and the mean over the
pairs of the share of images per second that is lost, with a 95% interval. A second is one on the clock, so that
validation, pictures and checkpoints count, too.

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
import math
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

from trilemma.metrics.intervals import quantile
from trilemma.studio.library import Library
from trilemma.studio.painter import LONGEST_S

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
PAGES = ("/", "/data", "/train", "/runs", "/sample", "/explore", "/edit", "/detect", "/measure", "/compare", "/jobs")
LARGEST_P95_MS, LARGEST_LOSS = 200.0, 0.03  # the bars
WHAT = ("model", "data")  # of a form; what else there is are keys
VISIT_S = 1.0  # seconds between two pages that a person opens
ENDED = re.compile('class="state (finished|failed|stopped|interrupted|cancelled)"')
START_S, SETTLE_S = 60.0, 5.0  # in which a training has begun; and after its first rows
TAIL = 10_000  # bytes of a log, in which there are several rows
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

    def watch(self, job: str, over: Event) -> None:
        """Look at the page of a job, which is fetched anew whenever there are news, until it is over.

        Raises:
            RuntimeError: the job has ended before.
        """
        seen: set[str] = set()
        self.page(job)
        with self.client.stream("GET", "/events", timeout=None) as events:
            for line in events.iter_lines():
                if over.is_set():
                    return
                if line != "event: news":
                    continue
                text = self.page(f"{job}/live")
                self.run = next(iter(re.findall('href="(/runs/[0-9a-f]{16})"', text)), self.run)
                for source in {*re.findall('<img[^>]* src="([^"]*)"', text)} - seen:
                    self.client.get(source).raise_for_status()
                    seen.add(source)
                if (end := ENDED.search(text)) is not None:
                    raise RuntimeError(f"the training is {end[1]}")
        raise RuntimeError("the stream of news has ended")

    def visit(self, job: str, over: Event) -> None:
        """Open one page after the other, also that of the run that is trained, until it is over."""
        for path in cycle([*PAGES, job, ""]):
            if over.wait(VISIT_S):
                return
            self.page(path or self.run)


def alone(folder: Path, fields: dict[str, str]) -> None:
    """A training by the command line, with no studio; its fields are those of the form."""
    words = ["train", fields["model"], fields["data"], *(f"{k}={v}" for k, v in fields.items() if k not in WHAT)]
    done = subprocess.run([sys.executable, "-m", "trilemma", *words], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)


def images_in(log: Path) -> int:
    """Images that a training has seen, by the last whole row of its log."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        return json.loads(file.read().split(b"\n")[-2])["images"]


def speed(log: Path, seconds: float) -> float:
    """Images per second of a training in the next seconds."""
    before, begin = images_in(log), time.perf_counter()
    time.sleep(seconds)
    return (images_in(log) - before) / (time.perf_counter() - begin)


def watched_speed(visitor: Visitor, job: str, log: Path, seconds: float) -> float:
    """The same with the page of the job open and others visited."""
    over = Event()
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(visitor.watch, job, over), pool.submit(visitor.visit, job, over)]
        try:
            result = speed(log, seconds)
        finally:
            over.set()
    for one in both:
        one.result()
    return result


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


def times(pairs: int, seconds: float, model: str, data: str) -> int:
    """Measure and print; 1 if a figure is beyond its bar."""
    losses = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place).resolve()
        with serving(folder) as (_, address):
            visitor = Visitor(address)
            minutes = (START_S + 3 * pairs * seconds) / 60  # more than is needed: it is cancelled
            job = visitor.start("/train", {"model": model, "data": data, "minutes": f"{minutes:g}"})
            try:
                log = begun(folder)
                for k in range(pairs):
                    speeds = {}
                    for is_watched in (k % 2 == 0, k % 2 == 1):
                        speeds[is_watched] = (
                            watched_speed(visitor, job, log, seconds) if is_watched else speed(log, seconds)
                        )
                    losses.append(1 - speeds[True] / speeds[False])
                    print(f"pair {k + 1}: {speeds[False]:,.0f} images/s, {speeds[True]:,.0f} beside pages", flush=True)
            finally:
                visitor.client.post(f"{job}/cancel")  # a job outlives the studio
    p95_ms, loss = page_p95_ms(visitor.spent), statistics.fmean(losses)
    reach = quantile(df=len(losses) - 1) * statistics.stdev(losses) / math.sqrt(len(losses))
    print(f"images per second: the training loses {loss:.1%} ({loss - reach:.1%} to {loss + reach:.1%}; at most "
          f"{LARGEST_LOSS:.0%})")  # fmt: skip
    return int(p95_ms > LARGEST_P95_MS or loss > LARGEST_LOSS)


def begun(folder: Path) -> Path:
    """The log of the training that runs in a folder, once it has rows.

    Raises:
        RuntimeError: it has none after START_S.
    """
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        for log in (folder / "runs").glob("*/log.jsonl"):
            if log.read_bytes().count(b"\n") > 1:
                time.sleep(SETTLE_S)
                return log
        time.sleep(0.1)
    raise RuntimeError(f"the training has no log after {START_S:g} seconds")


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
    parser.add_argument("--pairs", type=int, default=12, help="of periods, one without pages and one with them")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each period")
    parser.add_argument("--model", default="vae")
    parser.add_argument("--data", default="digits")
    asked = parser.parse_args()
    if asked.all is not None and not asked.pictures:
        parser.error("--all FOLDER is for the pictures of every page; give --pictures, too")
    if asked.sliders:
        return sliders()
    if not asked.pictures:
        return times(asked.pairs, asked.seconds, asked.model, asked.data)
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
