"""What a run draws: image k depends on (seed, k) alone, memory is bounded by the batch, errors say what to do."""

import json
import random
import shutil
import weakref

import numpy as np
import pytest
import torch
from presets import ALIKE, PLAIN, small

import trilemma
from trilemma import rng
from trilemma.data import load_data
from trilemma.diffusion import path
from trilemma.errors import UserError
from trilemma.gans import codes as gan_codes
from trilemma.registry import get_recipe, list_models
from trilemma.run.compute import EXACT_BATCH
from trilemma.run.run import Run, load
from trilemma.types import (
    UNCONDITIONAL,
    Coder,
    Condition,
    Conditional,
    Decodes,
    Encodes,
    Inverts,
    Reconstructs,
    Samples,
    Upscales,
    codes_need,
    keys_of,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


LONG = [*PLAIN, "diffusion-text", *(name for name in list_models() if get_recipe(name).parts)]  # to train, or plain
MODELS = [
    pytest.param(name, marks=pytest.mark.slow if name in LONG else []) for name in list_models() if name not in ALIKE
]


@pytest.fixture(scope="module", params=MODELS)
def run(request, folder):
    """Each model, trained for a few steps, in a run that is not at its start any more."""
    return trained(request.param, folder)


@pytest.fixture
def vae(folder):
    return load(trained("vae", folder).path)  # a fresh object: tests change its model


def trained(name, folder):
    data = load_data("shapes:64", size=8, channels=1) if name == "diffusion-text" else "digits"
    short = {"steps": 4, "batch": 16}
    parts = {part: {**short, **small(recipe)} for part, recipe in get_recipe(name).parts.items()}
    return trilemma.train(name, data, out=folder / name, device="cpu", quiet=True, **short, **small(name), **parts)


def few(run):
    """Settings for few calls, of a model that draws samples."""
    if not isinstance(run.model, Samples):
        pytest.skip("draws no samples")
    return {"steps": 2} if "steps" in keys_of(run.model).model_fields else {}


# --- image k depends on (seed, k) alone -----------------------------------------------------------------------------


@pytest.mark.slow
def test_batches_of_1_7_and_64_give_the_same_images_from_bit_equal_noise(run, monkeypatch):
    drawn = {}
    for name in ("normal", "uniform"):

        def recorded(ids, shape, seed, purpose, *position, draw=getattr(rng, name), name=name):
            numbers = draw(ids, shape, seed, purpose, *position)
            drawn[batch] |= {(name, seed, purpose, *position, int(k)): row for k, row in zip(ids, numbers, strict=True)}
            return numbers

        monkeypatch.setattr(rng, name, recorded)
    images = {}
    for n, batch in ((64, 64), (64, 7), (10, 1)):
        drawn[batch] = {}
        images[batch] = run.sample(n, seed=3, batch=batch, **few(run))
    assert len(drawn[64]) >= 64
    for batch in (1, 7):
        whole, n = drawn[64], len(images[batch])
        assert drawn[batch].keys() == {(*which, k) for *which, k in whole if k < n}
        assert all(torch.equal(row, whole[key]) for key, row in drawn[batch].items())
        assert (images[batch] - images[64][:n]).abs().max() <= 1 / 255
    assert (images[64][0] - images[64][1]).abs().max() > 1e-3  # they are not all one image


def test_exact_is_bit_equal_whatever_n_first_and_batch_are(run):
    start = EXACT_BATCH - 3
    whole = run.sample(start + 8, seed=3, exact=True, **few(run))
    for n, first, batch in [(1, start, 1), (8, start, 7), (5, start + 2, 64)]:
        part = run.sample(n, seed=3, first=first, batch=batch, exact=True, **few(run))
        assert torch.equal(part, whole[first:][:n])
    assert (whole - run.sample(start + 8, seed=3, **few(run))).abs().max() <= 1 / 255


def test_exact_computes_batches_of_one_shape_in_fixed_places(vae, monkeypatch):
    computed = record_batches(vae, monkeypatch)
    first = 2 * EXACT_BATCH - 1
    vae.sample(2, first=first, batch=5, exact=True)
    assert computed == [(EXACT_BATCH, EXACT_BATCH), (2 * EXACT_BATCH, EXACT_BATCH)]
    assert [(p.first, len(p.images), p.batch) for p in vae.draw(2, first=first, exact=True)] == [
        (first, 1, (EXACT_BATCH, EXACT_BATCH)),
        (first + 1, 1, (2 * EXACT_BATCH, EXACT_BATCH)),
    ]


def test_another_seed_gives_other_images(run):
    one, other = (run.sample(2, seed=seed, **few(run)) for seed in (0, 1))
    assert (one - other).abs().max() > 1e-3


def test_global_random_states_are_untouched(run):
    def states():
        return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()

    before = states()
    load(run.path).sample(3, exact=True, **few(run))
    assert states() == before


def test_cudnn_is_left_as_it_was(vae, monkeypatch):
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "benchmark", True)
    seen = []
    monkeypatch.setattr(vae.model, "sample", lambda n, **_: seen.append(cudnn.benchmark) or torch.zeros(n, 1, 8, 8))
    vae.sample(1)
    assert seen == [False] and cudnn.benchmark


# --- memory ---------------------------------------------------------------------------------------------------------


def record_batches(run, monkeypatch):
    """The (first, size) of every batch that the model computes from now on."""
    computed, compute = [], run.model.sample

    def sample(n: int, *, seed: int, first: int = 0, condition=UNCONDITIONAL, **keys):
        computed.append((first, n))
        return compute(n, seed=seed, first=first, condition=condition, **keys)

    monkeypatch.setattr(run.model, "sample", sample)
    return computed


def test_ten_thousand_images_hold_one_batch_at_a_time(vae, monkeypatch):
    arrays = []

    def sample(n: int, **_):
        assert sum(array() is not None for array in arrays) <= 1  # the part that was drawn before
        array = np.zeros((n, 1, 8, 8), np.float32)
        arrays.append(weakref.ref(array))
        return torch.from_numpy(array)  # the tensor's memory is the array's

    monkeypatch.setattr(vae.model, "sample", sample)
    images = vae.sample(10_000, batch=256)
    assert images.shape == (10_000, 1, 8, 8)
    assert len(arrays) == -(-10_000 // 256)


def test_out_of_memory_halves_the_batch_and_keeps_the_images(vae, monkeypatch):
    whole = vae.sample(50)
    computed, compute = [], vae.model.sample

    def sample(n: int, *, first: int = 0, **keys):
        if n > 10:
            raise torch.OutOfMemoryError("planted")
        computed.append((first, n))
        return compute(n, first=first, **keys)

    monkeypatch.setattr(vae.model, "sample", sample)
    with pytest.warns(RuntimeWarning, match="out of memory: continuing with batches of") as warned:
        images = vae.sample(50, batch=25)
    assert (images - whole).abs().max() <= 1 / 255
    assert computed == [(first, min(6, 50 - first)) for first in range(0, 50, 6)]
    assert [str(w.message).split()[-1] for w in warned] == ["12", "6"]  # halved twice, and it stays so
    with pytest.raises(UserError, match="exact=true computes 64 images"):
        vae.sample(1, exact=True)


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [{"n": 0}, {"batch": 0}, {"first": -1}])
def test_numbers_that_make_no_sense(vae, keys):
    with pytest.raises(UserError, match="at least 1"):
        vae.sample(**keys)


def test_unknown_settings_name_the_nearest(vae):
    for key, hint in (("temperatur", "temperature"), ("exakt", "exact"), ("frist", "first")):
        with pytest.raises(UserError, match=f'did you mean "{hint}"'):
            vae.sample(1, **{key: 1})


def test_nan_is_an_error_and_no_black_image(vae, monkeypatch):
    with pytest.raises(UserError, match="temperature=nan: give a finite number"):
        vae.sample(4, temperature=float("nan"))
    with monkeypatch.context() as patch:
        patch.setattr(vae.model, "sample", lambda n, **_: torch.full((n, 1, 8, 8), torch.nan))
        with pytest.raises(UserError, match=r"4 of 4 images of .* hold NaN.*the first is number 2.*weights are finite"):
            vae.sample(4, first=2)
    with torch.no_grad():
        for parameter in vae.model.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(UserError, match=r"their weights do, too: .*lower lr="):
        vae.sample(4)


def test_nan_in_an_image_that_was_not_asked_for_is_none_of_it(vae, monkeypatch):
    images = torch.zeros(EXACT_BATCH, 1, 8, 8)
    images[5, 0, 3, 3] = torch.inf
    monkeypatch.setattr(vae.model, "sample", lambda n, *, first=0, **_: images[first:][:n])
    vae.sample(5, exact=True)
    with pytest.raises(UserError, match=r"1 of 1 images of .*number 5"):
        vae.sample(1, first=5, exact=True)


def test_a_label_that_the_model_does_not_take(run):
    if isinstance(run.model, Samples) and not isinstance(run.model, Conditional):
        with pytest.raises(UserError, match=f"{run.recipe.name} does not take a class: it was trained without labels"):
            run.sample(1, label=3)


def test_labels_by_name_and_number(vae, monkeypatch):
    """A model that takes a class gets its index for every image of the batch."""
    seen = []

    def sample(n: int, *, condition=None, **_):
        seen.append(condition.label)
        return torch.zeros(n, 1, 8, 8)

    monkeypatch.setattr(vae.model, "n_classes", 3, raising=False)
    monkeypatch.setattr(vae.model, "sample", sample)
    vae.config["classes"] = ["cat", "dog", "7"]
    for label, index in (("dog", 1), (2, 2), ("0", 0), ("7", 2)):
        vae.sample(2, label=label)
        assert seen[-1].tolist() == [index, index]
    for wrong in ("dgo", 3, -1):
        with pytest.raises(UserError, match=f'unknown label "{wrong}"; choose one of cat, dog, 7'):
            vae.sample(1, label=wrong)
    vae.config["classes"] = ["1", "2", "3"]
    vae.sample(2, label=1)
    assert seen[-1].tolist() == [0, 0]
    with pytest.raises(UserError, match='unknown label "0"; choose one of 1, 2, 3'):
        vae.sample(1, label=0)
    vae.config["classes"] = []
    with pytest.raises(UserError, match="has no classes"):
        vae.sample(1, label="cat")


def test_a_model_that_draws_nothing(vae):
    vae.model = torch.nn.Linear(1, 1)
    with pytest.raises(UserError, match="vae does not draw samples"):
        vae.sample(1)


# --- codes and reconstructions --------------------------------------------------------------------------------------


def held_out(run, n):
    part = run.data.held_out[1]
    return part.images[:n].float() / 255, part.labels[:n]


@pytest.mark.slow
def test_codes_and_reconstructions_are_those_of_the_model_in_any_batch(run, monkeypatch):
    monkeypatch.setattr(path, "CODE_STEPS", 6)  # of a model that inverts
    monkeypatch.setattr(gan_codes, "STEPS", 6)
    monkeypatch.setattr(gan_codes, "STARTS", 8)
    if isinstance(run.model, Upscales):
        pytest.skip("draws images from smaller ones, too, which codes do not hold")
    images, labels = held_out(run, 7)
    label = labels if codes_need(run.model) else None
    with torch.no_grad():
        searches = isinstance(run.model, Inverts) and not isinstance(run.model, Encodes)
        model = Coder(run.model) if searches else run.model
        for verb, protocol in (("encode", Encodes), ("reconstruct", Reconstructs)):
            if not isinstance(model, protocol):
                with pytest.raises(UserError, match=rf"{run.recipe.name} does not {verb}.*models that do: .*vae"):
                    getattr(run, verb)(images)
                continue
            expected = getattr(model, verb)(images, Condition(label))
            for batch in (3, 256):
                result = getattr(run, verb)(images, label, batch=batch)
                torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
                assert not result.requires_grad and result.dtype == torch.float32 and result.device.type == "cpu"
        if not isinstance(model, Decodes):
            with pytest.raises(UserError, match=f"{run.recipe.name} does not decode.*models that do: .*vae"):
                run.decode(torch.zeros(2, 3))
        elif isinstance(model, Encodes):
            codes = run.encode(images, label)
            expected = model.decode(codes, Condition(label))
            torch.testing.assert_close(run.decode(codes.double(), label, batch=2), expected, rtol=1e-4, atol=1e-4)
            with pytest.raises(UserError, match="codes were given as float32"):
                run.decode(codes[:, 1:], label)


def test_a_model_with_an_encoder_encodes_by_it_also_where_it_inverts(vae, monkeypatch):
    monkeypatch.setattr(vae.model, "invert", lambda image, condition: image.flatten(1) + 1, raising=False)
    monkeypatch.setattr(vae.model, "generate", lambda z, condition: z, raising=False)
    monkeypatch.setattr(vae.model, "encode", lambda image, condition: image.flatten(1) + 2)
    assert isinstance(vae.model, Inverts) and vae.encode(torch.zeros(1, 1, 8, 8)).eq(2).all()


def test_labels_of_codes_by_name_number_and_one_for_each(vae, monkeypatch):
    seen = []

    def encode(image, condition=None):
        seen.append(condition.label.tolist())
        return image.flatten(1)

    monkeypatch.setattr(vae.model, "n_classes", 3, raising=False)
    monkeypatch.setattr(vae.model, "encode", encode)
    vae.config["classes"] = ["cat", "dog", "7"]
    images = torch.zeros(3, 1, 8, 8)
    for label, expected in (("dog", [1, 1, 1]), (2, [2, 2, 2]), ("7", [2, 2, 2]), (torch.tensor([0, 2, 1]), [0, 2, 1])):
        vae.encode(images, label, batch=2)
        assert seen == [expected[:2], expected[2:]]
        seen.clear()
    for label, message in (
        (None, "needs the class of each image or code; give label=, or images with classes"),
        ("dgo", 'unknown label "dgo"; choose one of cat, dog, 7'),
        (torch.tensor([0, 1]), "2 labels were given for 3"),
        (torch.tensor([0, 1, 3]), "label 3 is not a class of this model; choose from 0 to 2"),
        (torch.tensor([0.0, 1, 2]), "labels were given as float32"),
    ):
        with pytest.raises(UserError, match=message):
            vae.encode(images, label)
    assert not seen


def test_what_a_run_does_not_encode_or_decode(vae):
    images = torch.zeros(2, 1, 8, 8)
    for call, message in (
        (lambda: vae.encode(images[0]), r"images were given as float32 \(1, 8, 8\)"),
        (lambda: vae.reconstruct(torch.zeros(2, 1, 10, 10)), "images were given as"),
        (lambda: vae.decode(torch.zeros(300)), r"codes were given as float32 \(300,\)"),
        (lambda: vae.encode(images[:0]), "0 given"),
        (lambda: vae.encode(images, batch=0), "batch=0"),
        (lambda: vae.encode(images, label=1), "vae does not take a class: it was trained without labels"),
        (lambda: vae.encode(images, label=torch.tensor([1, 1])), "was trained without labels"),
        (lambda: vae.encode(images / 0), "2 of 2 codes of .* hold NaN or infinite .*so does what was given"),
    ):
        with pytest.raises(UserError, match=message):
            call()
    with torch.no_grad():
        next(vae.model.encoder.parameters()).fill_(torch.nan)
    with pytest.raises(UserError, match=r"images of .* hold NaN or infinite .*; train again with a lower lr="):
        vae.reconstruct(images)


def test_codes_in_smaller_batches_where_memory_runs_out(vae, monkeypatch):
    sizes, encode = [], vae.model.encode

    def scarce(image, condition=None):
        sizes.append(len(image))
        if len(image) > 4:
            raise torch.OutOfMemoryError
        return encode(image, condition)

    images, _ = held_out(vae, 10)
    expected = vae.encode(images)
    monkeypatch.setattr(vae.model, "encode", scarce)
    with pytest.warns(RuntimeWarning, match="batches of 4"):
        codes = vae.encode(images, batch=8)
    assert sizes == [8, 4, 4, 2]
    torch.testing.assert_close(codes, expected, rtol=1e-4, atol=1e-5)


# --- the folder -----------------------------------------------------------------------------------------------------


def test_folders_that_are_no_run(vae, tmp_path):
    with pytest.raises(UserError, match=r"run .* not found"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"it has no config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**vae.config, "format": 99}))
    with pytest.raises(UserError, match="has format 99"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(vae.config))
    with pytest.raises(
        UserError,
        match=r"not finished: it has neither weights\.safetensors nor .*Resume with: trilemma train vae .* out=",
    ):
        load(tmp_path).sample(1)
    (tmp_path / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="is not a weights file"):
        load(tmp_path).sample(1)


def test_a_moved_run_is_the_same_run(vae, tmp_path):
    shutil.copytree(vae.path, tmp_path / "moved")
    moved = Run(tmp_path / "moved")
    assert moved.name == "moved" and moved.weights_id == vae.weights_id
    assert torch.equal(moved.sample(3), vae.sample(3))


@pytest.mark.parametrize("verb", ["reconstruct", "sample", "compress", "detect", "latent_map", "traverse", "augment"])
def test_what_is_no_run_is_refused_in_a_sentence(verb):
    with pytest.raises(UserError, match=r"^run=5: give a run or a path$"):
        getattr(trilemma, verb)(5)
    with pytest.raises(UserError, match=r"^what=5: give a run, a path, an array or tensor of images, or loaded data$"):
        trilemma.compare([5])
