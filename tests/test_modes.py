"""Nothing depends on what the caller has set in his process or thread, and nothing of it is changed."""

import io
import locale
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from presets import small
from torch import Tensor, nn

import trilemma
from trilemma import rng
from trilemma.cli.main import main
from trilemma.data import Loader
from trilemma.modes import own_modes
from trilemma.progress import Display
from trilemma.registry import create, list_models

MODELS = ["vae", "gan"]  # gan: with dropout, and two players


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@contextmanager
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def busy_caller() -> Iterator[None]:
    """All that a notebook may have set."""
    with double(), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        yield


def short(model: str, out: str, **keys: object) -> trilemma.Run:
    return trilemma.train(model, "digits", steps=2, batch=16, out=out, quiet=True, device="cpu", **keys)


def layers() -> nn.Module:
    kinds = [nn.Linear(3, 4), nn.Conv2d(2, 3, 3), nn.LSTM(3, 5), nn.Embedding(4, 3), nn.BatchNorm1d(3)]
    kinds += [nn.MultiheadAttention(4, 2)]
    nn.init.orthogonal_(kinds[0].weight)  # type: ignore[arg-type]
    nn.init.kaiming_normal_(kinds[1].weight)  # type: ignore[arg-type]
    nn.init.trunc_normal_(kinds[3].weight)  # type: ignore[arg-type]
    kinds[4].register_buffer("drawn", torch.randn(7))
    return nn.ModuleList(kinds)


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def test_weights_are_those_of_torchs_own_generator_and_leave_it_alone() -> None:
    with rng.isolated(3):
        expected = layers()
    before = torch.get_rng_state()
    with double(), rng.OwnStart(torch.Generator().manual_seed(3)):
        result = layers()
    assert equal(result, expected)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_dropout_is_that_of_torchs_own_generator(p: float) -> None:
    x, net = torch.randn(50, 20, generator=torch.Generator().manual_seed(0)), nn.Sequential(nn.Dropout(p))
    for dtype in (torch.float32, torch.bfloat16):
        with rng.isolated(5):
            expected = nn.functional.dropout(x.to(dtype), p)
        rng.own_dropout(net, torch.Generator().manual_seed(5))
        assert torch.equal(net(x.to(dtype)), expected)
    assert torch.equal(net.eval()(x), x)


@pytest.mark.parametrize("name", list_models())
def test_models_are_built_alike_whatever_is_set(name: str) -> None:
    expected, before = create(name, shape=(1, 8, 8), seed=1, **small(name)), torch.get_rng_state()
    with double(), torch.inference_mode():
        model = create(name, shape=(1, 8, 8), seed=1, **small(name))
    assert equal(model, expected) and torch.equal(torch.get_rng_state(), before)
    assert not any(value.is_inference() for value in model.state_dict().values())


@pytest.mark.parametrize(("model", "precision"), [("vae", "float32"), ("gan", "bf16")])
def test_a_training_does_not_see_the_modes_of_its_caller(model: str, precision: str) -> None:
    expected = short(model, "plain", precision=precision)
    images = expected.sample(3, seed=1)
    with busy_caller():
        run = short(model, "busy", precision=precision)
        drawn = run.sample(3, seed=1)
    assert run.weights_id == expected.weights_id
    assert drawn.dtype == torch.float32 and torch.equal(drawn, images)


def test_an_evaluation_does_not_see_the_modes_of_its_caller() -> None:
    def values() -> dict[str, float | None]:
        result = trilemma.evaluate(short("vae", "run"), n=30, bound_samples=2, bound_images=10)
        return {s.name: s.value for s in result.scores if s.unit != "ms"}

    expected = values()
    with busy_caller():
        assert values() == expected


VERBS: dict[str, Callable[[trilemma.Run, Path], object]] = {
    "sample": lambda run, out: trilemma.sample(run, n=3, out=out / "x.png"),
    "again": lambda run, out: trilemma.again(trilemma.sample(run, n=2, out=out / "x.png").grid, out=out / "y.png"),
    "reconstruct": lambda run, out: trilemma.reconstruct(run, n=3, out=out / "x.png"),
    "interpolate": lambda run, out: trilemma.interpolate(run, 0, 1, frames=3, out=out / "x.png"),
    "invert": lambda run, out: (
        trilemma.invert(
            short("gan", str(run.path.with_name("gan")), latent=3, width=8), n=2, steps=3, out=out / "x.png"
        ).codes
    ),
    "traverse": lambda run, out: trilemma.traverse(run, out=out / "x.png"),
    "edit": lambda run, out: trilemma.edit(run, 0, towards="1", out=out / "x.png"),
    "compress": lambda run, out: trilemma.compress(run, n=4, out=out / "x.png"),
    "latent_map": lambda run, out: trilemma.latent_map(run, n=20, how="pca", out=out / "x.png"),
    "detect": lambda run, out: trilemma.detect(run, n=40, out=out / "x").in_short,
    "augment": lambda run, out: trilemma.augment(run, n=10, steps=1, seeds=2, real=20, quiet=True, out=out / "x"),
    "disentangle": lambda run, out: trilemma.disentangle(
        plain(run), n=250, data="shapes:100", quiet=True, out=out / "x"
    ),
    "show": lambda run, out: trilemma.show("digits", n=3, out=out / "x.png"),
    "check": lambda run, out: str(trilemma.check("digits")),
    "load_data": lambda run, out: trilemma.load_data("shapes:10", size=8).train.images,
    "compare": lambda run, out: trilemma.compare(run, n=20, out=out / "x", quiet=True).document["controls"],
}
TIMED = "triangle"  # a picture that shows times
COST = {"ms_per_image", "ms_one_image", "ms_best_batch", "peak_memory_mb", "joules_per_image", "training_seconds"}
SLOW = ("augment", "compare", "compress", "detect", "disentangle", "latent_map")


def plain(run: trilemma.Run) -> trilemma.Run:
    """A run that takes no class."""
    return short("vae", str(run.path.with_name("plain")), latent=3, hidden=16)


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> trilemma.Run:
    out = tmp_path_factory.mktemp("classes") / "run"
    return short("vae-conditional", str(out), latent=3, hidden=16)


def left(out: Path) -> dict[str, object]:
    """The pixels of the pictures in a folder, and its tables."""
    files = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*")) if path.is_file()}
    pictures = {
        name: np.asarray(Image.open(p)).tobytes() for name, p in files.items() if p.suffix == ".png" and p.stem != TIMED
    }
    return pictures | {name: without_cost(path.read_text()) for name, path in files.items() if path.suffix == ".csv"}


def without_cost(table: str) -> str:
    """The lines of a table that say nothing of time and memory, which differ from one moment to the next."""
    return "".join(line for line in table.splitlines(keepends=True) if not COST & set(line.split(",")))


def process() -> list[object]:
    """What a process has that a function could change."""
    generators = [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
    torchs = [
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
    ]
    torchs += [torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic]
    others = [
        os.getcwd(),
        dict(os.environ),
        locale.setlocale(locale.LC_ALL),
        sys.stdout.encoding,
        list(warnings.filters),
    ]
    return [*generators, *torchs, *others, signal.getsignal(signal.SIGINT), np.geterr(), dict(matplotlib.rcParams)]


@pytest.mark.parametrize("verb", [pytest.param(v, marks=pytest.mark.slow) if v in SLOW else v for v in VERBS])
def test_no_verb_sees_or_changes_what_its_caller_has_set(verb: str, classes: trilemma.Run, tmp_path: Path) -> None:
    for name in ("plain", "busy"):
        (tmp_path / name).mkdir()
    expected, before = VERBS[verb](classes, tmp_path / "plain"), process()
    with busy_caller():
        torch.manual_seed(9)
        inside = process()
        run = VERBS[verb](trilemma.load(classes.path), tmp_path / "busy")
        assert process() == inside
        torch.set_rng_state(torch.tensor(before[2], dtype=torch.uint8))
    assert process() == before
    if isinstance(expected, str | tuple | list | dict | Tensor):
        assert torch.equal(run, expected) if isinstance(expected, Tensor) else run == expected
    written = left(tmp_path / "plain")
    assert left(tmp_path / "busy") == written and (written or not isinstance(expected, Path))


def test_a_run_is_used_from_another_folder_than_it_was_opened_in(tmp_path: Path, monkeypatch) -> None:
    run = short("vae", "runs/here")
    assert run.path == Path("runs/here") and str(run.path) in repr(run)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert run.sample(2).shape == (2, 1, 8, 8) and run.summary["steps"] == 2
    assert trilemma.sample(run, n=1).grid.is_relative_to(tmp_path / "runs" / "here")
    assert not list(Path().iterdir())
    monkeypatch.chdir(tmp_path)
    assert run.path == Path("runs/here")


def test_modes_of_the_caller_hold_afterwards() -> None:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        with own_modes():
            assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
            assert not torch.is_autocast_enabled("cpu")
        assert torch.is_inference_mode_enabled() and torch.is_autocast_enabled("cpu")
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("model", MODELS)
def test_a_caller_who_draws_beside_a_training_changes_nothing_in_it(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(5)
    expected = [torch.randn(3) for _ in range(4)]
    alone, drawn, batch_at = short(model, "alone"), list[Tensor](), Loader.batch_at

    def beside(*args: object) -> object:
        drawn.append(torch.randn(3))
        return batch_at(*args)  # type: ignore[arg-type]

    torch.manual_seed(5)
    monkeypatch.setattr(Loader, "batch_at", beside)
    assert short(model, "beside").weights_id == alone.weights_id
    assert len(drawn) >= 2
    assert all(torch.equal(mine, wanted) for mine, wanted in zip(drawn, expected, strict=False))


def test_trainings_in_two_threads_are_those_of_one() -> None:
    results: dict[str, str] = {}
    tasks = [("gan", 0), ("gan", 1)]

    def work(model: str, seed: int, out: str) -> None:
        results[out] = short(model, out, seed=seed).weights_id

    for model, seed in tasks:
        work(model, seed, f"alone-{seed}")
    threads = [threading.Thread(target=work, args=(model, seed, f"both-{seed}")) for model, seed in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results["both-0"] == results["alone-0"] != results["alone-1"] == results["both-1"]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_without_a_letter_ends_no_verb(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("ảnh 🐱")
    folder.mkdir()
    for k in range(12):
        noise = np.random.default_rng(k).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(noise).save(folder / f"số{k}.png")
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["data", "show", str(folder), "out=shown.png"]) == 0
    assert main(["data", "check", str(folder)]) == 0
    (folder / "hỏng.png").write_bytes(b"no image")
    assert main(["data", "check", str(folder)]) == 1
    out.seek(0)
    assert "h?ng.png" in out.read()
    assert out.errors == "strict"


def test_progress_is_shown_on_a_terminal_without_a_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    err = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stderr", err)
    Display("vae").say("số 1")
    err.seek(0)
    assert err.read() == "s? 1\n"
