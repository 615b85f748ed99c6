"""What curves.png shows, and that it can be read."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from trilemma.titles import TITLES
from trilemma.training.pictures import LEVEL, LOG_RANGE, draw_curves, draw_panel, panels_of


def log_of(**series: list[float]) -> list[dict[str, Any]]:
    """A log with a row every 1,000 images; names with two underscores for a slash."""
    names = {name: name.replace("__", "/") for name in series}
    rows = range(len(next(iter(series.values()))))
    return [{"step": k, "images": 1000 * k, **{names[n]: values[k] for n, values in series.items()}} for k in rows]


FALLING = [0.5, 0.4, 0.3]


def test_a_line_is_drawn_once() -> None:
    """The loss that is its only part, and the root of what is drawn."""
    log = log_of(ae__loss=FALLING, ae__mse=FALLING, valid_mse=[0.6, 0.5, 0.4], valid_rmse=[0.77, 0.71, 0.63])
    assert {panel: list(lines) for panel, lines in panels_of(log).items()} == {"mse": ["ae/mse", "valid_mse"]}
    log = log_of(vae__loss=[0.6, 0.5, 0.4], vae__mse=FALLING, valid_rmse=[0.77, 0.71, 0.63])
    assert set(panels_of(log)) == {"loss", "mse", "rmse"}  # no square of it


@pytest.mark.parametrize(("change", "drawn"), [(0.9 * LEVEL, False), (1.1 * LEVEL, True)])
def test_a_panel_in_which_nothing_moves_is_left_out(change: float, drawn: bool) -> None:
    log = log_of(vae__mse=FALLING, valid_active_units=[8 * (1 - change), 8, 8])
    assert ("active_units" in panels_of(log)) == drawn
    assert set(panels_of(log_of(vae__mse=[1.0, 1.0]))) == {"mse"}  # better than nothing


def test_lines_of_a_kind_share_a_panel() -> None:
    log = log_of(
        critic__d_real=FALLING, critic__d_fake=[0.1, 0.2, 0.3], critic__loss=[1, 2, 3], generator__loss=[3, 2, 1]
    )
    assert {panel: len(lines) for panel, lines in panels_of(log).items()} == {"critic_output": 2, "loss": 2}
    logits = {"critic__logit_real": FALLING, "critic__logit_fake": [-1, -2, -3]}
    norms = {"critic__gradient_norm": [1, 2, 3], "generator__gradient_norm": [3, 2, 1]}
    log = log_of(**logits, **norms, critic__auroc=[0.5, 0.7, 0.8], valid_critic_overfit=[0.1, 0.2, 0.3])
    panels = panels_of(log)
    counts = {"critic_logit": 2, "gradient_norm": 2, "auroc": 1, "critic_overfit": 1}
    assert {panel: len(lines) for panel, lines in panels.items()} == counts and panels.keys() <= TITLES.keys()
    axis = Figure().subplots()
    draw_panel(axis, "gradient_norm", panels["gradient_norm"], None)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["critic", "generator"]
    log = log_of(vae__kl1_nats=[3, 2, 1], vae__kl2_nats=[9, 5, 1])
    assert {panel: len(lines) for panel, lines in panels_of(log).items()} == {"kl_by_level_nats": 2}


def test_the_loss_by_noise_level_has_a_panel_and_the_held_out_loss_is_beside_that_of_training() -> None:
    names = ("clean", "middle", "noisy")
    thirds = {f"denoiser__loss_{third}": [k * v for v in FALLING] for k, third in enumerate(names, 2)}
    held_out = {"valid_denoising_mse": [0.6, 0.5, 0.4], "valid_denoising_rmse": [0.77, 0.71, 0.63]}
    held_out |= {"valid_linear_denoising_mse": [0.9, 0.8, 0.9]}
    panels = panels_of(log_of(denoiser__loss=FALLING, **thirds, **held_out))
    assert {panel: list(lines) for panel, lines in panels.items()} == {
        "loss_by_noise": [f"denoiser/loss_{third}" for third in names],
        "loss": ["valid_denoising_mse", "valid_linear_denoising_mse", "denoiser/loss"],
    }
    shown = {}
    for panel, lines in panels.items():
        axis = Figure().subplots()
        draw_panel(axis, panel, lines, None)
        shown[axis.get_title(loc="left")] = [text.get_text() for text in axis.get_legend().get_texts()]
    assert shown == {
        "Loss by noise level": ["little noise", "medium noise", "much noise"],
        "Loss": ["held out", "linear estimate, held out", "training"],
    }


def test_the_bound_on_the_likelihood_has_a_panel_of_its_own() -> None:
    panels = panels_of(log_of(denoiser__loss=FALLING, valid_bits_per_dim=[4.0, 3.0, 2.5]))
    assert panels["bits_per_dim"] == {"valid_bits_per_dim": [(0, 4.0), (1000, 3.0), (2000, 2.5)]}
    axis = Figure().subplots()
    draw_panel(axis, "bits_per_dim", panels["bits_per_dim"], None)
    assert axis.get_title(loc="left") == "Bound on bits per dimension"


@pytest.mark.parametrize("images", [900, 123_456, 7_000_000])
@pytest.mark.parametrize("ratio", [0.9 * LOG_RANGE, 1.1 * LOG_RANGE])
def test_tick_labels_do_not_touch(images: int, ratio: float) -> None:
    figure = Figure(figsize=(12.6, 6))
    axis = figure.subplots(2, 3, squeeze=False).flatten()[0]
    draw_panel(axis, "mse", {"ae/mse": [(0, 0.1 * ratio), (images, 0.1)], "valid_mse": [(images, 0.2)]}, None)
    figure.canvas.draw()
    assert axis.get_yscale() == ("log" if ratio > LOG_RANGE else "linear")
    labels = [label.get_window_extent() for label in axis.get_xticklabels() if label.get_text()]
    assert len(labels) >= 3 and all(a.x1 + 4 < b.x0 for a, b in itertools.pairwise(labels))


def test_the_legend_says_what_tells_the_lines_apart_and_the_title_the_unit() -> None:
    axis = Figure().subplots()
    draw_panel(axis, "mse", {"ae/mse": [(0, 0.5), (1, 0.3)]}, None)
    assert axis.get_legend() is None and axis.get_title(loc="left") == "Squared error per pixel"
    axis = Figure().subplots()
    draw_panel(axis, "mse", {"ae/mse": [(0, 0.5), (1, 0.3)], "valid_mse": [(1, 0.4)]}, 0.07)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["training", "held out", "mean image"]


def test_the_picture_has_a_place_for_each_panel(tmp_path: Path) -> None:
    for n, size in ((1, (420, 300)), (2, (840, 300)), (4, (1260, 600))):
        log = log_of(**{f"ae__part{k}": [1 + k, 2 + k] for k in range(n)})
        draw_curves(log, tmp_path / f"{n}.png", "", 0.3)
        assert Image.open(tmp_path / f"{n}.png").size == size
    draw_curves([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
