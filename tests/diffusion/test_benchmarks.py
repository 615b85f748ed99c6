"""The scripts that measure diffusion, second part: what they count, and what they say of their bars; no training of
theirs is run."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

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
        name for name, is_right in zip(names, captions.right(seen, expected)[0], strict=True) if not is_right
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
