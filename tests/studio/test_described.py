"""/openapi.json describes what the forms send: the same fields as the pages have."""

import re

import pytest

from trilemma import vocabulary
from trilemma.studio.forms import fields_of
from trilemma.studio.sections import TOOLS
from trilemma.verbs import find

WITHOUT_FIELDS = {"/jobs/pause", "/jobs/stop", "/runs/restore/{ident}"}


def described(browser, path):
    """The schemas of the form of a route, one or several."""
    (content,) = browser.get("/openapi.json").json()["paths"][path]["post"]["requestBody"]["content"].values()
    return content["schema"].get("oneOf", [content["schema"]])


def names_in(page, path):
    """The names of the fields of the form that is sent there."""
    (inside,) = re.findall(rf'<form[^>]*method="post" action="{path}".*?</form>', page, re.S)
    return set(re.findall(r' name="([^"]+)"', inside))


def test_every_route_has_a_summary_and_every_form_its_fields(browser):
    paths = browser.get("/openapi.json").json()["paths"]
    routes = {(path, method): route for path, methods in paths.items() for method, route in methods.items()}
    summaries = [route["summary"] for route in routes.values()]
    assert len({*summaries}) == len(summaries) > 50
    without = {path for (path, method), route in routes.items() if method == "post" and "requestBody" not in route}
    assert without == WITHOUT_FIELDS
    assert "Compare runs and images" in browser.get("/api").text


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.title)
def test_the_fields_of_a_verb_are_those_of_its_page(browser, run, tool):
    schemas = described(browser, tool.path)
    assert described(browser, f"{tool.path}/lines") == schemas
    for verb, schema in zip(map(find, tool.verbs), schemas, strict=True):
        page = browser.get(f"{tool.path}?run={run.id}&verb={verb.name}").text
        own = {field.name for field in fields_of(verb, {}, run.model)} - {*verb.keys}
        assert names_in(page, tool.path) - own == {*schema["properties"]}
        assert schema["additionalProperties"] is verb.open
        assert {*schema["required"]} <= {*schema["properties"]} and schema["title"] == f"trilemma {verb.name}"
        n = schema["properties"].get("n", {})
        assert n == {} or n["description"] == verb.keys["n"]["description"]


@pytest.mark.parametrize("path", ["/train", "/train/lines", "/train/estimate"])
def test_the_fields_of_a_training_are_those_of_its_page(browser, path):
    (schema,) = described(browser, path)
    own = {field.name for field in fields_of(find("train"), {}, "vae")} - {*find("train").keys}
    assert names_in(browser.get("/train?model=vae").text, "/train") - own == {*schema["properties"]}
    assert schema["properties"]["model"]["enum"] == vocabulary.models() and schema["additionalProperties"]


def test_the_fields_of_other_forms_are_those_of_their_pages(browser, studio, run):
    (studio.folder / "samples").mkdir()
    (studio.folder / "samples" / "a.png").write_bytes(b"")
    for page, path, action in [
        ("/compare", "/compare", "/compare"),
        ("/compare", "/compare/train", "/compare/train"),
        ("/data", "/data/upload", "/data/upload"),
        ("/edit", "/edit/image", "/edit/image"),
        ("/sample", "/sample/receipt", "/sample/receipt"),
    ]:
        (schema,) = described(browser, path)
        assert names_in(browser.get(page).text, action) == {*schema["properties"]}, path
    assert '"multipart/form-data"' in browser.get("/openapi.json").text
