"""A diffusion model as a folder of diffusers: its own classes load it, and draw the same images from the same noise.
An autoencoder: they encode and decode as it does."""

import json
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

import trilemma
from trilemma import rng
from trilemma.autoencoders.kl import BOUNDS
from trilemma.cli import main as cli
from trilemma.errors import UserError
from trilemma.nets.unet import UNet
from trilemma.nets.unet_diffusers import unet2d_settings, unet2d_weights
from trilemma.pretrained.safety import check_folder
from trilemma.registry import build, create, get_recipe
from trilemma.sharing.diffusers_folder import (
    decoded,
    images_of,
    loaded_autoencoder,
    loaded_denoiser,
    parts_of,
    write_folder,
)
from trilemma.training.request import check_settings

folder_of = import_module("trilemma.sharing.diffusers_folder")
SHAPE = (1, 8, 8)
TINY = {"portable": True, "prediction": "v", "width": 8, "multipliers": (1, 2)}
IMAGES = {"shape": (3, 16, 8), "portable": True, "width": 8, "feature_loss": 0.0}  # of an autoencoder


def random_weights(model):
    """No layer begins at zero, so that every one counts."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def tiny(shape=SHAPE, **settings):
    return random_weights(create("diffusion", shape=shape, **{**TINY, **settings}))


def autoencoder(**settings):
    """One whose codes have another mean and another spread in each channel."""
    model = random_weights(create("ae-kl", **{**IMAGES, **settings}))
    model.code_mean.copy_(torch.tensor([0.3, -0.2, 0.0, 1.0]))
    model.code_std.copy_(torch.tensor([0.5, 2.0, 1.0, 0.7]))
    return model


def latent(part, **settings):
    """A model of its codes."""
    recipe = get_recipe("diffusion-latent")
    config = recipe.config.with_(shape=part.config.shape, check=False, **{**TINY, **settings})
    return random_weights(build(recipe, config, parts={"autoencoder": part}))


def both(model, tmp_path):
    """Network and scheduler that diffusers loads."""
    diffusers = pytest.importorskip("diffusers")
    parts = parts_of(model, "m")
    write_folder(tmp_path, model, parts, "m")
    return parts, *loaded_denoiser(diffusers, tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"multipliers": (1, 2, 3), "depth": 2, "attention_px": 4, "groups": 2},
        {"multipliers": (1, 1), "depth": 1, "attention_px": 0, "groups": 4},
        {"multipliers": (1, 2), "depth": 1, "attention_px": 8, "groups": 1},
    ],
)
def test_the_network_is_a_unet2d(settings):
    diffusers = pytest.importorskip("diffusers")
    network = random_weights(UNet((3, 8, 16), 8, **settings))
    levels = torch.linspace(-9, 9, 7, dtype=torch.float64)
    theirs = diffusers.UNet2DModel(**unet2d_settings(network, 3, 7, 0)).eval()
    theirs.load_state_dict(unet2d_weights(network, levels), strict=True)
    x, t = torch.randn(7, 3, 8, 16), torch.arange(7)
    with torch.no_grad():
        ours = network(x, levels.float())
        torch.testing.assert_close(theirs(x, t).sample, ours, atol=1e-4, rtol=1e-4)
        assert (theirs(x, t).sample - theirs(x, t.flip(0)).sample).abs().max() > 1e-2  # the level counts
    assert ours.abs().max() > 0.1


@pytest.mark.parametrize("steps", [4, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (1, 20))])
@pytest.mark.parametrize(
    "settings",
    [{}, {"prediction": "eps", "schedule": "linear"}, {"prediction": "x0"}, {"clip_x0": False}],
    ids=["v", "eps-linear", "x0", "unclipped"],
)
def test_equal_noise_gives_equal_images(settings, steps, tmp_path):
    model = tiny(**settings)
    parts, unet, scheduler = both(model, tmp_path)
    ours = model.sample(3, seed=7, first=2, keys=parts.keys(steps))
    with torch.no_grad():
        theirs = images_of(unet, scheduler, parts.start(torch.arange(2, 5), 7), None, steps)
        others = images_of(unet, scheduler, parts.start(torch.arange(3), 7), None, steps)
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=0)
    assert (others - ours).abs().max() > 1e-2


def test_classes_are_asked_for_by_number_and_the_last_is_none(tmp_path):
    model = tiny(classes=True, n_classes=3)
    parts, unet, scheduler = both(model, tmp_path)
    assert not (tmp_path / "model_index.json").exists()
    label, ids = torch.tensor([2, 0, 1]), torch.arange(3)
    ours = model.sample(3, seed=1, condition=trilemma.types.Condition(label), keys=parts.keys(5))
    with torch.no_grad():
        theirs = images_of(unet, scheduler, parts.start(ids, 1), label, 5)
        none = unet(torch.zeros(1, *SHAPE), 500, class_labels=torch.tensor([3])).sample
        level = torch.log(model.schedule.sigma(parts_time(501)) / model.schedule.alpha(parts_time(501))).float()
        torch.testing.assert_close(
            none,
            model.network(torch.zeros(1, *SHAPE), level[None], model.embed(trilemma.types.UNCONDITIONAL, 1)),
            atol=1e-4,
            rtol=0,
        )
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "widths"),
    [({"factor": 2}, [4, 8]), ({"factor": 4, "blocks": 2, "shape": (1, 8, 12), "width": 12}, [6, 12, 24])],
)
def test_an_autoencoder_encodes_and_decodes_as_ours(settings, widths, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    model = autoencoder(**settings)
    record = write_folder(tmp_path, model, parts_of(model, "m"), "m")
    assert 0 < record["parity"] <= 1e-4 and {path.name for path in tmp_path.iterdir()} == {"vae"}
    vae = loaded_autoencoder(diffusers, tmp_path)
    assert (vae.config.block_out_channels, vae.config.scaling_factor) == (widths, 1.0)
    x = rng.uniform(torch.arange(3), model.config.shape, 0, "images")
    with torch.no_grad():
        posterior, code = vae.encode(2 * x - 1).latent_dist, model.to_map(x)
        torch.testing.assert_close(posterior.mean, code, atol=1e-4, rtol=1e-4)
        mu, logvar = model.posterior_map(x)
        std = model.code_std[:, None, None]
        torch.testing.assert_close(posterior.logvar, logvar - 2 * std.log(), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(decoded(vae, code), model.from_map(code), atol=1e-4, rtol=0)
    assert (mu / std - code).abs().max() > 0.1 and logvar.abs().max() < max(BOUNDS)  # means count, no bound does
    assert model.from_map(code).std() > 0.01 and (model.reconstruct(x)[0] - model.reconstruct(x)[1]).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"classes": True, "n_classes": 3}], ids=["plain", "classes"])
def test_a_model_of_codes_draws_the_same_images_with_its_autoencoder(settings, tmp_path):
    model = latent(autoencoder(), **settings)
    parts, unet, scheduler = both(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"unet", "scheduler", "vae"}
    vae = loaded_autoencoder(pytest.importorskip("diffusers"), tmp_path)
    label = torch.tensor([2, 0, 1]) if settings else None
    condition = trilemma.types.Condition(label)
    ours = model.sample(3, seed=7, first=2, condition=condition, keys=parts.keys(4))
    with torch.no_grad():
        theirs = images_of(unet, scheduler, parts.start(torch.arange(2, 5), 7), label, 4, vae)
        others = images_of(unet, scheduler, parts.start(torch.arange(3), 7), label, 4, vae)
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=0)
    assert (others - ours).abs().max() > 1e-2


@pytest.mark.slow
def test_a_model_of_codes_is_trained_and_exported_with_its_autoencoder(tmp_path, capsys):
    diffusers = pytest.importorskip("diffusers")
    keys = {"steps": 2, "batch": 16, "device": "cpu", "quiet": True, "check": False, **TINY}
    part = {"autoencoder.steps": 2, "autoencoder.portable": True, "autoencoder.width": 8, "autoencoder.batch": 16}
    part["autoencoder.feature_loss"] = 0.0
    run = trilemma.train("diffusion-latent", "digits", out=tmp_path / "run", **keys, **part)
    for path, names in ((run.path, {"unet", "scheduler", "vae"}), (run.path / "parts" / "autoencoder", {"vae"})):
        assert cli.main(["export", str(path), "to=diffusers"]) == 0
        assert ("codes and their images" in capsys.readouterr().out) == (names == {"vae"})
        folder = path / "export" / "diffusers"
        assert {path.name for path in folder.iterdir()} == {*names, "export.json"}
        record = json.loads((folder / "export.json").read_text("utf-8"))
        assert record["parity"] <= record["tolerance"] == 1e-4 and record["scale"] >= 1
        vae = loaded_autoencoder(diffusers, folder)
        x = rng.uniform(torch.arange(2), SHAPE, 0, "images")
        with torch.no_grad():
            codes = vae.encode(2 * x - 1).latent_dist.mean.flatten(1)
        torch.testing.assert_close(codes, run.encode(x), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_the_loop_of_the_page_draws_the_images_of_sample_with_guidance(tmp_path, monkeypatch):
    """Guidance of v is that of x0_hat = alpha x_t - sigma v, before it is cut."""
    model = tiny(classes=True, n_classes=10)
    parts, *_ = both(model, tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "sharing.md").read_text("utf-8")
    (code,) = (block for block in re.findall(r"```py\n(.*?)```", page, re.DOTALL) if "class_labels" in block)
    place = "runs/portable-classes/export/diffusers"
    assert place in code
    monkeypatch.setattr(torch, "randn", lambda *shape: parts.start(torch.arange(shape[0]), 6))
    names = {}
    exec(code.replace(place, str(tmp_path)), names)
    label = torch.tensor([7, 7, 3, 3])
    keys = {guided: parts.keys(10).with_(guidance=guided) for guided in (1.5, 1.0)}
    ours, plain = (model.sample(4, seed=6, condition=trilemma.types.Condition(label), keys=k) for k in keys.values())
    torch.testing.assert_close(names["images"], ours, atol=1e-4, rtol=0)
    assert (ours - plain).abs().max() > 1e-2


@pytest.mark.slow
def test_the_loop_of_the_page_draws_the_images_of_a_model_of_codes(tmp_path, monkeypatch):
    model = latent(autoencoder())
    parts, *_ = both(model, tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "sharing.md").read_text("utf-8")
    (code,) = (block for block in re.findall(r"```py\n(.*?)```", page, re.DOTALL) if "AutoencoderKL" in block)
    place = "runs/portable-latent/export/diffusers"
    assert place in code
    monkeypatch.setattr(torch, "randn", lambda *shape: parts.start(torch.arange(shape[0]), 6))
    names = {}
    exec(code.replace(place, str(tmp_path)), names)
    torch.testing.assert_close(names["images"], model.sample(4, seed=6, keys=parts.keys(10)), atol=1e-4, rtol=0)


def parts_time(step):
    """Of the cosine schedule, whose log-SNR at the first time is that of sigma / alpha = 80."""
    from trilemma.diffusion.schedule import get_schedule

    first = float(get_schedule("cosine").t_of(torch.tensor(2.0).mul(-torch.tensor(80.0, dtype=torch.float64).log())))
    return torch.tensor(first * step / 1000, dtype=torch.float64)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    keys = {"steps": 2, "batch": 16, "device": "cpu", "quiet": True, **TINY}
    return trilemma.train("diffusion", "digits", out=out, **keys).path


def test_the_command_writes_a_pipeline_that_loads_from_the_folder(trained, tmp_path, capsys):
    diffusers = pytest.importorskip("diffusers")
    assert cli.main(["export", str(trained), "to=diffusers", f"out={tmp_path / 'o'}"]) == 0
    assert "images" in capsys.readouterr().out
    check_folder(tmp_path / "o")
    pipeline = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "o", local_files_only=True)
    assert type(pipeline).__name__ == "DDIMPipeline" and type(pipeline.unet).__name__ == "UNet2DModel"
    run = trilemma.load(trained)
    noise = parts_of(run.model, "m").start(torch.arange(2), 5)
    drawn = images_of(pipeline.unet, pipeline.scheduler, noise, None, 20)
    ours = run.sample(2, seed=5, sampler="ddim", grid="uniform", steps=20)
    torch.testing.assert_close(drawn.detach(), ours, atol=1e-4, rtol=0)
    (image,) = pipeline(generator=torch.Generator().manual_seed(0), num_inference_steps=5, output_type="pil").images
    assert image.size == (8, 8)
    record = json.loads((tmp_path / "o" / "export.json").read_text("utf-8"))
    assert record["parity"] <= 1e-4 and record["weights"] == run.weights_id
    for path in (tmp_path / "o").rglob("*"):
        assert not path.is_file() or str(tmp_path).encode() not in path.read_bytes(), path
    assert not list((tmp_path / "o").rglob("*.py"))


def test_what_has_no_counterpart_is_refused_with_what_has():
    for name, words in (
        (
            "diffusion",
            "its network has patches, norms or attention that no class of diffusers has; train it with portable",
        ),
        (
            "vae",
            "no class there has its layers, and code of its own is not shipped; models that can: diffusion and ",
        ),
        ("ae-kl", "it begins and ends with patches of 2x2 pixels; train it with portable=true"),
        ("vae-vq", "no class there has its layers"),
    ):
        with pytest.raises(UserError, match=f"{name} cannot be exported to diffusers: {words}"):
            parts_of(create(name, shape=SHAPE), name)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prediction": "edm"}, "portable=true needs prediction=v, eps or x0"),
        ({"schedule": "flow"}, "needs schedule=cosine or linear"),
        ({"patch": 2}, "needs patch=1"),
        ({"multipliers": (2, 2)}, "multipliers= that begin with 1"),
        ({"shape": (1, 9, 8)}, "portable=true needs sides that 2 divides, and the network sees 9x8"),
        ({"upscale": 2}, "no captions=, upscale= or inpaint="),
        ({"network": "dit"}, "network=unet"),
    ],
)
def test_settings_without_a_counterpart_are_refused_before_the_training(settings, words):
    with pytest.raises(UserError, match=words):
        create("diffusion", **{"shape": SHAPE, **TINY, **settings})


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("ae-kl", {"portable": True, "shape": (1, 9, 8)}, "portable=true needs a size= that 2 divides, not 9x8"),
        ("ae-kl", {"portable": True, "shape": SHAPE, "width": 9}, "portable=true needs an even width=, not 9"),
        ("diffusion-latent", {"shape": SHAPE, **TINY}, "add autoencoder.portable=true, or give a run of ae-kl"),
    ],
)
def test_autoencoders_without_a_counterpart_are_refused_before_the_training(name, settings, words):
    with pytest.raises(UserError, match=words):
        create(name, **settings)


def test_codes_whose_sides_the_network_does_not_divide_are_refused_before_the_training():
    with pytest.raises(UserError, match="needs sides that 4 divides, and the network sees 2x2"):
        latent(autoencoder(shape=(1, 8, 8), factor=4), multipliers=(1, 2, 2))


def test_settings_are_not_refused_for_the_size_of_images_that_are_not_read_yet():
    """28 px, the size where nothing is known, is no multiple of 8."""
    for name, settings in (
        ("ae-kl", {"portable": True, "factor": 8}),
        ("diffusion", {**TINY, "multipliers": (1, 2, 2, 2)}),
        ("diffusion-upscale", {"upscale": 8}),
    ):
        check_settings(get_recipe(name), settings)


def test_a_folder_that_draws_other_images_is_not_left(trained, tmp_path, monkeypatch):
    pytest.importorskip("diffusers")
    loaded = folder_of.loaded_denoiser

    def changed(*args):
        unet, scheduler = loaded(*args)
        nn.init.zeros_(unet.conv_out.weight)
        unet.conv_out.bias.data.add_(1)
        return unet, scheduler

    monkeypatch.setattr(folder_of, "loaded_denoiser", changed)
    words = r"an image or a code of .* differs by .* in diffusers, with values up to 1: more than 0\.0001 of that"
    with pytest.raises(UserError, match=words):
        trilemma.export(trained, to="diffusers", out=tmp_path / "o")
    assert not list(tmp_path.iterdir())


def test_without_the_extra_one_line_installs_it(trained, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert cli.main(["export", str(trained), "to=diffusers"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "[pretrained]" in said


def test_the_noise_is_that_of_sample():
    """x_T is sigma at the first time, 80 / sqrt(6401), times the noise of image k."""
    start = parts_of(tiny(), "m").start(torch.arange(2), 3)
    expected = 80 / 6401**0.5 * rng.normal(torch.arange(2), SHAPE, 3, "x_T")
    torch.testing.assert_close(start, expected, atol=1e-6, rtol=0)
