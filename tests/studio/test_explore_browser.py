"""Explore in a real browser: kinds of axes, the plane by pointer and by keyboard, classes, styles, brought images."""

import io
import re

import pytest
from PIL import Image
from studio import test_browser

import trilemma

browser, work, address, page = test_browser.browser, test_browser.work, test_browser.address, test_browser.page
pytestmark = test_browser.pytestmark
SAME = """async () => {
    const place = document.querySelector('[data-sliders]');
    const values = [...place.querySelectorAll('input[data-mean]')].map(one => `&${one.name}=${one.value}`).join('');
    const pixels = async url => {
        const image = new Image(), canvas = document.createElement('canvas'), pen = canvas.getContext('2d');
        image.src = url;
        await image.decode();
        canvas.width = canvas.height = image.naturalWidth;
        pen.drawImage(image, 0, 0);
        return pen.getImageData(0, 0, canvas.width, canvas.height).data.toString();
    };
    return await pixels(place.querySelector('img').src) === await pixels(place.dataset.sliders + values);
}"""
DIFFERENT = "src => document.querySelector('.result img').getAttribute('src') !== src"


@pytest.fixture
def runs(work):
    """The folder of runs of the studio."""
    return work / "runs"


def sliders(page, run):
    """Go to the sliders of a run."""
    page.goto(re.match("https?://[^/]+", page.url)[0] + "/explore")
    page.select_option("#run", label=run)
    page.wait_for_url(re.compile("run="))
    page.click("text=sliders")
    page.wait_for_selector("input[data-mean]")


def changed(page, act):
    """Act, and wait for another picture."""
    before = page.get_attribute(".result img", "src")
    act()
    page.wait_for_function(DIFFERENT, arg=before, timeout=30_000)
    page.wait_for_timeout(300)  # of the last place


def places(page):
    return [float(page.input_value(f"#{page.input_value(side)}")) for side in ("#across", "#up")]


def ends(page, side, end):
    return float(page.get_attribute(f"#{page.input_value(side)}", end))


def test_a_plane_is_moved_by_pointer_and_by_arrows_and_the_picture_follows(page, runs):
    trilemma.train("vae", "digits", steps=20, out=runs / "vae", quiet=True)
    sliders(page, "runs/vae (vae)")
    plane = page.locator("[data-plane]")
    plane.scroll_into_view_if_needed()
    box = plane.bounding_box()

    def drag():
        page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.1 * box["height"], steps=5)
        page.mouse.up()

    changed(page, drag)
    for value, side, share in zip(places(page), ("#across", "#up"), (0.75, 0.9), strict=True):
        low, high = ends(page, side, "min"), ends(page, side, "max")
        assert value == pytest.approx(low + share * (high - low), abs=0.02 * (high - low))
    assert page.evaluate(SAME)
    page.mouse.move(box["x"] + 5, box["y"] + 5)  # without its button
    kept = places(page)
    plane.focus()
    changed(page, lambda: page.keyboard.press("ArrowLeft"))
    x, y = places(page)
    width = ends(page, "#across", "max") - ends(page, "#across", "min")
    assert x == pytest.approx(kept[0] - width / 20) and y == kept[1] and page.evaluate(SAME)
    changed(page, lambda: page.keyboard.press("Shift+ArrowDown"))
    height = ends(page, "#up", "max") - ends(page, "#up", "min")
    assert places(page) == pytest.approx([x, y - height / 100]) and page.evaluate(SAME)
    for _ in range(30):
        page.keyboard.press("ArrowUp")
    assert places(page)[1] == pytest.approx(ends(page, "#up", "max"))
    mark = plane.locator("span").bounding_box()
    assert mark["y"] + mark["height"] / 2 == pytest.approx(plane.bounding_box()["y"], abs=2)
    page.select_option("#across", index=2)
    third = page.input_value("#across")
    changed(page, lambda: plane.press("ArrowRight"))
    assert float(page.input_value(f"#{third}")) > float(page.get_attribute(f"#{third}", "data-start"))
    changed(page, lambda: page.click("[data-set=start]"))
    for handle in page.locator("input[data-mean]").all():
        assert float(handle.input_value()) == pytest.approx(float(handle.get_attribute("data-start")), abs=1e-6)


def test_kinds_classes_and_styles_are_chosen(page, runs):
    small = {"steps": 1, "batch": 16, "width": 2, "quiet": True}
    trilemma.train("gan-style", "digits", classes=True, out=runs / "styles", **small)
    sliders(page, "runs/styles (gan-style)")
    assert page.inner_text(".slider label >> nth=0") == "direction 0"
    changed(page, lambda: page.locator("#truncation").press("Home"))
    zero = page.get_attribute(".result img", "src")
    page.fill("#mix", "3")
    page.wait_for_function(DIFFERENT, arg=zero)
    page.click(".tabs >> text=units")
    page.wait_for_selector(".slider label:has-text('unit')")
    page.select_option("#class", label="7")
    page.click("form:has(#class) button")
    page.wait_for_url(re.compile("label=7"))
    page.wait_for_selector("input[data-mean]")
    assert page.input_value("#class") == "7" and "label=7" in page.inner_text("pre >> nth=0")


def test_the_noise_of_a_diffusion_model_is_turned(page, runs):
    trilemma.train("diffusion", "digits", steps=1, batch=16, out=runs / "noise", quiet=True)
    sliders(page, "runs/noise (diffusion)")
    assert page.inner_text(".slider label >> nth=0") == "noise 0"
    assert "An image takes 10 calls of the network" in page.inner_text(".sliders .hint >> nth=0")
    changed(page, lambda: page.locator("input[data-mean] >> nth=0").press("End"))
    assert page.evaluate(SAME)
    page.fill("#start", "seed:5")
    page.click("form:has(#start) button")
    page.wait_for_url(re.compile("start=seed"))
    page.wait_for_selector("input[data-mean]")


def test_brought_images_are_interpolated_and_moved(page, runs):
    trilemma.train("vae", "digits", steps=4, out=runs / "vae", quiet=True)
    page.goto(page.url + "explore?verb=interpolate")
    for key, level in (("a", 40), ("b", 220)):
        content = io.BytesIO()
        Image.new("L", (8, 8), level).save(content, "png")
        file = {"name": f"{key}.png", "mimeType": "image/png", "buffer": content.getvalue()}
        page.set_input_files(f"#bring-{key}", file)
        page.wait_for_url(re.compile(f"{key}=image%3A"))
    assert page.locator(".brought img").count() == 2
    assert page.input_value("#a").startswith("image:") and page.input_value("#b") != page.input_value("#a")
    page.click("main button:has-text('Start')")
    test_browser.finished(page)
    page.wait_for_selector(".result img")
    sliders(page, "runs/vae (vae)")
    page.set_input_files("#bring", file)
    page.wait_for_url(re.compile("start=image%3A"))
    page.wait_for_selector("input[data-mean]")
    assert page.input_value("#start").startswith("image:")
    changed(page, lambda: page.click("text=At random"))
    assert page.evaluate(SAME)
