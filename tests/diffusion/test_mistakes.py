"""What a user may ask for that a diffusion run cannot do: each is one sentence with what is allowed."""

import pytest

import trilemma
from trilemma.errors import UserError

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
    ("plain", {"label": 3}, "diffusion does not take a class: it was trained without labels"),
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


@pytest.mark.parametrize(
    ("model", "keys", "message"),
    [
        ("diffusion-dit", {"patch": 3}, "patch=3 does not divide images of 8x8; give a patch that does"),
        ("diffusion-dit", {"patch": 16}, "patch=16 does not divide images of 8x8"),
        ("diffusion", {"schedule": "cosin"}, 'schedule=cosin: .*did you mean "cosine"'),
        ("diffusion", {"prediction": "epsilon"}, "prediction=epsilon: give one of eps, x0"),
        ("diffusion", {"network": "unnet"}, 'did you mean "unet"'),
        ("diffusion", {"label_dropout": 1.0}, "label_dropout=1.*below 1"),
        ("diffusion", {"shift": 0}, "shift=0: give a number above 0"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_folder_is_made(model, keys, message, tmp_path):
    with pytest.raises(UserError, match=message):
        trilemma.train(model, "digits", out=tmp_path / "run", **SHORT, **keys)
    assert not (tmp_path / "run").exists()
