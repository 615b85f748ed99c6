"""A report in a real browser: on a phone and on a wide window, light and dark, on paper; its tables are sorted by mouse
and by keyboard. Needs playwright, and Debian's chromium."""

import shutil
from itertools import product

import pytest
from comparison.stand_ins import FAMILIES, FIGURES

from trilemma.comparison import compare
from trilemma.comparison.content import LearningPoint, SamplerPoint
from trilemma.comparison.entries import representative, rows_of
from trilemma.language import in_language, translated

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which is no part of the extras")
CHROMIUM = shutil.which("chromium")
WIDTHS = (390, 1200)  # px of a phone and of a wide window
LEAST_PX = 8  # of letters in a plot
TEXTS = """[...document.querySelectorAll('svg text')].filter(one => one.textContent.trim()).map(one => {
    const at = one.getScreenCTM(), box = one.getBoundingClientRect();
    return {
        text: one.textContent.trim(), plot: [...document.querySelectorAll('svg')].indexOf(one.ownerSVGElement),
        px: parseFloat(getComputedStyle(one).fontSize) * Math.hypot(at.a, at.b),
        left: box.left, right: box.right, top: box.top, bottom: box.bottom,
    };
})"""
OUTSIDE = """[...document.querySelectorAll('svg, img, table')]
    .filter(one => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map(one => one.tagName + ' ' + (one.getAttribute('aria-label') || one.alt || one.className))"""
NAMES = """[...document.querySelector('table.figures').tBodies[0].rows].filter(row => !row.classList.contains('said'))
    .map(row => row.cells[0].firstChild.textContent.trim())"""
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")]


def with_curves(entries, reference, batch, progress, measured):
    """Curves of every model: of its training, which halves the distance each time, and of two settings."""
    for k, row in enumerate(rows_of(entries).values()):
        entry = representative(row)
        values = [(j, (k + 1) / 2**j) for j in range(5)]
        entry.learning = tuple(
            LearningPoint(1_200 * 2**j, 30 / 2 ** (4 - j), v, [0.8 * v, 1.2 * v], 0.02 * v, 0.05 * v, {})
            for j, v in values
        )
        ms = FIGURES[entry.name][3]
        entry.samplers = tuple(
            SamplerPoint(f"steps={n}", own, ms * n / 20, v, [v - 0.1, v + 0.1], v, [v - 0.05, v + 0.05], 500, {}, {})
            for n, v, own in ((20, 0.8 - 0.1 * k, True), (5, 0.6 - 0.1 * k, False))
        )
        progress.done()


@pytest.fixture
def lang():
    """The language of the report."""
    return "en"


@pytest.fixture
def report(stage, plots, monkeypatch, lang):
    monkeypatch.setattr("trilemma.comparison.work.measure_curves", with_curves)
    return compare(quiet=True, lang=lang).html.resolve()


@pytest.fixture
def opened(report):
    """The report in a window of a width, with a colour scheme; nothing fails, and nothing else is asked for."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def page_of(width, scheme):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page.on("request", lambda one: None if one.url.startswith(("file:", "data:")) else faults.append(one.url))
            page.on("requestfailed", lambda one: faults.append(one.url))
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
            page.goto(report.as_uri())
            return page

        faults = []
        yield page_of
        browser.close()
        assert not faults


def by(number, *, falling=False):
    """The models in the order of one of their FIGURES."""
    return sorted(FAMILIES, key=lambda name: FIGURES[name][number], reverse=falling)


def overlapping(texts):
    """Pairs of texts of a plot that cover each other by more than a pixel, each way."""
    return [
        (a["text"], b["text"])
        for k, a in enumerate(texts)
        for b in texts[k + 1 :]
        if a["plot"] == b["plot"]
        and min(a["right"], b["right"]) - max(a["left"], b["left"]) > 1
        and min(a["bottom"], b["bottom"]) - max(a["top"], b["top"]) > 1
    ]


@pytest.mark.parametrize("lang", ["en", "vi"])
def test_a_report_in_a_browser(opened, lang):
    with in_language(lang):
        expected = {translated(text) for text in ("density", "images per second", "Kernel distance over the training")}
    for width, scheme in product(WIDTHS, ("light", "dark")):
        page = opened(width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, (width, scheme)
        texts = page.evaluate(TEXTS)
        assert page.evaluate("document.documentElement.lang") == lang and expected <= {one["text"] for one in texts}
        assert [one for one in texts if one["px"] < LEAST_PX] == [], width
        assert overlapping(texts) == [], width
        page.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_table_is_sorted_by_its_heads(opened, width):
    page = opened(width, "light")
    assert page.evaluate(NAMES) == list(FAMILIES)
    density, coverage = (page.locator("table.figures").first.locator("thead th button").nth(k) for k in (1, 2))
    density.click()
    assert page.evaluate(NAMES) == by(0)
    density.click()
    assert page.evaluate(NAMES) == by(0, falling=True)
    coverage.focus()
    page.keyboard.press("Enter")
    assert page.evaluate(NAMES) == by(1) != by(0)
    heads = [one.get_attribute("aria-sort") for one in page.locator("table.figures").first.locator("thead th").all()]
    assert heads[:3] == [None, None, "ascending"]


def test_a_report_on_paper(opened):
    """A page of A4 has 794 px less margins; plots that are wider on a screen fit it."""
    page = opened(690, "dark")
    page.emulate_media(media="print")
    assert page.evaluate(OUTSIDE) == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(255, 255, 255)"
    plots = [page.locator(f"section:has(#{name}) .scroll > svg").bounding_box() for name in ("samplers", "learning")]
    assert all(box["width"] <= 690 for box in plots)
    pdf = page.pdf()
    assert pdf.startswith(b"%PDF") and pdf.count(b"/Type /Page\n") > 1
