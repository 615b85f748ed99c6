from matplotlib.figure import Figure

from trilemma.comparison.content import Curve
from trilemma.comparison.curves import curve_title, shown_curves
from trilemma.training.pictures import draw_panel, panels_of


def curve(name, values, seconds=(1.0, 2.0)):
    return Curve(name, list(seconds), list(values))


def titles(*curves):
    return [shown.title for shown in shown_curves(curves)]


def test_equal_lines_are_drawn_once_under_both_names():
    loss, noise = (curve(f"denoiser/{part}", (0.9, 0.5)) for part in ("loss", "eps_mse"))
    assert titles(loss, noise) == ["loss (squared error of the noise)"]
    assert titles(loss, curve("denoiser/eps_mse", (0.9, 0.500001))) == ["loss", "squared error of the noise"]
    assert titles(loss, curve("denoiser/eps_mse", (0.9, 0.5), (1.0, 3.0))) == ["loss", "squared error of the noise"]
    assert titles(loss, curve("denoiser/eps_mse", (0.9, 0.5 * (1 + 1e-8)))) == ["loss (squared error of the noise)"]


def test_two_players_are_told_apart_and_one_is_not_named():
    assert titles(curve("critic/loss", (1, 2)), curve("generator/loss", (2, 1))) == ["critic: loss", "generator: loss"]
    assert titles(curve("vae/loss", (1, 2))) == ["loss"]


def test_of_an_error_and_its_root_the_square_is_drawn_and_a_single_value_is_not_a_curve():
    """As in curves.png: training logs the square alone, so that both can be compared."""
    assert titles(curve("valid_mse", (4, 1)), curve("valid_rmse", (2, 1))) == ["validation squared error per pixel"]
    assert titles(curve("valid_rmse", (2, 1))) == ["validation error (RMSE)"]
    assert titles(curve("valid_rmse", (2,), (1.0,)), curve("vae/loss", (2,), (1.0,)), curve("vae/kl", ())) == ["loss"]


def test_report_and_curves_png_use_the_same_words_for_a_line():
    log = [{"step": k, "images": k, "vae/mse": 0.5 / k, "valid_mse": 0.6 / k, "valid_rmse": 0.7 / k} for k in (1, 2)]
    drawn = {line for lines in panels_of(log).values() for line in lines}
    curves = [curve(name, [row[name] for row in log]) for name in ("vae/mse", "valid_mse", "valid_rmse")]
    assert {shown.name for shown in shown_curves(curves)} == drawn == {"vae/mse", "valid_mse"}
    axis = Figure().subplots()
    draw_panel(axis, "mse", {"vae/mse": [(1, 0.5), (2, 0.25)]}, None)
    assert axis.get_title(loc="left").lower() == curve_title("vae/mse")


def test_a_healthy_range_is_told_where_it_is_known():
    shown = shown_curves(
        [curve("critic/d_real", (0.5, 0.6)), curve("valid_active_units", (3, 4)), curve("a/b", (1, 2))]
    )
    assert "below 0.98" in shown[0].healthy and "at least 5" in shown[1].healthy and shown[2].healthy is None
    names = ("critic/auroc", "critic/gradient_norm", "critic/logit_real", "valid_critic_overfit", "valid_bits_per_dim")
    assert all(shown.healthy for shown in shown_curves([curve(name, (1, k)) for k, name in enumerate(names, 2)]))
