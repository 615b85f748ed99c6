"""Ways to harm a checkpoint: each is refused before a step is made and set aside, and the one before is taken."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import trilemma
from trilemma.files import sha256_of
from trilemma.progress import Display
from trilemma.run.checkpoint import FORMAT, list_checkpoints, load_checkpoint
from trilemma.training.loop import Trainer
from trilemma.training.samples import SamplePictures

TINY = {"batch": 16, "save_every": 32, "widths": (8, 16), "embedding": 16, "T": 50, "device": "cpu"}
NEWEST, BEFORE = "000000000096", "000000000064"  # images after 6 and 4 steps; the newest has averaged and best weights
NAN = float("nan")
Harm = Callable[[Path], object]


# Harm that the manifest knows nothing of


def cut(name: str, keep: float) -> Harm:
    """Only the first bytes of a file are there: `keep` of them if it is above 1, else that share."""

    def harm(path: Path) -> None:
        content = (path / name).read_bytes()
        (path / name).write_bytes(content[: int(keep if keep > 1 else keep * len(content))])

    return harm


def flip(name: str, at: int | bytes) -> Harm:
    """One bit is another: of the byte at a place, or of the first byte after some text."""

    def harm(path: Path) -> None:
        content = bytearray((path / name).read_bytes())
        content[at if isinstance(at, int) else content.index(at) + len(at)] ^= 1
        (path / name).write_bytes(bytes(content))

    return harm


def missing(name: str) -> Harm:
    return lambda path: (path / name).unlink()


def swapped(one: str, other: str) -> Harm:
    def harm(path: Path) -> None:
        contents = (path / one).read_bytes(), (path / other).read_bytes()
        (path / other).write_bytes(contents[0])
        (path / one).write_bytes(contents[1])

    return harm


def zeroed(path: Path) -> None:
    """What a power cut can leave: the right length, no content."""
    file = path / "model.safetensors"
    file.write_bytes(bytes(file.stat().st_size))


def with_more_bytes(path: Path) -> None:
    with (path / "ema.safetensors").open("ab") as file:
        file.write(b"\0")


def with_a_stranger(path: Path) -> None:
    shutil.copy(path / "model.safetensors", path / "other.safetensors")


# Harm under a manifest that was written again to agree with it


def agreed(harm: Harm) -> Harm:
    def both(path: Path) -> None:
        harm(path)
        entries = {
            file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
            for file in path.iterdir()
            if file.name != "manifest.json"
        }
        (path / "manifest.json").write_text(json.dumps({"format": FORMAT, "files": entries}))

    return both


def tensors(file: str, change: Callable[[dict[str, torch.Tensor], str], object]) -> Harm:
    """`change(tensors, name of one of them)` in a file."""

    def harm(path: Path) -> None:
        result = load_file(path / f"{file}.safetensors")
        change(result, max(result, key=lambda name: result[name].numel()))
        save_file(result, path / f"{file}.safetensors")

    return agreed(harm)


def put(value: float) -> Callable[[dict[str, torch.Tensor], str], object]:
    return lambda group, name: group[name].view(-1)[-1:].fill_(value)


def values(**changes: object) -> Harm:
    """Other entries in state.json; an entry that is ... goes."""

    def harm(path: Path) -> None:
        state = json.loads((path / "state.json").read_text()) | changes
        (path / "state.json").write_text(json.dumps({k: v for k, v in state.items() if v is not ...}))

    return agreed(harm)


def manifest(change: Callable[[dict[str, object]], object]) -> Harm:
    def harm(path: Path) -> None:
        content = json.loads((path / "manifest.json").read_text())
        change(content)
        (path / "manifest.json").write_text(json.dumps(content))

    return harm


def huge_header(path: Path) -> None:
    content = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + content[8:])


def deep_json(path: Path) -> None:
    (path / "state.json").write_text("[" * 200_000)


MUTATIONS: dict[str, Harm] = {
    **{f"tensors cut at {keep}": cut("model.safetensors", keep) for keep in (0, 1.5, 0.5, 0.99, 0.999)},
    **{f"state cut at {keep}": cut("state.json", keep) for keep in (0, 0.5, 0.99)},
    **{f"manifest cut at {keep}": cut("manifest.json", keep) for keep in (0, 1.5, 0.5, 0.99)},
    "bit of the header's length": flip("model.safetensors", 0),
    "bit of the header": flip("model.safetensors", b'"dtype":"'),
    "first bit of the tensors": flip("model.safetensors", b"}}"),
    "last byte of the tensors": flip("model.safetensors", -1),
    "bit of the averaged weights": flip("ema.safetensors", -7),
    "bit of the optimiser": flip("optimizer-denoiser.safetensors", -9),
    "bit of the best weights": flip("best.safetensors", -2),
    "bit of the step": flip("state.json", b'"step": '),
    "bit of a hash": flip("manifest.json", b'"sha256": "'),
    "bit of a size": flip("manifest.json", b'"bytes": '),
    **{f"no {name}": missing(name) for name in ("model.safetensors", "ema.safetensors", "state.json", "manifest.json")},
    "no optimiser": missing("optimizer-denoiser.safetensors"),
    "files swapped": swapped("model.safetensors", "best.safetensors"),
    "zeros": zeroed,
    "a byte more": with_more_bytes,
    "a file more": with_a_stranger,
    "agreed: a file more": agreed(with_a_stranger),
    "agreed: huge header": agreed(huge_header),
    "agreed: deep JSON": agreed(deep_json),
    "agreed: NaN weight": tensors("model", put(NAN)),
    "agreed: infinite averaged weight": tensors("ema", put(float("inf"))),
    "agreed: NaN in the optimiser": tensors("optimizer-denoiser", put(NAN)),
    "agreed: NaN in the best weights": tensors("best", put(NAN)),
    "agreed: a tensor less": tensors("model", lambda group, name: group.pop(name)),
    "agreed: a tensor more": tensors("model", lambda group, name: group.update(more=torch.zeros(1))),
    "agreed: another shape": tensors("model", lambda group, name: group.update({name: group[name][:1].clone()})),
    "agreed: another type": tensors("ema", lambda group, name: group.update({name: group[name].double()})),
    "agreed: optimiser entry less": tensors("optimizer-denoiser", lambda group, name: group.pop(name)),
    "agreed: optimiser empty": tensors("optimizer-denoiser", lambda group, name: group.clear()),
    "agreed: no averaged weights": agreed(missing("ema.safetensors")),
    "agreed: no best weights": agreed(missing("best.safetensors")),
    "agreed: wrong step": values(step=5),
    "agreed: wrong images": values(images=80),
    "agreed: wrong step and images": values(step=5, images=80),
    "agreed: a value less": values(plateau=...),
    "agreed: a value more": values(other=1),
    "agreed: text for a number": values(seconds="3"),
    "agreed: no pieces": values(pieces=0),
    "agreed: no object": agreed(lambda path: (path / "state.json").write_text("[1]")),
    "manifest of nothing": manifest(lambda content: content.update(files={})),
    "manifest of files elsewhere": manifest(lambda content: content["files"].update({f"../{BEFORE}/state.json": {}})),
    "manifest of a later format": manifest(lambda content: content.update(format=FORMAT + 1)),
    "renamed to a later place": lambda path: path.rename(path.with_name("000000000112")),
}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SamplePictures, "draw", lambda *_: None)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(Display, "say", lambda display, text: lines.append(text))
    return lines


def train(out: Path) -> trilemma.Run:
    return trilemma.train("diffusion-small", "digits", steps=6, out=out, **TINY)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run with two checkpoints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SamplePictures, "draw", lambda *_: None)
        yield train(tmp_path_factory.mktemp("whole") / "run").path


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy to harm, killed before it wrote its results."""
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    return tmp_path / "run"


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if k % 6 else ()) for k, name in enumerate(MUTATIONS)]
)
def test_a_harmed_checkpoint_is_refused_for_the_one_before(
    name: str, run: Path, whole: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first_steps: list[int] = []
    one_step = Trainer.take_step
    monkeypatch.setattr(
        Trainer, "take_step", lambda trainer: (first_steps.append(trainer.calendar.step), one_step(trainer))[1]
    )
    MUTATIONS[name](run / "checkpoints" / NEWEST)
    harmed = list_checkpoints(run / "checkpoints")[-1]
    before = content(harmed)
    train(run)
    notices = [line for line in said if "is broken" in line]
    assert len(notices) == 1 and harmed.name in notices[0] and "\n" not in notices[0]
    assert content(harmed.with_name(f"{harmed.name}.corrupt")) == before
    assert first_steps == [4, 5]
    assert (run / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    ends = [content(path / "checkpoints" / NEWEST) for path in (run, whole)]
    assert all(ends[0][file] == ends[1][file] for file in ends[1] if file.endswith(".safetensors"))


def test_an_unharmed_one_is_taken(run: Path, said: list[str]) -> None:
    train(run)
    assert not [line for line in said if "broken" in line]


def test_two_that_were_swapped_are_both_refused_and_left_to_the_user(run: Path, said: list[str]) -> None:
    one, other = run / "checkpoints" / NEWEST, run / "checkpoints" / BEFORE
    one.rename(run / "between")
    other.rename(one)
    (run / "between").rename(other)
    files = [content(one), content(other)]
    for _ in range(2):  # the same command does not begin anew behind one's back, the second time neither
        with pytest.raises(trilemma.UserError, match=rf"none of the 2 .* \({NEWEST}: .*; {BEFORE}: .*another out="):
            train(run)
    assert [content(one), content(other)] == files and sorted(one.parent.iterdir()) == [other, one]
    assert not [line for line in said if "set aside" in line]


def test_a_notice_names_the_keys_that_differ_and_no_others(run: Path, said: list[str]) -> None:
    values(plateau=..., other=1, seconds="3")(run / "checkpoints" / NEWEST)
    train(run)
    (notice,) = (line for line in said if "is broken" in line)
    assert "training: plateau is missing, other is unknown, seconds has another form)" in notice


def test_an_earlier_one_that_was_set_aside_is_never_touched(run: Path) -> None:
    newest = run / "checkpoints" / NEWEST
    kept = []
    for number in range(3):
        (newest / "state.json").write_text(f"harm {number}")
        kept.append(content(newest))
        train(run)
    asides = [newest.with_name(f"{NEWEST}{middle}.corrupt") for middle in ("", ".2", ".3")]
    assert [content(aside) for aside in asides] == kept


def test_one_that_may_not_be_read_is_not_called_broken(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("trilemma.files.open_plain", refuse)
    with pytest.raises(PermissionError):
        load_checkpoint(run / "checkpoints", print)
    assert [path.name for path in list_checkpoints(run / "checkpoints")] == [BEFORE, NEWEST]
