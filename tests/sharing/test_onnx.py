"""Graphs of tiny models of every family: in onnxruntime they give what the model gives, for any batch."""

import json
import sys
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from presets import small

import trilemma
from trilemma import rng
from trilemma.cli import main as cli
from trilemma.errors import UserError
from trilemma.registry import create, list_models
from trilemma.sharing import onnx_graphs
from trilemma.sharing.graphs import Graph, Slot, graphs_of
from trilemma.types import Condition

module = import_module("trilemma.sharing.export")
SHAPE = (1, 8, 8)
CODED = {"encoder", "decoder"}
GRAPHS = {  # of each family, and of what differs inside one
    "ae-stacked": CODED,
    "ae-kl": CODED,
    "vae": CODED,
    "vae-conditional": CODED,
    "vae-vq": CODED,
    "vae-hierarchical": CODED,
    "gan-dcgan": {"generator", "critic"},
    "gan-style": {"generator", "critic"},
    "diffusion": {"denoiser"},
    "diffusion-small": {"denoiser"},
    "diffusion-dit": {"denoiser"},
    "diffusion-upscale": {"denoiser"},
    "diffusion-inpaint": {"denoiser"},
    "diffusion-few": {"denoiser"},
    "diffusion-latent": {"denoiser", *CODED},
}


def tiny(name, **settings):
    """A model whose layers that begin at zero do not."""
    model = create(name, shape=SHAPE, **{**small(name), **settings}).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def graphs_by_name(name, **settings):
    return {graph.name: graph for graph in graphs_of(tiny(name, **settings), name, SHAPE)}


def has_libraries():
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)


def outputs(content, graph, n):
    """Of the graph in onnxruntime and of the model, for values that the conversion did not see."""
    inputs = graph.draw(n, seed=99)
    session = onnx_graphs.session_of(content)
    (result,) = session.run(None, {key: x.numpy() for key, x in zip(graph.inputs, inputs, strict=True)})
    with torch.no_grad():
        return torch.from_numpy(result), graph.compute(*inputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_gives_what_the_model_gives(name):
    has_libraries()
    model = tiny(name, **({"classes": True, "n_classes": 4} if name in ("diffusion", "gan-dcgan") else {}))
    graphs = graphs_of(model, name, SHAPE)
    assert {graph.name for graph in graphs} == GRAPHS[name]
    for graph in graphs:
        content, about = onnx_graphs.convert(model, graph, name)
        assert 0 <= about["parity"] <= 1e-4
        assert all(rows["shape"][0] == "batch" for rows in (*about["inputs"].values(), *about["outputs"].values()))
        for n in (1, 5):
            result, expected = outputs(content, graph, n)
            assert len(result) == n
            assert (result - expected).abs().max() <= 1e-4 * expected.abs().max().clamp(min=1)
        assert str(Path(module.__file__).parents[2]).encode() not in content


@pytest.mark.slow
def test_what_large_codes_differ_by_is_the_rounding_of_float32():
    """In float64 both are equally far from the code, which is the posterior mean over a small spread of its prior."""
    has_libraries()
    model = tiny("vae-hierarchical")
    graph, exact = (graphs_of(m, "m", SHAPE)[0] for m in (model, deepcopy(model).double()))
    assert graph.name == exact.name == "encoder"
    content, about = onnx_graphs.convert(model, graph, "m")
    assert about["scale"] > 10 and about["difference"] == pytest.approx(about["parity"] * about["scale"])
    result, expected = outputs(content, graph, 5)
    with torch.no_grad():
        code = exact.compute(*(x.double() for x in graph.draw(5, seed=99)))
    scale = float(code.abs().max())
    rounding = float((expected - code).abs().max())
    assert 0 < rounding <= 1e-5 * scale
    assert (result - code).abs().max() <= 4 * rounding + 1e-6 * scale


def test_the_denoiser_is_the_models_at_the_same_noise():
    """alpha and sigma of its own schedule at t give what `denoise` gives at t."""
    model = tiny("diffusion", classes=True, n_classes=4)
    (graph,) = graphs_of(model, "diffusion", SHAPE)
    x, t, label = torch.randn(3, *SHAPE), torch.tensor([0.2, 0.5, 0.9]), torch.tensor([0, 3, 4])
    alpha, sigma = model.schedule.alpha(t).float(), model.schedule.sigma(t).float()
    with torch.no_grad():
        expected = model.denoise(x, t, Condition(label)).clamp(-1, 1)
        torch.testing.assert_close(graph.compute(x, alpha, sigma, label), expected, atol=1e-5, rtol=0)
    assert graph.inputs["label"].about == "class, 0 to 3; 4: none"
    drawn = dict(zip(graph.inputs, graph.draw(5), strict=True))
    torch.testing.assert_close(drawn["alpha"] ** 2 + drawn["sigma"] ** 2, torch.ones(5))


def test_the_denoiser_of_few_steps_draws_the_image_of_one_call():
    """From pure noise, alpha = 1 and sigma = 80 in units of twice the spread of the data, which is 1 here."""
    model = tiny("diffusion-few")
    model.student.network.last[-1].weight.data.mul_(40)  # so that some pixels leave [-1, 1]
    (graph,) = graphs_of(model, "diffusion-few", SHAPE)
    x_T = 80 * rng.normal(torch.arange(2), SHAPE, 5, "few", 0)
    with torch.no_grad():
        x0_hat = graph.compute(x_T, torch.ones(2), torch.full((2,), 80.0))
        drawn = model.sample(2, seed=5, keys=model.sampling_keys(steps=1))
    torch.testing.assert_close((x0_hat / 2 + 0.5).clamp(0, 1), drawn, atol=1e-5, rtol=0)
    assert x0_hat.abs().max() > 1 and 0 < drawn.median() < 1


def test_the_generator_with_noise_draws_what_sample_draws():
    model = tiny("gan-style")
    graph = graphs_by_name("gan-style")["generator"]
    ids = torch.arange(3)
    z, noise = rng.normal(ids, (8,), 5, "latent"), rng.normal(ids, (model.n_noise,), 5, "noise")
    with torch.no_grad():
        torch.testing.assert_close(graph.compute(z, noise), model.sample(3, seed=5), atol=1e-6, rtol=0)


def test_every_model_has_graphs_or_is_refused_with_those_that_have():
    refused = {"diffusion-text": "it reads captions"}
    for name in list_models():
        settings = {"words": ("a", "cat")} if name == "diffusion-text" else {}
        if name not in refused:
            assert graphs_by_name(name), name
            continue
        with pytest.raises(UserError, match=f"{name} cannot be exported to onnx: {refused[name]}") as caught:
            graphs_by_name(name, **settings)
        able = str(caught.value).partition("models that can: ")[2].split(", ")
        assert set(able) == set(list_models()) - set(refused)


class Session:
    """In place of one of onnxruntime: f(x) = 2 x + shift, of a batch of any size."""

    def __init__(self, shift):
        self.shift = shift

    def run(self, names, given):
        return [2 * given["image"] + np.float32(self.shift)]

    def get_inputs(self):
        return [SimpleNamespace(name="image", type="tensor(float)", shape=["s1", 4])]

    def get_outputs(self):
        return [SimpleNamespace(name="code", type="tensor(float)", shape=["s1", 4])]


def test_a_graph_that_differs_is_not_exported(monkeypatch):
    slot = Slot("normal", lambda n, rng: torch.randn(n, 4, generator=rng))
    graph = Graph("encoder", {"image": slot}, "code", "a code", lambda x: 2 * x)
    monkeypatch.setattr(onnx_graphs, "_content", lambda *_: b"")
    monkeypatch.setattr(onnx_graphs, "session_of", lambda _: Session(5e-5))
    about = onnx_graphs.convert(torch.nn.Identity(), graph, "m").about
    scale = min(max(1.0, float(2 * graph.draw(n, seed=n)[0].abs().max())) for n in (1, 5))
    assert about["difference"] == pytest.approx(5e-5, rel=0.01) and about["parity_batches"] == [1, 5]
    assert about["scale"] == pytest.approx(scale) and about["parity"] == pytest.approx(5e-5 / scale, rel=0.01)
    assert about["inputs"] == {"image": {"type": "float", "shape": ["batch", 4], "about": "normal"}}
    monkeypatch.setattr(onnx_graphs, "session_of", lambda _: Session(1e-3))
    words = r"the encoder of m differs by 0\.001 in onnxruntime, with values up to .*: more than 0\.0001 of that"
    with pytest.raises(UserError, match=words):
        onnx_graphs.convert(torch.nn.Identity(), graph, "m")
    monkeypatch.setattr(onnx_graphs, "session_of", lambda _: Session(float("nan")))
    with pytest.raises(UserError, match="differs by nan"):
        onnx_graphs.convert(torch.nn.Identity(), graph, "m")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return trilemma.train("ae-linear", "digits", steps=2, batch=16, out=out, device="cpu", quiet=True).path


@pytest.mark.slow
def test_the_command_writes_a_folder_with_a_record(trained, tmp_path, capsys):
    has_libraries()
    assert cli.main(["export", str(trained), "to=onnx"]) == 0
    said = capsys.readouterr()
    assert "encoder.onnx" in said.out and "decoder.onnx" in said.out and said.err == ""
    folder = trained / "export" / "onnx"
    assert {path.name for path in folder.iterdir()} == {"encoder.onnx", "decoder.onnx", "export.json"}
    record = json.loads((folder / "export.json").read_text("utf-8"))
    assert record["weights"] == trilemma.load(trained).weights_id and record["model"] == "ae-linear"
    decoder = record["graphs"]["decoder.onnx"]
    assert decoder["outputs"]["image"] == {"type": "float", "shape": ["batch", 1, 8, 8], "about": "in [0, 1]"}
    assert decoder["inputs"]["code"]["shape"] == ["batch", 2] and decoder["parity"] <= 1e-4
    assert str(Path.home()) not in json.dumps(record) and str(tmp_path.parent) not in json.dumps(record)
    images = trilemma.load(trained).encode(torch.rand(5, *SHAPE))
    session = onnx_graphs.session_of((folder / "decoder.onnx").read_bytes())
    (result,) = session.run(None, {"code": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(result), trilemma.load(trained).decode(images), atol=1e-4, rtol=0)


def test_its_own_files_are_replaced_and_changed_ones_kept(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "check_installed", lambda: None)
    contents = [b"one", b"two", b"three", b"four"]
    monkeypatch.setattr(module, "convert", lambda *_: onnx_graphs.Converted(contents.pop(0), {"parity": 0.0}))
    folder = tmp_path / "o"
    trilemma.export(trained, to="onnx", out=folder)
    assert (folder / "encoder.onnx").read_bytes() == b"one"
    trilemma.export(trained, to="onnx", out=folder)
    assert (folder / "encoder.onnx").read_bytes() == b"three" and [*tmp_path.iterdir()] == [folder]
    (folder / "encoder.onnx").write_bytes(b"mine")
    with pytest.raises(UserError, match="was changed since"):
        trilemma.export(trained, to="onnx", out=folder)
    assert (folder / "encoder.onnx").read_bytes() == b"mine"


def test_files_of_others_stay(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "check_installed", lambda: None)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "a.txt").write_text("mine")
    with pytest.raises(UserError, match="mine exists and was not written by trilemma export"):
        trilemma.export(trained, to="onnx", out=mine)
    assert [path.name for path in mine.iterdir()] == ["a.txt"]
    (tmp_path / "link").symlink_to(mine)
    with pytest.raises(UserError, match="is a link"):
        trilemma.export(trained, to="onnx", out=tmp_path / "link")


@pytest.mark.slow
def test_a_conversion_that_fails_leaves_nothing(trained, tmp_path, monkeypatch):
    has_libraries()

    def fails(*args):
        raise UserError("no")

    monkeypatch.setattr(module, "convert", fails)
    with pytest.raises(UserError, match="no"):
        trilemma.export(trained, to="onnx", out=tmp_path / "o")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_without_the_extra_one_line_installs_it(trained, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    pytest.importorskip("onnx")
    assert cli.main(["export", str(trained), "to=onnx"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "to=onnx needs the library onnxruntime" in said and "[export]" in said
