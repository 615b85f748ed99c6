"""What a user may ask for that a diffusion run cannot do: each is one sentence with what is allowed."""

import numpy as np
import pytest
import torch
from PIL import Image

import trilemma
from trilemma.classifiers.bundled import load_network
from trilemma.comparison.sampler_settings import settings_of
from trilemma.errors import UserError
from trilemma.metrics.likelihood import likelihood_scores
from trilemma.metrics.quality import Setup
from trilemma.metrics.reconstruction import reconstruction_scores

WITHOUT = r"this model was trained with label_dropout=0, so it knows no image without a {}; add {}=, or train it with "
SHORT = {"steps": 1, "batch": 8, "device": "cpu", "quiet": True}
SMALL = {"width": 8, "multipliers": (1,), "depth": 1, "attention_px": 0}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    base = tmp_path_factory.mktemp("mistakes")
    kinds = {
        "plain": ("diffusion", SMALL),
        "classes": ("diffusion", {**SMALL, "classes": True}),
        "small": ("diffusion-small", {"widths": (8, 8), "T": 60}),
    }
    return {
        name: trilemma.train(model, "digits", out=base / name, **SHORT, **keys) for name, (model, keys) in kinds.items()
    }


MISTAKES = [
    ("plain", {"sampler": "huen"}, 'sampler=huen: give one of auto, ddim, .*did you mean "heun"'),
    ("plain", {"grid": "kerras"}, 'grid=kerras: give one of auto, .*did you mean "karras"'),
    ("plain", {"schedule": "cosin"}, 'schedule=cosin: give one of cosine, .*did you mean "cosine"'),
    ("plain", {"steps": 0}, "steps=0: give a whole number of at least 1"),
    ("plain", {"sampler": "unipc", "eta": 0.5}, "sampler unipc takes no eta=; leave it out, or use .*ddim or dpm"),
    ("plain", {"eta": 0.5}, "sampler unipc takes no eta="),  # the default
    ("plain", {"sampler": "ddim", "order": 2}, "sampler ddim takes no order=; leave it out, or use sampler=unipc$"),
    ("plain", {"sampler": "unipc", "order": 5}, "order=5: give one of 2, 3"),
    ("plain", {"sampler": "ddim", "eta": 2}, "eta=2: give a number of at least 0 and up to 1"),
    ("plain", {"variance": "beta"}, 'unknown key "variance"'),
    (
        "plain",
        {"label": 3},
        "diffusion does not take a class: it was trained without labels; train it with classes=true, or",
    ),
    ("plain", {"guidance": 2.0}, "guidance=2 needs a model trained with classes=true"),
    ("plain", {"guidance": -1.0}, "guidance=-1"),
    ("classes", {"label": 10}, 'unknown label "10"; choose one of 0, 1'),
    ("classes", {"label": -1}, 'unknown label "-1"'),
    ("classes", {"guidance": 2.0, "guidance_interval": (1.0, -1.0)}, "guidance_interval=1,-1: give the lower value"),
    ("classes", {"guidance_interval": (-1.0, 1.0)}, "guidance_interval=-1,1 is for guidance= other than 1"),
    ("classes", {"guidance_rescale": 0.7}, "guidance_rescale=0.7 is for guidance= other than 1"),
    (
        "classes",
        {"guidance": 2.0, "guidance_rescale": 1.5},
        "guidance_rescale=1.5: give a number of at least 0 and up to 1",
    ),
    ("small", {"steps": 61}, "steps=61: the schedule has 60 steps; give 1 to 60"),
    ("small", {"sampler": "heun"}, "sampler=heun: give one of ddim, ddpm"),
    ("small", {"guidance": 2.0}, 'unknown key "guidance"'),
]


@pytest.mark.parametrize(("name", "keys", "message"), MISTAKES, ids=str)
def test_what_a_sampler_cannot_do_is_said_in_a_sentence(name, keys, message, runs):
    with pytest.raises(UserError, match=message) as error:
        runs[name].sample(2, **keys)
    assert len(str(error.value)) < 300 and "\n" not in str(error.value)


@pytest.fixture(scope="module")
def always_asked(tmp_path_factory):
    """Runs that have seen no image without its class, or its caption."""
    base = tmp_path_factory.mktemp("always")
    keys = {**SHORT, **SMALL, "label_dropout": 0.0}
    classes = trilemma.train("diffusion", "digits", classes=True, out=base / "classes", **keys)
    inpaint = trilemma.train("diffusion-inpaint", "digits", classes=True, out=base / "inpaint", **keys)
    upscale = trilemma.train("diffusion-upscale", "digits", classes=True, upscale=2, out=base / "upscale", **keys)
    text = {"size": 8, "text_width": 32, "text_depth": 1, "attention_px": 8}
    captions = trilemma.train("diffusion-text", "shapes:40", out=base / "captions", **{**keys, **text})
    return {"classes": classes, "inpaint": inpaint, "upscale": upscale, "captions": captions}


def calls_without(runs, asked, out):
    """Each verb of a model that was always asked for a class, by what it is called with beside the image."""
    classes, inpaint, upscale = runs["classes"], runs["inpaint"], runs["upscale"]
    short = {"n": 1, "steps": 2, "out": out / "e.png", **asked}
    yield lambda: trilemma.edit(classes, 3, strength=0.5, **short)
    yield lambda: trilemma.edit(classes, 3, noise=0.1, **short)
    yield lambda: trilemma.edit(classes, 3, mask="0,0,4,8", rounds=1, **short)
    yield lambda: trilemma.edit(inpaint, 3, mask="0,0,4,8", **short)
    yield lambda: trilemma.upscale(upscale, 3, **short)


@pytest.mark.slow
def test_a_model_that_was_always_told_the_class_does_nothing_without(always_asked, tmp_path):
    for call in calls_without(always_asked, {}, tmp_path):
        with pytest.raises(UserError, match=WITHOUT.format("class", "label") + "label_dropout=0.1$"):
            call()
    assert not list(tmp_path.iterdir())
    for call in calls_without(always_asked, {"label": 3}, tmp_path):
        assert len(call().images) == 1
    run = always_asked["classes"]
    assert run.sample(2, steps=2).shape == run.sample(2, label=3, steps=2).shape == (2, 1, 8, 8)
    assert trilemma.invert(run, 3, steps=2, out=tmp_path / "i.png").codes.shape == (1, 64)  # by its own class
    trilemma.invert(run, tmp_path / "e.png", label=3, steps=2, out=tmp_path / "i.png")
    with pytest.raises(UserError, match="this model needs the class of each image or code; give label="):
        trilemma.invert(run, tmp_path / "e-0.png", steps=2, out=tmp_path / "i.png")


def test_a_model_that_was_always_told_has_no_guidance(always_asked, tmp_path):
    refused = (
        r"guidance=2 needs images without a class or caption, and this model was trained with label_dropout=0; give"
    )
    for name, asked in (("classes", {"label": 3}), ("captions", {"caption": "a red circle"})):
        run = always_asked[name]
        for call in (
            lambda run=run, asked=asked: run.sample(1, steps=2, guidance=2, **asked),
            lambda run=run, asked=asked: trilemma.edit(
                run, 3, strength=0.5, guidance=2, out=tmp_path / "e.png", **asked
            ),
        ):
            with pytest.raises(UserError, match=refused):
                call()
    asked = {"label": 3, "guidance": 2, "out": tmp_path / "e.png"}
    with pytest.raises(UserError, match=refused):
        trilemma.edit(always_asked["inpaint"], 3, mask="0,0,4,8", **asked)
    with pytest.raises(UserError, match=refused):
        trilemma.upscale(always_asked["upscale"], 3, **asked)
    assert {"guidance": 2.0} not in settings_of(always_asked["classes"])  # of the curves of a comparison
    assert settings_of(always_asked["classes"]) and not list(tmp_path.iterdir())


def test_a_model_that_was_always_told_a_caption_does_nothing_without(always_asked, tmp_path):
    run = always_asked["captions"]
    Image.new("RGB", (8, 8), (90, 30, 0)).save(tmp_path / "flat.png")  # which has no caption of its own
    flat, out = tmp_path / "flat.png", {"out": tmp_path / "o.png"}
    for call in (
        lambda: run.sample(1, caption="", steps=2),
        lambda: run.sample(2, caption="a red circle | ", steps=2),
        lambda: trilemma.edit(run, 3, strength=0.5, n=1, steps=2, **out),
        lambda: trilemma.invert(run, 3, caption="", steps=2, **out),
    ):
        with pytest.raises(UserError, match=WITHOUT.format("caption", "caption")):
            call()
    for call in (
        lambda: trilemma.invert(run, 3, flat, steps=2, **out),
        lambda: trilemma.interpolate(run, flat, 4, **out),
        lambda: trilemma.interpolate(run, "seed:1", 4, **out),
        lambda: trilemma.edit(run, flat, towards="circle", **out),
    ):
        with pytest.raises(UserError, match="needs the caption of each image or code; give caption=, or images with"):
            call()
    with pytest.raises(UserError, match="unknown score"):
        trilemma.detect(run, n=20, score="elbo", out=tmp_path / "d")
    assert not (tmp_path / "o.png").exists()
    assert run.sample(2, steps=2).shape == (2, 3, 8, 8)  # by captions of the training
    assert len(trilemma.edit(run, 3, strength=0.5, caption="a red circle", n=1, steps=2, **out).images)
    split, reason = run.data.held_out[0], "the model reads captions, and was trained with label_dropout=0"
    bounds = likelihood_scores(run.model, run.data, split, split_label=split, own=True, samples=2, n=4, seed=0)
    assert bounds == ([], [f"no bound on the likelihood: {reason}"])
    setup = Setup(run.data, split, True, load_network("cifar10-cnn"), 4, 0)
    assert reconstruction_scores(run.model, setup, inverted=4) == ([], [f"no reconstructions: {reason}"])


@pytest.mark.slow
def test_codes_of_a_model_that_was_always_told_a_caption_are_those_under_it(always_asked, tmp_path):
    run = trilemma.load(always_asked["captions"].path, device="cpu")
    for parameter in run.model.parameters():  # one step teaches it no words
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(parameter.numel()))
    own, out = run.data.held_out[1].captions[3], {"out": tmp_path / "o.png"}
    by_itself, by_own, other = (
        trilemma.invert(run, 3, caption=caption, steps=2, **out).codes for caption in (None, own, "nothing at all")
    )
    assert torch.equal(by_itself, by_own) and not torch.equal(by_itself, other)
    np.save(tmp_path / "v.npy", np.zeros(run.model.code_length, np.float32))
    Image.new("RGB", (8, 8), (90, 30, 0)).save(tmp_path / "flat.png")
    walk = {"frames": 2, "how": "linear", "animate": False}
    assert len(trilemma.reconstruct(run, n=2, **out).images) == 2  # by their own
    assert trilemma.interpolate(run, 3, 4, **walk, **out).frames["linear"].shape == (2, 3, 8, 8)
    trilemma.interpolate(run, "seed:1", tmp_path / "flat.png", caption="a red circle | a blue square", **walk, **out)
    edited = trilemma.edit(
        run, tmp_path / "flat.png", towards=tmp_path / "v.npy", caption="a red circle", steps=2, **out
    )
    assert torch.allclose(edited.images[0], edited.images[1], atol=1e-6)


@pytest.mark.parametrize(
    ("model", "keys", "message"),
    [
        ("diffusion-dit", {"patch": 3}, "patch=3 does not divide images of 8x8; give 1, 2, 4, 8, or another size="),
        ("diffusion-dit", {"patch": 16}, "patch=16 does not divide images of 8x8"),
        ("diffusion", {"patch": 9}, "patch=9 is larger than the 8x8 that the network sees; give 1 to 8, or another"),
        ("diffusion", {"schedule": "cosin"}, 'schedule=cosin: .*did you mean "cosine"'),
        ("diffusion", {"prediction": "epsilon"}, "prediction=epsilon: give one of eps, x0"),
        ("diffusion", {"network": "unnet"}, 'did you mean "unet"'),
        ("diffusion", {"label_dropout": 1.0}, "label_dropout=1.*below 1"),
        ("diffusion", {"shift": 0}, "shift=0: give a number above 0"),
        ("diffusion", {"multipliers": ()}, "multipliers=: give one or more values with commas between, each a whole"),
        ("diffusion-small", {"widths": 8}, "widths=8: give 2 or more values with commas between, each a whole number"),
        (
            "diffusion-text",
            {"attention_px": 0},
            "attention_px=0 and captions=true: only maps with attention look at the",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_folder_is_made(model, keys, message, tmp_path):
    with pytest.raises(UserError, match=message):
        trilemma.train(model, "digits", out=tmp_path / "run", **SHORT, **keys)
    assert not (tmp_path / "run").exists()
