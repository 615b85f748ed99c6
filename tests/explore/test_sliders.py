"""Axes that codes are moved along: which there are, the images along them, where they begin, and styles."""

import numpy as np
import pytest
import torch
from explore.stand_ins import Pixels, Shaded, WithClasses
from torch import nn

from trilemma import rng
from trilemma.config import make
from trilemma.errors import UserError
from trilemma.explore.code_axes import kinds_of
from trilemma.explore.naming import find_code
from trilemma.explore.sliders import NOISE_CALLS, sliders_of
from trilemma.explore.traverse import traverse
from trilemma.explore.turns import MOST_DEG, STD_DEG, TURNS, Turns, turns_from
from trilemma.gans.style import StyleGAN, StyleGANConfig, StyleKeys
from trilemma.types import Condition


class Noisy(nn.Module):
    """Draws an image from noise of 64 numbers as half of it, in `steps` calls; its code is twice an image."""

    code_length = 64
    asked = None  # steps of the last drawing, and its condition

    def sample(self, n, **_):
        return torch.zeros(n, 1, 8, 8)

    def denoise(self, x_t, t):
        return x_t

    def invert(self, image, condition=None, *, steps=None, seed=0):
        return 2 * image.flatten(1)

    def generate(self, z, condition=None, *, steps=None):
        self.asked = steps, condition
        return (z / 2).unflatten(1, (1, 8, 8))


class Both(Noisy, Pixels):
    """As a diffusion model of codes: it encodes and decodes, too."""


class Labelled(Noisy):
    """It draws what is asked for."""

    n_classes = 10


@pytest.fixture
def pixels(run):
    """All held-out images (fewer than are measured at most), float64 (N, 64)."""
    return run.data.held_out[1].images.flatten(1).double() / 255


def flat(image):
    return image.flatten().double()


# --- kinds ---


def test_the_kinds_of_axes_are_what_a_model_can_do(run):
    gan = StyleGAN(make(StyleGANConfig, {"shape": (1, 8, 8), "width": 2}))
    assert kinds_of(Pixels()) == ["units", "directions"] and kinds_of(gan) == ["directions", "units"]
    assert kinds_of(Noisy()) == ["noise"] and kinds_of(Both()) == ["units", "directions", "noise"]
    assert kinds_of(nn.Linear(1, 1)) == []
    assert sliders_of(run).kinds == ["units", "directions"] and sliders_of(run).kind == "units"
    with pytest.raises(UserError, match="axes=noise: codes of vae are moved along units or directions; choose one"):
        sliders_of(run, "noise")


def test_directions_of_an_autoencoder_are_the_principal_components_of_its_codes(run, pixels):
    """The code is the image: the eigenvectors of the covariance of the images, and their eigenvalues."""
    sliders, mean = sliders_of(run, "directions"), pixels.mean(0)
    values, vectors = np.linalg.eigh(np.cov(pixels.T.numpy(), bias=True))
    for k, axis in enumerate(sliders.axes):
        assert axis.unit == k and axis.std**2 == pytest.approx(values[-1 - k], rel=1e-3)
        assert axis.mean == pytest.approx(0, abs=1e-5) == axis.start and axis.low < 0 < axis.high
    v = torch.from_numpy(vectors[:, -1].copy())
    v = v * v[v.abs().argmax()].sign()
    for value in (0.3, -0.2):
        expected = (mean + value * v).clamp(0, 1)
        torch.testing.assert_close(flat(sliders.image({0: value})), expected, rtol=0, atol=1e-5)


def test_a_traversal_along_directions_is_that_of_the_sliders(run, tmp_path):
    sliders = sliders_of(run, "directions", start=2)
    result = traverse(run, axes="directions", image=2, units="3,0", steps=5, span=2, out=tmp_path / "rows.png")
    assert result.axes == "directions" and result.shares is not None and result.shares[1] > result.shares[0]
    for row, unit in enumerate((3, 0)):
        for k, value in enumerate(result.values[row].tolist()):
            expected = result.images[row, k]
            torch.testing.assert_close(sliders.image({unit: value}), expected, rtol=0, atol=1e-5)
    own = run.data.held_out[1].images[2].double() / 255
    torch.testing.assert_close(sliders.image({}).double(), own, rtol=0, atol=1e-5)


def test_units_of_a_gan_are_single_numbers_of_the_codes_that_it_draws(run):
    gan = run.model = styled()
    drawn = gan.draw_codes(4096, seed=0)
    sliders = sliders_of(run, "units")
    axis = sliders.axes[0]
    assert axis.unit == int(drawn.std(0).argmax()) and len(sliders.axes) == 5
    column = drawn[:, axis.unit]
    seen = (axis.low, axis.mean, axis.high)
    assert seen == pytest.approx((float(column.min()), float(column.mean()), float(column.max())), abs=1e-6)
    code = drawn.mean(0)
    code[axis.unit] = axis.high
    torch.testing.assert_close(sliders.image({axis.unit: 1e9}), gan.from_w(code[None])[0].detach())


# --- noise ---


def test_turned_noise_keeps_its_length_and_a_quarter_turn_leads_to_the_other():
    start = rng.normal(torch.tensor([0]), (40,), 5, "x_T")[0].double()
    turns = turns_from(start)
    basis = torch.cat([start[None] / start.norm(), turns.towards])
    torch.testing.assert_close(basis @ basis.T, torch.eye(1 + TURNS).double(), rtol=0, atol=1e-12)
    other = rng.normal(torch.tensor([1]), (40,), 0, "x_T")[0].double()
    apart = other - (other @ basis[0]) * basis[0]
    torch.testing.assert_close(turns.towards[0], apart / apart.norm())  # what the noise of image 1 does not share
    angles = torch.tensor([[0.0, 0], [90, 0], [-30, 0], [30, 40], [0, 180]]).double()
    angles = torch.cat([angles, torch.zeros(5, TURNS - 2).double()], dim=1)
    codes = turns.codes(angles)
    torch.testing.assert_close(codes.norm(dim=1), start.norm().expand(5))
    torch.testing.assert_close(codes[0], start)
    torch.testing.assert_close(codes[1], start.norm() * turns.towards[0])
    cosines = codes @ start / start.square().sum()
    expected = torch.tensor([0.0, 90, 30, 50, 180]).double().deg2rad().cos()  # 30 and 40 at right angles: 50
    torch.testing.assert_close(cosines, expected, rtol=0, atol=1e-12)


def test_noise_is_as_it_is_drawn_wherever_the_handles_are():
    """Of N(0, I) the turned noise is N(0, I): mean and covariance over 4,000 starts and directions of their own."""
    numbers = torch.randn(4000, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis, parts = torch.linalg.qr(numbers.mT)
    angles = torch.tensor([[25.0, -60, 70]]).double()
    ways = (basis * parts.diagonal(dim1=1, dim2=2).sign()[:, None]).mT[:, 1:]
    turned = torch.cat([Turns(e, v).codes(angles) for e, v in zip(numbers[:, 0], ways, strict=True)])
    sd = 4000**-0.5
    assert (turned.mean(0).abs() < 4.5 * sd).all()
    covariance = turned.T @ turned / 4000
    allowed = 4.5 * sd * (torch.ones(6, 6) + torch.eye(6) * (2**0.5 - 1))
    assert ((covariance - torch.eye(6)).abs() < allowed).all()


def test_sliders_of_a_diffusion_model_turn_its_noise_in_a_few_calls(run):
    run.model = Noisy()
    sliders = sliders_of(run)
    assert (sliders.kind, len(sliders.axes), sliders.calls) == ("noise", TURNS, NOISE_CALLS)
    for axis in sliders.axes:
        assert (axis.low, axis.high, axis.start) == (-MOST_DEG, MOST_DEG, 0)
        assert axis.mean == pytest.approx(0, abs=1e-4) and axis.std == pytest.approx(STD_DEG, rel=0.01)
    noise = rng.normal(torch.tensor([0]), (64,), 0, "x_T")[0].double()
    torch.testing.assert_close(flat(sliders.image({})), noise / 2, rtol=0, atol=1e-6)
    assert run.model.asked[0] == NOISE_CALLS
    moved = flat(sliders.image({1: 90.0, 4: 0.0}))
    assert moved.norm() == pytest.approx(float(noise.norm()) / 2, rel=1e-5)
    assert float(moved @ noise) == pytest.approx(0, abs=1e-3)
    torch.testing.assert_close(flat(sliders_of(run, start="seed:7").image({})) * 2, draws(7), rtol=0, atol=1e-5)
    own = run.data.held_out[1].images[3].float() / 255
    torch.testing.assert_close(sliders_of(run, start=3).image({}), own)  # by inversion
    run.model = Both()
    assert sliders_of(run).kind == "units"
    torch.testing.assert_close(flat(sliders_of(run, "noise").image({})) * 2, draws(0), rtol=0, atol=1e-5)


def draws(seed):
    return rng.normal(torch.tensor([0]), (64,), seed, "x_T")[0].double()


def test_a_traversal_of_noise(run, tmp_path):
    run.model = Noisy()
    result = traverse(run, steps=7, units="2", out=tmp_path / "rows.png")
    assert result.axes == "noise" and result.shares is None and run.model.asked[0] is None  # as many as usual
    torch.testing.assert_close(result.values[0], torch.linspace(-90, 90, 7), rtol=0.01, atol=1e-3)
    lengths = result.images[0].flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, lengths[:1].expand(7))
    assert traverse(run, plane="0,1", steps=3, out=tmp_path / "plane.png").images.shape == (3, 3, 1, 8, 8)
    with pytest.raises(UserError, match="unknown units 6: give different numbers from 0 to 5"):
        traverse(run, units="6", out=tmp_path / "o.png")
    with pytest.raises(UserError, match="data has no effect without image"):
        traverse(run, data="mnist", out=tmp_path / "o.png")


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_few_calls_of_a_diffusion_model_are_few(prediction):
    from trilemma.diffusion.denoiser import Diffusion, DiffusionConfig

    settings = {"shape": (1, 8, 8), "widths": (4, 4), "embedding": 4, "prediction": prediction}
    model = Diffusion(make(DiffusionConfig, settings)).eval()
    calls = []
    model.network.register_forward_hook(lambda *_: calls.append(1))
    z = torch.zeros(2, 64)
    model.generate(z, steps=NOISE_CALLS)
    assert len(calls) == NOISE_CALLS
    model.generate(z)
    assert len(calls) > 4 * NOISE_CALLS


# --- classes and starts ---


def test_the_class_that_is_shown(run):
    labels = run.data.held_out[1].labels
    run.model = Shaded()
    assert sliders_of(run).classes == run.classes and len(run.classes) == 10
    for keys, label in (({}, 0), ({"label": "7"}, 7), ({"start": 5}, int(labels[5])), ({"start": 5, "label": 2}, 2)):
        assert torch.allclose(sliders_of(run, **keys).image({}), torch.tensor(label / 9))
    run.model = Labelled()
    for label, number in ((None, 0), ("4", 4)):
        sliders_of(run, label=label).image({})
        assert run.model.asked[1].label.tolist() == [number]
    assert sliders_of(run).classes == run.classes
    run.model = Pixels()
    assert sliders_of(run).classes == ()
    with pytest.raises(UserError, match="trained without labels"):
        sliders_of(run, label=3)


def test_a_start_gives_the_handles_their_first_places(run, pixels):
    run.model = WithClasses()
    label = int(run.data.held_out[1].labels[4])
    sliders = sliders_of(run, start=4)
    codes = pixels + run.data.held_out[1].labels[:, None]
    for axis in sliders.axes:
        assert axis.start == pytest.approx(float(pixels[4, axis.unit]) + label, abs=1e-5)
        assert axis.mean == pytest.approx(float(codes[:, axis.unit].mean()), abs=1e-4)
    torch.testing.assert_close(flat(sliders.image({})), pixels[4], rtol=0, atol=1e-5)
    torch.testing.assert_close(
        flat(sliders.image({a.unit: a.start for a in sliders.axes})), pixels[4], rtol=0, atol=1e-5
    )
    with pytest.raises(UserError, match="image 99999 not found"):
        sliders_of(run, start="99999")


# --- styles ---


def styled(**settings):
    """A small StyleGAN2 whose noise inputs have an effect."""
    with rng.isolated(0):
        gan = StyleGAN(make(StyleGANConfig, {"shape": (1, 8, 8), "latent": 6, "styles": 5, "width": 2, **settings}))
    for name, parameter in gan.generator.named_parameters():
        if name.endswith("noise_strength"):
            nn.init.constant_(parameter, 0.3)
    gan.start_average([], 0)
    return gan.eval()


def test_styles_are_truncated_and_mixed_as_the_sampler_does(run):
    gan = run.model = styled()
    sliders = sliders_of(run, start="seed:0")
    assert sliders.layers == gan.n_layers and sliders.reads_captions is False and sliders.calls is None
    for keys in ({"truncation": 0.5}, {"mix": 9, "mix_from": 2}, {"truncation": 0.7, "mix": 3}, {"truncation": 1}):
        expected = gan.sample(1, seed=0, keys=make(StyleKeys, keys))[0]
        torch.testing.assert_close(sliders.image({}, keys), expected, rtol=0, atol=1e-5)
    average = gan.from_w(gan.mean_w()[None])[0].detach()
    torch.testing.assert_close(sliders.image({0: 1e9}, {"truncation": 0}), average, rtol=0, atol=1e-5)
    beyond = {"mix": 1, "mix_from": gan.n_layers}
    for keys, message in ((beyond, f"layers of this model are 0 to {gan.n_layers - 1}"), ({"mix": 1.5}, "mix=1.5")):
        with pytest.raises(UserError, match=message):
            sliders.image({}, keys)
    run.model = Pixels()
    assert sliders_of(run).layers is None
    with pytest.raises(UserError, match="truncation= is for a model with styles; vae has none"):
        sliders_of(run).image({}, {"truncation": 0.5})


def test_styles_of_a_class(run):
    gan = run.model = styled(classes=True, n_classes=10)
    for label in ("3", "8"):
        w = gan.draw_codes(1, seed=4, condition=Condition(torch.tensor([int(label)])))
        begun = sliders_of(run, start="seed:4", label=label).image({})
        torch.testing.assert_close(begun, gan.from_w(w)[0].detach(), rtol=0, atol=1e-4)
        zero = sliders_of(run, label=label).image({}, {"truncation": 0})
        average = gan.from_w(gan.w_mean[int(label)][None])[0].detach()
        torch.testing.assert_close(zero, average, rtol=0, atol=1e-5)
    assert sliders_of(run).classes == run.classes


def test_a_seed_is_drawn_for_its_class_also_where_the_code_holds_it(run):
    gan = run.model = styled(classes=True, n_classes=10)
    for label in (2, 9):
        code, condition, _ = find_code(run, "seed:4", label=label)
        expected = gan.draw_codes(1, seed=4, condition=Condition(torch.tensor([label])))
        torch.testing.assert_close(code, expected)
        assert condition.is_empty  # of styles
