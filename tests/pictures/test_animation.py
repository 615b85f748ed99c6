"""Animations in each format: as many pictures as there are, each for its time."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trilemma
from trilemma.errors import UserError
from trilemma.pictures.animation import FRAMES_PER_SECOND, animated, check_film


def pictures(n: int) -> list[Image.Image]:
    return [Image.fromarray(np.full((11, 17, 3), 20 * k + 10, dtype=np.uint8)) for k in range(n)]


@pytest.mark.parametrize("film", ["gif", "webp"])
def test_each_picture_has_its_time(film: str) -> None:
    times = [600, 60, 60, 600]
    with Image.open(io.BytesIO(animated(pictures(4), times, film))) as image:  # type: ignore[arg-type]
        assert image.format == film.upper() and image.n_frames == 4
        shown = []
        for k in range(4):
            image.seek(k)
            image.load()
            shown.append(image.info["duration"])
            assert abs(int(np.asarray(image.convert("RGB"))[5, 8, 0]) - (20 * k + 10)) <= 1
    assert shown == times


@pytest.mark.slow
def test_an_mp4_film_has_whole_frames_and_even_sides() -> None:
    av = pytest.importorskip("av")
    content = animated(pictures(3), [400, 80, 1], "mp4")
    with av.open(io.BytesIO(content)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == round(0.4 * FRAMES_PER_SECOND) + round(0.08 * FRAMES_PER_SECOND) + 1
    assert frames[0].shape == (10, 16, 3)
    levels = [float(frames[k].mean()) for k in (0, 10, -1)]
    assert np.allclose(levels, [10, 30, 50], atol=4)


def test_a_format_without_its_package_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(UserError, match=r"^film=mp4 needs the package av: .*video.*; or take gif or webp$"):
        check_film("mp4")
    check_film("webp")
    check_film("gif", animate=False)
    for film in ("webp", "mp4"):
        with pytest.raises(
            UserError, match=f"^film={film} is the format of an animation; give animate=true, or leave film="
        ):
            check_film(film, animate=False)


@pytest.mark.slow
def test_verbs_write_the_format_that_is_asked_for(tmp_path: Path) -> None:
    keys = {"width": 8, "multipliers": (1, 2), "batch": 16, "steps": 2, "quiet": True, "device": "cpu"}
    run = trilemma.train("diffusion", "digits", out=tmp_path / "run", **keys)
    result = trilemma.denoise(run, steps=3, film="webp", out=tmp_path / "d.png")
    assert result.animation == tmp_path / "d.webp" and Image.open(tmp_path / "d.webp").n_frames > 1
    trilemma.edit(run, 0, strength=0.5, steps=2, n=2, animate=True, film="webp", out=tmp_path / "e.png")
    assert Image.open(tmp_path / "e.webp").n_frames > 1
    with pytest.raises(UserError, match="give strength=, and no mask="):
        trilemma.edit(run, 0, mask="0,0,4,8", animate=True, out=tmp_path / "m.png")
    with pytest.raises(UserError, match="animate= is for images that are drawn again"):
        trilemma.edit(run, 0, towards=1, animate=True, out=tmp_path / "t.png")
