"""A walk through the pages of the studio with something on each: what the checks of pages, and pictures of them, see.

`benchmarks/studio.py --pictures --all` takes it, too, so nothing of the tests is imported here.
"""

import re

PAGES = (
    "/",
    "/data",
    "/train",
    "/runs",
    "/sample",
    "/explore",
    "/edit",
    "/detect",
    "/measure",
    "/compare",
    "/jobs",
    "/api",
)


def prepare(folder):
    """What the pages show: runs, one of them with samples, a detection and a map."""
    import trilemma

    run = folder / "runs" / "vae"
    trilemma.train("vae", "digits", steps=20, out=run, quiet=True)
    trilemma.train("vae", "digits", steps=4, seed=1, out=folder / "runs" / "other", quiet=True)
    trilemma.train("diffusion", "digits", steps=1, batch=16, out=folder / "runs" / "diffusion", quiet=True)
    trilemma.sample(run, n=4)
    trilemma.detect(run, false_alarms=0.1)
    trilemma.latent_map(run, how="pca", n=200, interactive=True)


def tour(page, base, folder):
    """Open one page after the other, of a studio whose folder was prepared, and give the name of each."""
    for path in PAGES:
        page.goto(base + path)
        page.wait_for_selector("h1")
        yield path.strip("/") or "home"
    yield from of_a_run(page, base)
    yield from of_images(page, base, folder)
    yield from of_jobs(page, base)
    page.goto(f"{base}/runs/0123456789abcdef")
    page.wait_for_selector(".error:visible")
    yield "error"
    page.click("button[value=vi]")
    page.wait_for_selector("html[lang=vi]")
    for path in ("/", "/train", "/edit", "/jobs"):
        page.goto(base + path)
        page.wait_for_selector("h1")
        yield f"{path.strip('/') or 'home'}-vi"


def of_a_run(page, base):
    """What the run shows, its pictures, its sliders, its map, its detection, and what differs from another."""
    ident = ident_of(page, base, "vae")
    page.click("tbody a:text-is('runs/vae')")
    page.wait_for_selector("h1:text-is('runs/vae')")
    yield "run"
    page.click(".gallery a >> nth=0")
    page.wait_for_selector("figure.result img")
    yield "picture"
    page.goto(f"{base}/runs")
    for box in page.locator("[name=run]").all():
        box.check()
    page.click("text=What differs between those chosen?")
    page.wait_for_selector("thead a")
    yield "differences"
    page.goto(f"{base}/explore/sliders?run={ident}")
    page.wait_for_selector("input[type=range]")
    yield "sliders"
    page.goto(f"{base}/explore/map?run={ident}&how=pca")
    page.wait_for_selector("[data-ready]")
    page.click(".map-classes button >> nth=0")
    page.click(".map-list button >> nth=0")
    page.wait_for_selector(".map-nearest ol")
    yield "map"
    page.goto(f"{base}/detect?run={ident}")
    page.wait_for_selector("#at-threshold strong")
    yield "thresholds"


def of_images(page, base, folder):
    """Images that are brought in, a picture that is dropped, an image with a mask, and what was made of it."""
    picture = folder / "runs" / "vae" / "samples" / "seed-0.png"
    page.goto(f"{base}/data")
    page.fill("#name", "mine")
    page.set_input_files("#files", picture)
    page.click("text=Bring them")
    page.wait_for_selector(".verdict")
    yield "brought"
    page.goto(f"{base}/sample?run={ident_of(page, base, 'vae')}")
    page.set_input_files("#picture", picture)
    page.wait_for_selector("#receipt dl")
    yield "receipt"
    page.goto(f"{base}/edit?run={ident_of(page, base, 'diffusion')}&image=3")
    page.click("text=Paint over this image")
    page.wait_for_url(re.compile("image%3A"))
    paint(page, [(0.2, 0.2), (0.7, 0.2), (0.7, 0.6)])
    yield "painting"
    page.fill("#key-n", "2")
    page.click("main button.first")
    finished(page)
    yield "edited"


def of_jobs(page, base):
    """A job that has ended, and a comparison that runs."""
    page.goto(f"{base}/sample?run={ident_of(page, base, 'vae')}")
    page.fill("#key-n", "4")
    page.click("main button.first")
    finished(page)
    yield "job"
    page.goto(f"{base}/compare")
    page.fill("#key-models", "vae,gan")
    page.fill("#key-minutes", "1")
    page.click("text=Train and compare")
    page.wait_for_selector(".live-report")
    yield "comparison"
    job = page.url
    page.goto(f"{base}/compare")
    page.wait_for_selector(".live-report")
    yield "comparisons"
    page.goto(job)
    page.click("text=Stop")
    page.wait_for_selector(".state.stopped")


def ident_of(page, base, name):
    """The id of a run, from the page of runs, which is left open."""
    page.goto(f"{base}/runs")
    return page.get_attribute(f"tbody a:text-is('runs/{name}')", "href").rpartition("/")[2]


def paint(page, points):
    """Draw with the mouse over the image, along places in shares of its sides."""
    canvas = page.locator(".painting canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    for k, (right, down) in enumerate(points):
        page.mouse.move(box["x"] + right * box["width"], box["y"] + down * box["height"])
        if k == 0:
            page.mouse.down()
    page.mouse.up()


def finished(page):
    """Wait until the job of the page has ended, and that it ended well."""
    page.wait_for_selector(".state.finished, .state.failed, .state.interrupted")
    assert page.locator(".lead .state").inner_text() == "finished", page.locator(".output").inner_text()
