"""Which verbs take a checkpoint: by the table before a download, by the class before its weights are loaded."""

import pytest
from PIL import Image
from pretrained.folders import change_json, make_folder

from trilemma import compare, edit, evaluate, imagine, interpolate, upscale
from trilemma.cli.main import main
from trilemma.errors import UserError
from trilemma.pretrained.kinds import product_of
from trilemma.pretrained.libraries import load_diffusers, silence
from trilemma.pretrained.table import CHECKPOINTS, check_verb, defaults_of, takers

VERBS = ("imagine", "edit", "upscale", "interpolate", "evaluate", "compare")


def calls(name):
    """A call of each verb with a pipeline."""
    pipeline, measured = f"pipeline:{name}", {"against": "digits", "n": 12, "prompt": "a cat"}
    Image.new("RGB", (16, 16)).save("photo.png")
    return {
        "imagine": lambda: imagine("a cat", model=name),
        "edit": lambda: edit(pipeline, "photo.png", caption="a cat", strength=0.5),
        "upscale": lambda: upscale(pipeline, "photo.png", caption="a cat"),
        "interpolate": lambda: interpolate(pipeline, "a cat", "a dog"),
        "evaluate": lambda: evaluate(pipeline, **measured),
        "compare": lambda: compare(pipeline, **measured, quiet=True),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ltx-video", "stable-diffusion-x4", "sd-turbo", "shap-e"])
def test_the_table_refuses_before_anything_is_looked_for(name, monkeypatch):
    reached = []

    def fetched(repository):
        reached.append(repository)
        raise UserError("fetched")

    monkeypatch.setattr("trilemma.pretrained.fetch._download", fetched)
    row = CHECKPOINTS[name]
    for verb, call in calls(name).items():
        reached.clear()
        with pytest.raises(UserError) as caught:
            call()
        if verb in row.verbs:
            assert reached == [row.repository], verb
        else:
            assert not reached and f"does not take {name} ({row.about}), which is for" in str(caught.value), verb


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_refusal_names_what_takes_it_and_what_is_taken(name):
    row = CHECKPOINTS[name]
    for verb in VERBS:
        for word in (name, row.repository):
            if verb in row.verbs:
                check_verb(word, verb)
                continue
            with pytest.raises(UserError) as caught:
                check_verb(word, verb)
            assert ", ".join(row.verbs) in str(caught.value) and ", ".join(takers(verb)) in str(caught.value)


def test_a_folder_and_a_repository_of_no_row_are_for_every_verb(tmp_path):
    for verb in VERBS:
        check_verb(str(tmp_path), verb)
        check_verb("owner/name", verb)
    with pytest.raises(UserError, match='unknown model "nothing"'):
        check_verb("nothing", "edit")


def test_the_command_line_refuses_as_the_table_says(capsys):
    assert main(["evaluate", "pipeline:ltx-video", "against=digits"]) == 2
    said = capsys.readouterr().err
    assert "evaluate does not take ltx-video" in said and "which is for imagine; choose one of sd-turbo" in said


CLASSES = {
    "AnimateDiffPipeline": "films",
    "ShapEPipeline": "objects",
    "StableDiffusionUpscalePipeline": "enlarged images",
    "DDPMPipeline": "images, but not from a text",
    "StableDiffusionPipeline": "images from a text",
}


@pytest.mark.slow
def test_products_are_known_by_the_class():
    diffusers = load_diffusers()
    with silence():
        assert {name: product_of(getattr(diffusers, name)) for name in CLASSES} == CLASSES


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "channels", "taken"),
    [
        ("AnimateDiffPipeline", 4, {"imagine frames"}),
        ("ShapEPipeline", 4, {"imagine"}),
        ("StableDiffusionUpscalePipeline", 7, {"imagine", "upscale"}),
        ("DDPMPipeline", 3, set()),
        ("StableDiffusionPipeline", 4, {"imagine", "edit", "interpolate", "evaluate"}),
        ("StableDiffusionInpaintPipeline", 4, {"imagine", "edit", "interpolate", "evaluate"}),
        ("StableDiffusionInpaintPipeline", 4 + 1 + 4, {"imagine", "edit"}),  # the noise, a mask and an image
    ],
)
def test_a_class_is_refused_before_its_weights_are_loaded(kind, channels, taken, tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "tiny")
    change_json(folder / "model_index.json", _class_name=kind)
    change_json(folder / "unet/config.json", in_channels=channels)
    reached = []

    def measured(*_):
        reached.append("weights")
        raise UserError("reached")

    monkeypatch.setattr("trilemma.pretrained.pipeline.check_memory", measured)
    tried = calls(str(folder))
    tried["imagine frames"] = lambda: imagine("a cat", model=str(folder), frames=4)
    del tried["compare"]  # it measures by evaluate
    for verb, call in tried.items():
        reached.clear()
        with pytest.raises(UserError) as caught:
            call()
        assert bool(reached) == (verb in taken), (verb, str(caught.value))
        assert reached or f"({kind})" in str(caught.value)


@pytest.mark.parametrize("strength", [1, 0.9999, 0.8, 0.7, 0.5, 0.3, 0.1, 0.07, 1 / 3, 1 / 49, 0.001])
def test_an_image_is_drawn_again_in_as_few_steps_as_leave_one(strength):
    given = {"image": "photo.png", "strength": strength}
    for name in ("sd-turbo", "sdxl-turbo", "stabilityai/sd-turbo"):
        own = defaults_of(name, given)
        assert (own["strength"], own["guidance"]) == (strength, 0)
        assert own["steps"] * strength >= 1 > (own["steps"] - 1) * strength


def test_where_more_steps_are_not_needed_the_table_is_as_it_was():
    plain = {"steps": 1, "guidance": 0.0}
    assert defaults_of("sd-turbo") == defaults_of("sd-turbo", {"strength": 0.5}) == plain
    assert defaults_of("sd-turbo", {"image": "photo.png", "steps": 3}) == plain  # which steps= replaces
    assert defaults_of("sd-turbo", {"image": "photo.png"}) == {"steps": 2, "guidance": 0.0, "strength": 0.5}
    under_a_mask = {"image": "photo.png", "mask": "0,0,8,8"}
    assert defaults_of("sd-turbo", under_a_mask) == {**plain, "strength": 1.0}
    assert defaults_of("owner/name", {"image": "photo.png"}) == {}


def test_too_few_steps_are_refused_before_anything_is_looked_for(monkeypatch):
    monkeypatch.setattr("trilemma.pretrained.fetch._download", None)
    Image.new("RGB", (16, 16)).save("photo.png")
    keys = {"model": "sd-turbo", "image": "photo.png"}
    for more in ({"steps": 1, "strength": 0.5}, {"steps": 1, "x": "strength:1,0.5"}, {"strength": 1e-9}):
        with pytest.raises(UserError, match="no step is left; their product must be 1 or more"):
            imagine("a cat", **keys, **more)
