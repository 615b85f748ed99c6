"""The scripts that measure diffusion: what they count, and what they say of their bars; no training of theirs is
run."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

Load = Callable[[str], ModuleType]


@pytest.mark.parametrize(
    ("value", "keys", "text"),
    [
        (1.3, {"bar": 1.3}, "within the bar of 1.3"),
        (1.31, {"bar": 1.3}, "above the bar of 1.3"),
        (0.98, {"bar": 0.98, "form": ".0%", "least": True}, "within the bar of 98%"),
        (0.979, {"bar": 0.98, "form": ".0%", "least": True}, "below the bar of 98%"),
    ],
)
def test_a_value_beside_its_bar(script: Load, value: float, keys: dict, text: str) -> None:
    assert script("bars").verdict(value, **keys) == text


# --- beside other libraries -------------------------------------------------------------------------------------------

PEER_SCORES = {
    "diffusion": {"frechet_distance": [1.5, 1.4, 1.6], "recall": [0.79, 0.77, 0.8]},
    "diffusion-small": {"frechet_distance": [7.5, 7.0, 8.0], "recall": [0.47, 0.44, 0.49]},
    "smalldiffusion": {"frechet_distance": [1.7, 1.55, 1.85], "recall": [0.6, 0.5, 0.7]},
    "diffusers": {"frechet_distance": [12.9, 12.2, 13.6], "recall": [0.53, 0.5, 0.56]},
}


def test_peers_beside_their_bars(script: Load) -> None:
    """1.5 is a fifth of 7.5; the interval that ends at 1.6 overlaps one that begins at 1.55, and none that begins at
    12.2."""
    peers = script("peers")
    interval = "diffusion: the interval of its distance ends at 1.600"
    assert list(peers.beside_bars(PEER_SCORES)) == [
        "diffusion: 0.20 times the distance of diffusion-small, within the bar of 0.5",
        "diffusion: recall 0.790, within the bar of 0.6",
        f"{interval}, above the bar of 1.550, where that of smalldiffusion begins",
        f"{interval}, within the bar of 12.200, where that of diffusers begins",
    ]
    worse = PEER_SCORES | {"diffusion": {"frechet_distance": [4.5, 4.0, 5.0], "recall": [0.59, 0.5, 0.6]}}
    assert list(peers.beside_bars(worse))[:2] == [
        "diffusion: 0.60 times the distance of diffusion-small, above the bar of 0.5",
        "diffusion: recall 0.590, below the bar of 0.6",
    ]


def test_peers_say_nothing_of_what_was_not_measured(script: Load) -> None:
    peers, refused = script("peers"), {"frechet_distance": [None], "recall": [0.5, 0.4, 0.6]}
    for scores in ({}, {"diffusers": PEER_SCORES["diffusers"]}, PEER_SCORES | {"diffusion": refused}):
        assert list(peers.beside_bars(scores)) == []
    own = PEER_SCORES["diffusion"]
    assert list(peers.beside_bars({"diffusion": own, "diffusion-small": refused, "gan-r3": own})) == []


def test_scores_of_the_models_come_from_their_processes(
    script: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one that fails has none, and its code is that of the whole."""
    peers = script("peers")

    def run(command: list[str]) -> SimpleNamespace:
        if "smalldiffusion" in command:
            return SimpleNamespace(returncode=3)
        peers.main(command[2:])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(peers.subprocess, "run", run)
    monkeypatch.setattr(peers, "measure", lambda name, given: (f"{name} {given.data}", PEER_SCORES[name]))
    monkeypatch.setattr(peers, "tune_allocator", lambda: None)
    with pytest.raises(SystemExit) as stop:
        peers.main(["diffusion,smalldiffusion,diffusion-small", "mnist", "--threads", str(torch.get_num_threads())])
    head, *lines = capsys.readouterr().out.splitlines()
    assert stop.value.code == 3 and head.startswith("model ")
    assert lines[:2] == ["diffusion mnist", "diffusion-small mnist"]
    assert lines[2:] == list(peers.beside_bars({name: PEER_SCORES[name] for name in ("diffusion", "diffusion-small")}))


def test_scores_of_a_peer_are_kept_and_shown(script: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    peers = script("peers")
    result = {name: SimpleNamespace(value=0.5, interval=(0.25, 0.75)) for name in peers.SCORES}
    result["frechet_distance"] = SimpleNamespace(value=None, interval=None)
    monkeypatch.setattr(peers, "choose_reals", lambda data: ("test", 3))
    monkeypatch.setattr(peers, "part_named", lambda data, split: range(3))
    monkeypatch.setattr(peers.trilemma, "evaluate", lambda images, *, n, **given: result if n == 3 else None)
    scores = json.loads(json.dumps(peers.scores_of(torch.zeros(5, 1, 2, 2), SimpleNamespace(), 0)))
    assert scores["frechet_distance"] == [None] and scores["recall"] == [0.5, 0.25, 0.75]
    cells = peers.cells_of(scores)
    assert len(cells) == 28 * len(peers.SCORES) and cells.split()[:3] == ["refused", "0.500", "[0.250,"]


class Step(SimpleNamespace):
    """A step of a model with the speed that the model's weight says, twice that with channels-last tensors."""

    def __init__(self, name: str, data: object, *, model: nn.Linear, channels_last: bool, **_: object) -> None:
        super().__init__(config=SimpleNamespace(batch=32))
        self.value = model.weight.item() * (1 + channels_last)

    def speed(self, seconds: float) -> float:
        return self.value


def model_of_speed(value: float) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


@pytest.mark.parametrize(("speed", "text"), [(70.0, "1.40 times"), (80.0, "1.60 times")])
def test_a_training_step_beside_its_bar(
    script: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], speed: float, text: str
) -> None:
    """The better layout of either counts, and of ours the preset, not the network without patches."""
    unet = script("unet")
    speeds = {"trilemma": speed, "without patches": 500.0, "UNet2DModel": 50.0}
    monkeypatch.setattr(unet, "models_of", lambda data: {name: model_of_speed(value) for name, value in speeds.items()})
    monkeypatch.setattr(unet, "BareStep", Step)
    assert unet.training(None, SimpleNamespace(rounds=2, seconds=0, device="cpu"))
    assert f"\ntraining at {text} the speed of diffusers, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("what", "ours", "text"),
    [
        ("training", 29.0, "training at 1.45 times the speed of diffusers, below the bar of 1.5"),
        ("training", 30.0, "training at 1.50 times the speed of diffusers, within the bar of 1.5"),
        ("drawing", 19.8, "drawing at 0.99 times the speed of diffusers, below the bar of 1"),
        ("drawing", 20.2, "drawing at 1.01 times the speed of diffusers, within the bar of 1"),
    ],
)
def test_speeds_beside_their_bars(script: Load, what: str, ours: float, text: str) -> None:
    assert script("unet").beside_bar(what, ours, 20.0) == text


# --- captions ---------------------------------------------------------------------------------------------------------


def two_blue_squares_above(second: bool) -> dict[str, Tensor]:
    """The factors of an image of two large blue squares at the top, with a small red circle at the bottom or without:
    count from 0, colour, size, kind and place as numbers."""
    first = {"count": 1, "colour": 2, "size": 1, "kind": 1, "place": 0}
    other = {"count": 0, "colour": 0, "size": 0, "kind": 0, "place": 1} if second else dict.fromkeys(first, -1)
    factors = first | {"groups": 1 + second} | {f"{name}2": value for name, value in other.items()}
    return {name: torch.tensor([value]) for name, value in factors.items()}


def test_what_a_checker_without_error_reads(script: Load) -> None:
    """At each place the count from 1 (0: nothing is there), colour, size and kind."""
    captions = script("captions")
    nothing = [0, -1, -1, -1]
    one, two = (captions.as_read(two_blue_squares_above(second))[0].tolist() for second in (False, True))
    assert one == [[2, 2, 1, 1], nothing, nothing, nothing]
    assert two == [[2, 2, 1, 1], [1, 0, 0, 0], nothing, nothing]


@pytest.mark.parametrize(
    ("place", "read", "wrong"),
    [
        (0, [2, 2, 1, 1], []),
        (0, [3, 2, 1, 1], ["count"]),
        (0, [2, 0, 1, 1], ["colour"]),
        (1, [1, 0, 1, 0], ["size"]),
        (1, [1, 0, 0, 2], ["kind"]),
        (1, [0, 0, 0, 0], ["count", "place"]),  # the second group is missing
        (3, [0, 1, 1, 1], []),  # what the checker says of a place where it sees nothing does not count
        (3, [1, 1, 1, 1], ["place"]),  # a group too many
    ],
)
def test_each_factor_is_right_where_the_caption_has_its_groups(
    script: Load, place: int, read: list[int], wrong: list[str]
) -> None:
    captions = script("captions")
    expected = captions.as_read(two_blue_squares_above(second=True))
    seen = expected.clone()
    seen[0, place] = torch.tensor(read)
    names = ["count", "colour", "size", "kind", "place"]
    assert [
        name for name, is_right in zip(names, captions.obeyed_factors(seen, expected)[0], strict=True) if not is_right
    ] == wrong


def obeyed_but(errors: int, factor: int, n: int = 1000) -> Tensor:
    """All five factors of n images, of which one is wrong in some."""
    result = torch.ones(n, 5, dtype=torch.bool)
    result[:errors, factor] = False
    return result


def test_a_checker_that_misreads_real_images_stops_its_measurement(script: Load) -> None:
    captions = script("captions")
    captions.check_checker(obeyed_but(4, 2), Path("checker"))
    with pytest.raises(
        SystemExit, match=r"reads size right in 99\.40% of real images, and 99\.5% is the least.*Remove"
    ):
        captions.check_checker(obeyed_but(6, 2), Path("checker"))


def test_captions_beside_their_bars(script: Load) -> None:
    captions = script("captions")
    assert captions.beside_bars(obeyed_but(10, 1)) == (
        "each factor 99.00% at least, within the bar of 98%; all 99.00%, within the bar of 90%"
    )
    spread = torch.cat([obeyed_but(30, k, 200) for k in range(5)])  # 30 of 1,000 in each factor, never two at once
    assert captions.beside_bars(spread) == (
        "each factor 97.00% at least, below the bar of 98%; all 85.00%, below the bar of 90%"
    )


# --- inpainting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_one_level_outside_the_mask_is_noticed(script: Load, tmp_path: Path, channels: int) -> None:
    inpainting, file = script("inpainting"), tmp_path / "e.png"
    image = torch.from_numpy(np.random.default_rng(0).integers(1, 255, (channels, 6, 4), dtype=np.uint8))
    mask = torch.zeros(1, 1, 6, 4)
    mask[..., :2] = 1
    for column, same in ((1, True), (2, False)):
        drawn = image.clone()
        drawn[-1, 5, column] += 1
        Image.fromarray(drawn.permute(1, 2, 0).squeeze(2).numpy()).save(file)
        assert script("inpainting").same_outside(file, image, mask) == same
    assert inpainting.halves(6, 4) == ["0,0,2,6", "2,0,4,6", "0,0,4,3", "0,3,4,6"]


def test_inpainting_beside_its_bars(script: Load) -> None:
    inpainting = script("inpainting")
    assert inpainting.beside_bars(0.951, 1000, 1000) == (
        "drawn as asked: within the bar of 95%; the same outside: within the bar of 1000"
    )
    assert inpainting.beside_bars(0.949, 999, 1000) == (
        "drawn as asked: below the bar of 95%; the same outside: below the bar of 1000"
    )


# --- enlarging, few calls, codes --------------------------------------------------------------------------------------


def test_enlarging_beside_its_bars(script: Load) -> None:
    upscaling = script("upscaling")
    good = upscaling.beside_bars({"drawn": 0.1, "bicubic": 0.25}, {"drawn": 20.0, "bicubic": 20.5})
    assert good == (
        "features at 0.40 times bicubic's distance, within the bar of 0.5; "
        "PSNR 0.50 dB below bicubic's, within the bar of 1"
    )
    bad = upscaling.beside_bars({"drawn": 0.2, "bicubic": 0.25}, {"drawn": 18.0, "bicubic": 20.5})
    assert bad == (
        "features at 0.80 times bicubic's distance, above the bar of 0.5; "
        "PSNR 2.50 dB below bicubic's, above the bar of 1"
    )


def test_few_calls_beside_their_bars(script: Load) -> None:
    few = script("few")
    assert few.beside_bars({1: 6.4, 2: 2.4, 4: 2.0}, 2.0) == (
        "distance over that of the teacher in 50 calls: in 2 1.20 x, within the bar of 1.3; "
        "in 1 3.20 x, above the bar of 2"
    )


def test_the_speed_of_codes_beside_its_bar(script: Load) -> None:
    latent = script("latent")
    for seconds, text in (
        (0.014, "2.50 times as quick, below the bar of 4"),
        (0.007, "5.00 times as quick, within the ba"),
    ):
        assert text in latent.speed_in_words({"diffusion": 0.035, "diffusion-latent": seconds})


def test_keys_go_to_the_model_of_codes_and_to_the_name_of_its_folder(
    script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latent, trained = script("latent"), []
    data = SimpleNamespace(name="shapes")
    monkeypatch.setattr(latent.trilemma, "load_data", lambda source, **keys: data)
    monkeypatch.setattr(latent.trilemma, "train", lambda model, data, **keys: trained.append((model, keys)))
    monkeypatch.setattr(latent, "measure", lambda *what: None)
    monkeypatch.setattr(latent, "speed", lambda runs: "")
    words = ["width=20", "autoencoder=runs/a b", "--minutes", "4", "--out", str(tmp_path)]
    for before in ([], ["shapes"]):
        monkeypatch.setattr(sys, "argv", ["latent.py", *before, *words])
        latent.main()
        (pixels, of_pixels), (codes, of_codes) = trained
        assert (pixels, codes) == latent.MODELS and "width" not in of_pixels
        assert of_codes == of_pixels | {"width": 20, "autoencoder": "runs/a b", "out": of_codes["out"]}
        assert of_pixels["out"] == tmp_path / "diffusion-shapes-64px-4min-seed0"
        assert of_codes["out"] == tmp_path / "diffusion-latent-shapes-64px-4min-seed0-width=20-autoencoder=runs_a_b"
        trained.clear()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (0.01234, "RMSE 0.0123, within the bar of 0.0123, that of reconstruct"),  # equal as printed
        (0.0124, "RMSE 0.0124, above the bar of 0.0123, that of reconstruct"),
    ],
)
def test_what_changes_nothing_beside_its_bar(
    script: Load, error: float, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    script("unchanged").say("interpolate, ends", error, 0.01233)
    assert text in capsys.readouterr().out


class Split(SimpleNamespace):
    """Images of a source."""

    def __len__(self) -> int:
        return len(self.images)


def test_a_finished_run_gets_its_pictures_without_a_training(
    script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sample and a reconstruction that are planted far away come first, each beside what it is compared with."""
    latent = script("latent")
    images = torch.from_numpy(np.random.default_rng(0).integers(60, 120, (240, 1, 8, 8), dtype=np.uint8))
    samples, rebuilt = images.flip(3).clone(), images.clone()
    samples[7], rebuilt[9] = 255, 0
    split = Split(images=images)
    data = SimpleNamespace(shape=(1, 8, 8), name="digits", held_out=("test", split), train=split)
    run = SimpleNamespace(
        path=tmp_path,
        data=data,
        recipe=SimpleNamespace(name="diffusion-latent"),
        sample=lambda n, seed: samples[:n],
        reconstruct=lambda x: rebuilt[: len(x)],
    )
    monkeypatch.setattr(latent.trilemma, "load", lambda path: run)
    monkeypatch.setattr(latent.trilemma, "train", None)
    monkeypatch.setattr(latent, "feature_network", lambda *what: SimpleNamespace(name="means"))
    monkeypatch.setattr(latent, "extract", lambda network, x: x.double().mean(2).flatten(1))
    monkeypatch.setattr(sys, "argv", ["latent.py", "--run", "runs/codes", "--images", "220"])
    latent.main()
    assert "220 images, features means" in capsys.readouterr().out
    for name, row in (("failures", 0), ("reconstruction-failures", 1)):
        sheet = np.asarray(Image.open(tmp_path / f"{name}.png"))
        step = (sheet.shape[1] - 1) // 8
        assert sheet.shape == (4 * step + 1, 8 * step + 1)  # 16 pairs
        tile = sheet[1 + row * step : (row + 1) * step, 1:step]
        assert (tile == (0 if row else 255)).all()
