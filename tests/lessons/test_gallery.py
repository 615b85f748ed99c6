"""Every figure is drawn by its name, into the file asked for, and mistakes are answered with what is allowed."""

from pathlib import Path
from typing import get_args

import pytest
from PIL import Image

from trilemma.errors import UserError
from trilemma.lessons import figure, list_figures
from trilemma.lessons.gallery import LESSONS, settings_of
from trilemma.pictures.png import read_metadata, save_png

QUICK = {
    "jensen-gap": {"repeats": 20, "samples": 10},
    "sparse-units": {"units": 2, "images": 3},
    "beside": {"n": 4},
    "beta": {"n": 2},
    "score-field": {"ratios": [0.5], "samplers": ["ddpm", "heun"], "steps": 2, "starts": 3},
    "solver-order": {"counts": [4, 8], "starts": 4},
    "adversarial-game": {"steps": 4},
    "slope-bounds": {"steps": 2, "critics": ["hinge+r1"]},
    "critic-augment": {"data": "digits", "n": 3, "probabilities": [0.5]},
    "mode-collapse": {"steps": 2, "losses": ["hinge", "relativistic+r1r2"]},
    "styles": {"rows": 1, "columns": 4, "truncations": [0.5]},
    "metric-faults": {"strengths": [0.0, 1.0]},
    "model-faults": {"strengths": [0.0, 1.0]},
    "guidance": {"scales": [1.0, 2.0], "n": 20, "steps": 2},
    "calls": {"numbers": [1, 2], "samplers": ["ddim"], "n": 20, "reference": 3},
    "few-calls": {"steps": [1, 2], "points": 20},
    "bits": {"assumed_std": [0.25]},
}
RUNS = {
    "pca": ["ae-linear"],
    "sparse-units": ["ae-sparse"],
    "beside": ["ae-stacked", "vae"],
    "beta": ["vae"],
    "levels": ["vae-hierarchical"],
    "calls": ["diffusion"],
    "guidance": ["classes"],
    "styles": ["gan-style"],
}


# whose values other tests of their lessons check, and which take longer to draw
LONG = (
    "metric-faults",
    "model-faults",
    "pca",
    "solver-order",
    "score-field",
    "adversarial-game",
    "beside",
    "jensen-gap",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in LESSONS]
)
def test_every_figure_is_drawn_and_says_how(name, folders, tmp_path):
    runs = [folders[model] for model in RUNS.get(name, [])]
    picture = figure(name, *runs, out=tmp_path / "picture.png", **QUICK.get(name, {}))
    with Image.open(picture) as image:
        assert image.width > 300 and image.height > 150
        assert len(image.convert("RGB").getcolors(2**24)) > 10
    receipt = read_metadata(picture)
    assert (receipt["verb"], receipt["figure"], len(receipt["runs"])) == ("figure", name, len(runs))
    assert QUICK.get(name, {}).items() <= receipt.items()


@pytest.mark.slow
def test_where_a_figure_is_written(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert figure("kl-penalty") == Path("figures/kl-penalty.png")
    assert figure("kl-penalty", target=0.5) == Path("figures/kl-penalty-target-0.5.png")
    assert sorted(path.name for path in Path("figures").iterdir()) == ["kl-penalty-target-0.5.png", "kl-penalty.png"]
    linear = folders["ae-linear"]
    assert figure("pca", linear) == linear / "figure-pca.png"


def test_a_figure_of_other_runs_does_not_replace_the_first(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = folders["ae-stacked"], folders["vae"]
    for _ in range(2):  # made again, it takes its own place
        assert figure("beside", *runs, n=2) == Path("figures/beside-n-2.png")
        assert figure("beside", *runs[::-1], n=2) == Path("figures/beside-n-2-2.png")
    Path("figures/kl-penalty.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="not written by trilemma"):
        figure("kl-penalty")


def test_pictures_with_strange_runs_keep_their_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for end, runs in {"": 3, "-2": ["x"], "-3": [None]}.items():
        save_png(Image.new("L", (2, 2)), f"figures/kl-penalty{end}.png", {"runs": runs})
    assert figure("kl-penalty") == Path("figures/kl-penalty-4.png")


def test_the_list_tells_runs_and_keys():
    listed = {entry.name: entry for entry in list_figures()}
    assert list(listed) == list(LESSONS)
    assert listed["kl-penalty"].needs == "nothing; keys: target=0.1"
    assert listed["sparse-units"].needs == "RUN of ae-sparse; keys: units=6 images=12 data=none"
    assert listed["pca"].needs == "RUN of ae-linear"
    assert "temperatures=1,0.5,0.1" in listed["gumbel"].needs


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("gumble", {}, 'did you mean "gumbel"'),
        ("kl-penalty", {"targte": 0.2}, 'did you mean "target"'),
        ("kl-penalty", {"target": 1}, "target=1: give a number above 0 and below 1"),
        ("jensen-gap", {"scale": 0.5}, "scale=0.5: give a number above 0.71"),
        ("jensen-gap", {"x": float("inf")}, "finite"),
        ("gumbel", {"probabilities": (0.5, 0.6)}, "sum to 1"),
        ("gumbel", {"temperatures": 0}, "temperatures=0: give one or more values .* above 0"),
        ("pca", {}, "is drawn from RUN of ae-linear; runs given: 0"),
    ],
)
def test_mistakes_are_named(name, keys, message):
    with pytest.raises(UserError, match=message):
        figure(name, **keys)


def is_list(annotation):
    """Whether a type is that of any number of values, or of them or none."""
    inner = get_args(annotation)
    return ... in inner or any(map(is_list, inner))


LISTS = [
    (name, key)
    for name, lesson in LESSONS.items()
    for key, field in settings_of(lesson).model_fields.items()
    if is_list(field.annotation)
]


@pytest.mark.parametrize(("name", "key"), LISTS)
def test_an_empty_list_is_refused(name, key, tmp_path):
    with pytest.raises(UserError, match=f"^{key}=.*(: give (one|2) or more values|: give two or more|: a slope needs)"):
        figure(name, out=tmp_path / "picture.png", **{key: ()})


def test_runs_that_do_not_fit_are_refused(folders):
    with pytest.raises(UserError, match="drawn from nothing; runs given: 1"):
        figure("gumbel", folders["vae"])
    with pytest.raises(UserError, match="drawn from RUN of ae-linear; runs given: 2"):
        figure("pca", folders["ae-linear"], folders["ae-linear"])
    with pytest.raises(UserError, match=r"run .* not found"):
        figure("pca", folders["vae"] / "nowhere")
    with pytest.raises(UserError, match="vae does not denoise"):
        figure("calls", folders["vae"])
    with pytest.raises(UserError, match=r"drawn from a run that draws classes; .* was trained without"):
        figure("guidance", folders["diffusion"])
    with pytest.raises(UserError, match="no terms"):
        figure("levels", folders["vae"])
