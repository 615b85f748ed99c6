"""Verbs of a run by a pipeline in its place: edit, upscale, interpolate."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from trilemma import again, compare, edit, evaluate, imagine, interpolate, upscale
from trilemma.cli.main import main
from trilemma.errors import UserError
from trilemma.explore.interpolation import FINER
from trilemma.interpolation import spherical
from trilemma.pictures.png import read_metadata, save_png
from trilemma.pretrained.embeddings import between_embeddings, between_noise

ANCESTRAL = "EulerAncestralDiscreteScheduler"  # which adds noise of its own


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def pixels_of(path):
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


@pytest.mark.slow
def test_an_edit_under_a_mask_is_what_imagine_draws_and_keeps_the_rest(tiny, photo):
    keys = {"steps": 2, "mask": "8,16,40,48", "seed": 3, "first": 5}
    result = edit(f"pipeline:{tiny}", photo, caption="a cat", n=2, **keys)
    assert result.picture.name == "edit-photo-mask.png"
    assert [path.name for path in result.files] == ["edit-photo-mask-5.png", "edit-photo-mask-6.png"]
    drawn = imagine("a cat", model=tiny, image=photo, n=2, out="o.png", **keys)
    assert torch.equal(result.images, drawn.images)
    outside = result.mask.expand(2, 3, -1, -1) == 0
    assert outside.sum() == 2 * 3 * (64 * 64 - 32 * 32)
    assert torch.equal(result.images[outside], result.source.expand(2, -1, -1, -1)[outside])
    assert (result.images - result.source)[~outside].abs().max() > 0.05
    entry = read_metadata(result.picture)
    assert (entry["verb"], entry["prompts"], entry["folder"]) == ("edit", ["a cat"], str(tiny))
    assert set(entry["files"]) == {path.name for path in result.files}
    assert again(result.files[1]).equal and again(result.picture).equal


def test_an_edit_by_strength_on_the_command_line(tiny, photo, capsys):
    words = ["edit", f"pipeline:{tiny}", "photo.png", "caption=a cat", "strength=0.5", "steps=2", "n=1"]
    assert main(words) == 0
    assert "edit-photo-strength-0.5.png" in capsys.readouterr().out
    assert main([*words, "towards=cat"]) == 2
    assert "edit with a pipeline does not take towards=; it takes" in capsys.readouterr().err


LINES = {  # of a verb with the folder of a pipeline, where a run may stand
    "edit": ("tiny", "photo.png", "caption=a cat", "strength=0.5", "steps=2", "n=1"),
    "interpolate": ("tiny", "a cat", "a dog", "frames=2", "steps=1", "animate=false"),
    "upscale": ("upscaling", "photo.png", "caption=a cat", "steps=1"),
}


@pytest.mark.slow
@pytest.mark.parametrize("verb", LINES)
def test_texts_of_a_command_line_stay_as_they_are_typed(verb, folder_of, photo):
    kind, *words = LINES[verb]
    texts = {"negative": "blurred, dark", "scheduler": "EulerDiscreteScheduler"}
    typed = [f"{key}={text}" for key, text in texts.items()]
    assert main([verb, f"pipeline:{folder_of(kind)}", *words, *typed, "out=o.png"]) == 0
    entry = read_metadata("o.png")
    assert entry["verb"] == verb and {key: entry[key] for key in texts} == texts
    assert entry["drawn_by"]["scheduler"] == texts["scheduler"]


def test_what_an_edit_needs_and_does_not_take_is_said_before_anything_is_loaded(tiny, photo, monkeypatch):
    monkeypatch.setattr("trilemma.explore.by_pipeline.load_pipeline", None)
    name = f"pipeline:{tiny}"
    with pytest.raises(UserError, match="needs caption="):
        edit(name, photo, strength=0.5)
    with pytest.raises(UserError, match=r"give strength=, mask= or both"):
        edit(name, photo, caption="a cat")
    refused = {"noise": 0.1, "rounds": 2, "animate": True, "label": "cat", "data": "digits", "shift": 2}
    for key, value in refused.items():
        with pytest.raises(UserError, match=f"does not take {key}="):
            edit(name, photo, caption="a cat", strength=0.5, **{key: value})
    with pytest.raises(UserError, match="give an image file"):
        edit(name, 7, caption="a cat", strength=0.5)
    with pytest.raises(UserError, match="guidance"):
        edit(name, photo, caption="a cat", strength=0.5, guidance=-1)
    with pytest.raises(UserError, match='unknown model "nothing"'):
        edit("pipeline:nothing", photo, caption="a cat", strength=0.5)


@pytest.mark.slow
def test_a_checkpoint_of_inpainting_edits_under_a_mask_and_does_nothing_else(folder_of, photo, monkeypatch):
    name, keys = f"pipeline:{folder_of('inpainting')}", {"caption": "a cat", "steps": 2, "n": 1}
    result = edit(name, photo, mask="8,16,40,48", out="e.png", **keys)
    outside = result.mask.expand(1, 3, -1, -1) == 0
    assert torch.equal(result.images[outside], result.source[outside])
    assert (result.images - result.source)[~outside].abs().max() > 0.05
    assert again(result.picture).equal
    with pytest.raises(UserError, match="draws under a mask alone; give image= and mask="):
        edit(name, photo, strength=0.5, **keys)
    monkeypatch.setattr("trilemma.pretrained.pipeline.check_memory", None)  # which looks at the weights
    with pytest.raises(UserError, match="draws under a mask alone; interpolate takes pipelines that draw images from"):
        interpolate(name, "a cat", "a dog")
    for measure in (evaluate, compare):
        with pytest.raises(UserError, match="draws under a mask alone; evaluate takes pipelines that draw images from"):
            measure(name, against="digits", n=12, prompt="a cat")


def test_an_image_is_enlarged_by_a_pipeline_that_does_so(folder_of, photo):
    Image.open(photo).crop((0, 0, 24, 16)).save(photo)
    result = upscale(f"pipeline:{folder_of('upscaling')}", photo, caption="a cat", steps=2, n=2, out="u.png")
    assert result.small.shape == (1, 3, 16, 24) and result.images.shape == (2, 3, 32, 48)
    expected = F.interpolate(result.small, scale_factor=2, mode="bicubic").clamp(0, 1)
    assert torch.equal(result.bicubic, expected)
    assert (result.images[0] - result.images[1]).abs().max() > 0.01
    assert read_metadata(result.picture)["verb"] == "upscale"
    assert again(result.files[1]).equal


def test_other_pipelines_do_not_enlarge(tiny, photo):
    with pytest.raises(UserError, match=r"StableDiffusionPipeline\) does not enlarge images"):
        upscale(f"pipeline:{tiny}", photo, caption="a cat")
    with pytest.raises(UserError, match="upscale with a pipeline does not take label="):
        upscale(f"pipeline:{tiny}", photo, label="cat")


@pytest.mark.slow
def test_the_ends_of_a_way_are_what_imagine_draws_of_both_prompts(tiny):
    keys = {"steps": 2, "seed": 4, "guidance": 3, "negative": "blue"}
    result = interpolate(f"pipeline:{tiny}", "a cat", "two dogs", frames=3, film="webp", **keys)
    (way,) = result.frames.values()
    ends = [imagine(text, model=tiny, first=k, **keys).images[0] for k, text in enumerate(("a cat", "two dogs"))]
    torch.testing.assert_close(way[0], ends[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(way[2], ends[1], rtol=0, atol=1e-4)
    assert (ends[0] - ends[1]).abs().max() > 0.01 and (way[1] - way[0]).abs().max() > 0.01
    with Image.open(result.animation) as film:
        assert film.n_frames == 2 * 2 * FINER  # there and back, both ends once
    entry = read_metadata(result.picture)
    assert (entry["verb"], entry["prompts"], entry["frames"]) == ("interpolate", ["a cat", "two dogs"], 3)


@pytest.mark.slow
def test_the_pictures_of_verbs_are_made_again(tiny, folder_of, photo):
    way = interpolate(f"pipeline:{tiny}", "a cat", "two dogs", frames=3, steps=2, seed=4, scheduler=ANCESTRAL)
    assert again(way.picture).equal  # of 3 images, where 9 were drawn for the animation
    still = interpolate(f"pipeline:{tiny}", "a cat", "a dog", frames=2, steps=1, size=32, animate=False, out="i.png")
    assert again(still.picture).equal
    Image.open(photo).crop((0, 0, 24, 16)).save(photo)
    large = upscale(f"pipeline:{folder_of('upscaling')}", photo, caption="a cat", steps=2, n=2, first=3, out="u.png")
    assert again(large.picture).equal
    photo.write_bytes(b"other")
    with pytest.raises(UserError, match="made from files that are not here, or have changed since"):
        again(large.picture)


@pytest.mark.parametrize(
    ("verb", "changes", "words"),
    [
        ("interpolate", {"frames": 1}, "frames=1 how=spherical is not a way between prompts"),
        ("interpolate", {"frames": 10**9}, "is not a way between prompts"),
        ("interpolate", {"frames": None}, "frames=None"),
        ("interpolate", {"how": "linear"}, "how=linear is not a way"),
        ("interpolate", {"prompts": ["a cat"]}, "a way leads from one prompt to another, and it names 1"),
        ("interpolate", {"frames": 400}, "too few for the images that it says it shows"),
        ("edit", {"image": None, "strength": None}, "does not say how it was made as `edit` does: it names no image"),
        ("edit", {"n": 10**9}, "does not say how it was made as `edit` does"),
        (
            "detect",
            {},
            "was made by `trilemma detect`; only what `sample` and `imagine` draw, or a pipeline in another",
        ),
    ],
)
def test_a_strangers_picture_of_a_verb_is_bounded(verb, changes, words, tmp_path):
    receipt = {"format": 1, "verb": verb, "pipeline": "StableDiffusionPipeline", "folder": str(tmp_path), "seed": 0}
    receipt |= {"prompts": ["a cat", "a dog"], "frames": 3, "how": "spherical"} if verb == "interpolate" else {
        "prompts": ["a cat"], "image": str(tmp_path / "photo.png"), "strength": 0.5, "n": 1,
    }  # fmt: skip
    save_png(torch.zeros(3, 32, 64), "stranger.png", receipt | changes)
    with pytest.raises(UserError, match=words):
        again("stranger.png")


def test_half_way_between_vectors_of_one_norm_the_norm_stays():
    """Noise as one vector, embeddings token by token."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 1, 4, 8, 8, generator=generator)
    b *= a.norm() / b.norm()
    half = between_noise(a, b, 0.5)
    assert half.norm().item() == pytest.approx(a.norm().item(), rel=1e-5)
    cosine = torch.dot(half.flatten(), a.flatten()) / half.norm() ** 2
    angle = torch.acos(torch.dot(a.flatten(), b.flatten()) / a.norm() ** 2)
    assert cosine.item() == pytest.approx(torch.cos(angle / 2).item(), rel=1e-4)
    tokens = {"prompt_embeds": torch.randn(1, 5, 8, generator=generator)}
    others = {"prompt_embeds": torch.randn(1, 5, 8, generator=generator)}
    between = between_embeddings(tokens, others, 0.25)["prompt_embeds"]
    one = spherical(*(x["prompt_embeds"][0, 3].double() for x in (tokens, others)), torch.tensor([0.25]).double())
    torch.testing.assert_close(between[0, 3], one[0].float())


def test_a_way_takes_two_texts_and_the_keys_of_a_pipeline(tiny, folder_of, photo):
    name = f"pipeline:{tiny}"
    with pytest.raises(UserError, match="interpolate with a pipeline does not take space="):
        interpolate(name, "a cat", "a dog", space="w")
    with pytest.raises(UserError, match="give two texts"):
        interpolate(name, "a cat", 3)
    with pytest.raises(UserError, match="how=linear"):
        interpolate(name, "a cat", "a dog", how="linear")
