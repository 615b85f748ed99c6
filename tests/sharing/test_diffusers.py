"""A diffusion model as a folder of diffusers: its own classes load it, and draw the same images from the same noise."""

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
from trilemma.cli import main as cli
from trilemma.errors import UserError
from trilemma.nets.unet import UNet
from trilemma.nets.unet_diffusers import unet2d_settings, unet2d_weights
from trilemma.pretrained.safety import check_folder
from trilemma.registry import create
from trilemma.sharing.diffusers_folder import images_of, parts_of, write_folder

folder_of = import_module("trilemma.sharing.diffusers_folder")
SHAPE = (1, 8, 8)
TINY = {"portable": True, "prediction": "v", "width": 8, "multipliers": (1, 2)}


def random_weights(model):
    """No layer begins at zero, so that every one counts."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def tiny(shape=SHAPE, **settings):
    return random_weights(create("diffusion", shape=shape, **{**TINY, **settings}))


def both(model, tmp_path):
    """Network and scheduler that diffusers loads."""
    diffusers = pytest.importorskip("diffusers")
    parts = parts_of(model, "m")
    write_folder(tmp_path, model, parts, "m")
    return parts, *folder_of._loaded(diffusers, tmp_path)


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
def test_the_loop_of_the_page_draws_the_images_of_sample_with_guidance(tmp_path, monkeypatch):
    """Guidance of v is that of x0_hat = alpha x_t - sigma v, before it is cut."""
    model = tiny(classes=True, n_classes=10)
    parts, *_ = both(model, tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "sharing.md").read_text("utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class_labels" in block)
    place = "runs/diffusion-digits/export/diffusers"
    assert place in code
    monkeypatch.setattr(torch, "randn", lambda *shape: parts.start(torch.arange(shape[0]), 6))
    names = {}
    exec(code.replace(place, str(tmp_path)), names)
    label = torch.tensor([7, 7, 3, 3])
    keys = {guided: parts.keys(10).with_(guidance=guided) for guided in (1.5, 1.0)}
    ours, plain = (model.sample(4, seed=6, condition=trilemma.types.Condition(label), keys=k) for k in keys.values())
    torch.testing.assert_close(names["images"], ours, atol=1e-4, rtol=0)
    assert (ours - plain).abs().max() > 1e-2


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
            "no class there has its layers, and code of its own is not shipped; models that can: diffusion, trained",
        ),
        ("ae-kl", "no class there has its layers"),
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
        ({"shape": (1, 9, 8)}, "a size= that 2 divides"),
        ({"upscale": 2}, "no captions=, upscale= or inpaint="),
        ({"network": "dit"}, "network=unet"),
    ],
)
def test_settings_without_a_counterpart_are_refused_before_the_training(settings, words):
    with pytest.raises(UserError, match=words):
        create("diffusion", **{"shape": SHAPE, **TINY, **settings})


def test_a_folder_that_draws_other_images_is_not_left(trained, tmp_path, monkeypatch):
    pytest.importorskip("diffusers")
    loaded = folder_of._loaded

    def changed(*args):
        unet, scheduler = loaded(*args)
        nn.init.zeros_(unet.conv_out.weight)
        unet.conv_out.bias.data.add_(1)
        return unet, scheduler

    monkeypatch.setattr(folder_of, "_loaded", changed)
    with pytest.raises(UserError, match=r"differ by .* in diffusers, more than 0\.0001; it was not exported"):
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
