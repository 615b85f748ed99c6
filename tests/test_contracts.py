"""What every registered model promises, checked on every one of them, on small images of several shapes."""

import copy
import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from presets import ALIKE, PLAIN, small
from torch import Tensor, nn

from trilemma import rng
from trilemma.config import make
from trilemma.data import load_data
from trilemma.errors import UserError
from trilemma.gans import codes
from trilemma.metrics import cost
from trilemma.registry import build, create, get_recipe, list_models
from trilemma.run.checkpoint import list_checkpoints
from trilemma.training import train
from trilemma.training.loop import Trainer
from trilemma.types import (
    UNCONDITIONAL,
    Batch,
    BoundsLikelihood,
    Condition,
    Conditional,
    Decodes,
    Encodes,
    Finishes,
    Inverts,
    Phase,
    ReadsCaptions,
    Reconstructs,
    Redraw,
    Redraws,
    Samples,
    Upscales,
    UsesCodeMap,
    Validates,
    WeighsCodes,
    codes_need,
)

SHAPES = [(1, 8, 8), (3, 12, 9)]  # the second: colour, not square, odd
MODELS = list_models()
CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, dict(small(name))) for name in MODELS}
CASES["diffusion-text"][1]["words"] = ("a", "two", "red", "blue", "circle")
CASES |= {
    f"{name}-classes": (name, {**small(name), "classes": True, "n_classes": 4})
    for name in ("diffusion", "diffusion-dit", "gan-dcgan", "gan-dcgan-28", "gan-r3", "gan-style")
}
CASES["diffusion-few-critic"] = ("diffusion-few", {"adversarial": 0.1, "critic_width": 8})


def batch_of(shape: tuple[int, int, int], n: int = 16, device: torch.device | str = "cpu") -> Batch:
    image, index = rng.uniform(torch.arange(n), shape, 0, "contract").to(device), torch.arange(n, device=device)
    return Batch(image, Condition(index % 4), index=index)


def batch_for(model: nn.Module, n: int = 16) -> Batch:
    batch = batch_of(model.config.shape, n, next(model.parameters()).device)
    if not isinstance(model, ReadsCaptions):
        return batch
    captions = [f"{('a', 'two')[k % 2]} {('red', 'blue', 'unknown')[k % 3]} circle" for k in range(n)]
    return replace(batch, condition=replace(batch.condition, caption=captions))


def noise_for(batch: Batch) -> torch.Generator:
    return torch.Generator(batch.image.device).manual_seed(7)


def loss_of(phase: Phase, batch: Batch) -> Tensor:
    """The phase's loss with the same random numbers each time."""
    with rng.isolated(7):
        return phase.loss(batch, noise_for(batch))[0]


SLOW = (*PLAIN, *ALIKE, "diffusion-few", "diffusion-text", "diffusion-latent", "gan-style")
MARKS = dict.fromkeys(SLOW, pytest.mark.slow)


def shaped(case: str, shape: tuple[int, int, int]) -> Any:
    """A case and a shape; of networks alike those of one preset, and the odd shape, are enough when quick."""
    twice = case in (*ALIKE, "diffusion-few-critic") or shape == SHAPES[0]
    marks = pytest.mark.slow if twice and (case, shape) != ("diffusion-inpaint", SHAPES[0]) else ()
    return pytest.param((case, shape), marks=marks, id=f"{case}-{'x'.join(map(str, shape))}")


@pytest.fixture(params=[shaped(*pair) for pair in itertools.product(CASES, SHAPES)])
def model(request: pytest.FixtureRequest, device: torch.device) -> nn.Module:
    case, shape = request.param
    name, settings = CASES[case]
    if name == "diffusion-upscale":
        shape = (shape[0], shape[1], 8)  # sides that its factor divides
    return create(name, shape=shape, seed=1, **settings).to(device)


def test_each_phase_lowers_its_loss_with_the_others_held_still(model: nn.Module) -> None:
    batch = batch_for(model)
    for phase in model.phases:
        held = {name: p.detach().clone() for name, p in model.named_parameters()}
        first = loss_of(phase, batch).item()
        optimizer = torch.optim.Adam(phase.player.parameters, 2e-3)
        for _ in range(30):
            optimizer.zero_grad()
            loss = loss_of(phase, batch)
            if lower := loss.item() < first - 0.01 * abs(first):
                break
            loss.backward()
            optimizer.step()
        assert lower
        own = {id(p) for p in phase.player.parameters}
        assert all(torch.equal(p, held[name]) for name, p in model.named_parameters() if id(p) not in own)


def test_every_parameter_belongs_to_one_player_and_gets_a_finite_gradient(model: nn.Module) -> None:
    batch = batch_for(model)
    owners = [id(p) for player in model.players for p in player.parameters]
    assert sorted(owners) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    for player in model.players:
        model.zero_grad()
        for phase in (phase for phase in model.phases if phase.player is player):  # which add up
            loss, parts = phase.loss(batch, noise_for(batch))
            loss.backward()
            assert loss.ndim == 0 and not any(part.requires_grad for part in parts.values())
            assert all(part.shape in ((), (2,)) for part in parts.values())  # a mean, or a sum and of how many
        assert all(p.grad is not None and p.grad.isfinite().all() for p in player.parameters)


def test_a_loss_draws_from_its_generator_alone(model: nn.Module) -> None:
    batch = batch_for(model)
    state = copy.deepcopy(model.state_dict())
    for phase in model.phases:
        losses = []
        for _ in range(2):
            model.load_state_dict(state)  # statistics may be taken in the loss
            losses.append(loss_of(phase, batch).item())
        assert losses[0] == losses[1]


def test_config_and_weights_rebuild_the_model(model: nn.Module) -> None:
    name = next(name for name, settings in CASES.values() if is_of(model, name, settings))
    other = build(get_recipe(name), type(model.config)(**model.config.to_json()), seed=99)
    prepare(model)
    other.load_state_dict(model.state_dict())
    if isinstance(model, Samples):
        assert torch.equal(draw(model, 3), draw(other, 3))


def is_of(model: nn.Module, name: str, settings: dict[str, Any]) -> bool:
    recipe, shape = get_recipe(name), model.config.shape
    if type(recipe.config) is not type(model.config) or (name == "diffusion-upscale" and shape[2] % 4):
        return False
    return recipe.config.with_(shape=shape, **settings) == model.config


def prepare(model: nn.Module) -> None:
    """What the trainer does before a model samples."""
    model.eval()
    if isinstance(model, Finishes):
        model.finish([batch_for(model, 64)], seed=0)


def draw(model: nn.Module, n: int, **where: int) -> Tensor:
    few = {"steps": 3} if "steps" in model.sampling_keys.model_fields else {}
    return model.sample(n, seed=5, **where, keys=make(model.sampling_keys, few))


def test_an_image_does_not_depend_on_the_batch_it_is_drawn_in(model: nn.Module) -> None:
    if not isinstance(model, Samples):
        pytest.skip("draws no samples")
    prepare(model)
    whole = draw(model, 7)
    assert whole.shape == (7, *model.config.shape) and whole.dtype == torch.float32
    assert whole.min() >= 0 and whole.max() <= 1
    parts = torch.cat([draw(model, 3), draw(model, 1, first=3), draw(model, 3, first=4)])
    assert (whole - parts).abs().max() <= 1 / 255
    assert (whole[0] - whole[1]).abs().max() > 1e-4


@pytest.mark.slow
def test_an_image_drawn_again_depends_on_its_own_number_and_stays_outside_a_mask(model: nn.Module) -> None:
    if not isinstance(model, Redraws):
        pytest.skip("draws no images again")
    prepare(model)
    image, keys = batch_for(model, 3).image, make(model.sampling_keys, {"steps": 2})
    assert torch.equal(model.redraw(image, Redraw(0.0), seed=5, keys=keys), image)
    mask = torch.zeros_like(image[:, :1])
    mask[..., : image.shape[3] // 2] = 1
    for area in (None, mask):
        if area is not None and isinstance(model, Upscales):  # which is shown the whole image
            continue
        strength, own = (0.7, None) if area is None else (1.0, area[2:])
        rounds = None if area is None or model.config.get("inpaint") else 1
        whole = model.redraw(image, Redraw(strength, area, rounds), seed=5, first=1, keys=keys)
        assert whole.shape == image.shape and whole.dtype == torch.float32 and whole.min() >= 0 and whole.max() <= 1
        alone = model.redraw(image[2:], Redraw(strength, own, rounds), seed=5, first=3, keys=keys)
        assert (whole[2:] - alone).abs().max() <= 1 / 255
        other = model.redraw(image[2:], Redraw(strength, own, rounds), seed=6, first=3, keys=keys)
        assert (alone - other).abs().max() > 1e-4
        if area is not None and not isinstance(model, UsesCodeMap):
            assert ((whole - image) * (1 - area)).abs().max() < 1e-5


def test_the_cost_of_an_image_is_measured(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    if not isinstance(model, Samples):
        pytest.skip("draws no samples")
    monkeypatch.setattr(cost, "LEAST_TURNS", 1)
    monkeypatch.setattr(cost, "BUDGET_S", 0.0)
    prepare(model)
    before = [p.requires_grad for p in model.parameters()]
    result = cost.cost_of_one(lambda first, n: draw(model, n, first=first), model, torch.device("cpu"))
    assert result.flops > 0 and result.ms > 0 and [p.requires_grad for p in model.parameters()] == before


def test_sampling_leaves_the_global_random_state_and_the_mode_alone(model: nn.Module) -> None:
    if not isinstance(model, Samples):
        pytest.skip("draws no samples")
    prepare(model)
    model.train()
    before = torch.get_rng_state()
    draw(model, 2)
    assert torch.equal(before, torch.get_rng_state()) and model.training


def test_capabilities_have_the_shapes_they_promise(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes, "STARTS", 8)
    batch = batch_for(model)
    condition = batch.condition if isinstance(model, Conditional) else UNCONDITIONAL
    if isinstance(model, Encodes):
        assert model.encode(batch.image, condition).ndim == 2
    if isinstance(model, Encodes) and isinstance(model, Decodes):
        assert model.decode(model.encode(batch.image, condition), condition).shape == batch.image.shape
    if isinstance(model, Reconstructs):
        assert model.reconstruct(batch.image, condition).shape == batch.image.shape
    if isinstance(model, BoundsLikelihood):
        for bound in (model.elbo, *([model.log_weight] if isinstance(model, WeighsCodes) else [])):
            values = bound(batch.image, noise_for(batch), condition)
            assert values.shape == (16,) and values.isfinite().all()
    if isinstance(model, Upscales):
        condition = Condition(image=batch.image[:, :, ::4, ::4])
    if isinstance(model, Inverts):
        z = model.invert(batch.image, condition, steps=3)
        assert z.shape == (16, model.code_length) and model.generate(z, condition).shape == batch.image.shape
    if isinstance(model, Validates):
        figures = model.validation(batch, noise_for(batch))
        sizes = {name: 2 if name == "bits_per_dim" else 16 for name in figures}  # that of every eighth image
        assert {name: values.shape for name, values in figures.items()} == {name: (n,) for name, n in sizes.items()}
        assert all(values.isfinite().all() for values in figures.values())


def test_labels_are_asked_for_where_they_are_needed_and_refused_elsewhere(model: nn.Module) -> None:
    batch = batch_for(model)
    conditional = isinstance(model, Conditional)
    wrong = (
        [UNCONDITIONAL, Condition(torch.full_like(batch.condition.label, 10**6))] if conditional else [batch.condition]
    )
    for condition in wrong:
        if isinstance(model, Encodes):
            with pytest.raises(UserError):
                model.encode(batch.image, condition)
        if isinstance(model, Reconstructs):
            with pytest.raises(UserError):
                model.reconstruct(batch.image, condition)
    if not conditional and isinstance(model, Samples):
        with pytest.raises(UserError):
            model.sample(2, seed=0, condition=batch.condition.rows(slice(2)))


def test_images_and_codes_of_other_shapes_are_refused(model: nn.Module) -> None:
    """Whatever the network could make of them: each error says what came and what is taken."""
    shape, batch = model.config.shape, batch_for(model)
    image, condition = batch.image, batch.condition if codes_need(model) else UNCONDITIONAL
    larger = image.new_zeros(16, shape[0], shape[1] + 2, shape[2] + 2)
    other = image.new_zeros(16, 4 - shape[0], *shape[1:])  # grey for a colour model, colour for a grey one
    takes = re.escape(f"takes (B, {', '.join(map(str, shape))})")
    for protocol, verb in ((Encodes, "encode"), (Reconstructs, "reconstruct")):
        if not isinstance(model, protocol):
            continue
        for wrong in (larger, other, larger[0], image.flatten(1)):
            with pytest.raises(
                UserError, match=rf"images were given as float32 {re.escape(str(tuple(wrong.shape)))}.*{takes}"
            ):
                getattr(model, verb)(wrong, condition)
        with pytest.raises(UserError, match=r"images were given as uint8 .*floats in \[0, 1\]"):
            getattr(model, verb)(image.byte(), condition)
    if isinstance(model, Encodes) and isinstance(model, Decodes):
        z = model.encode(image, condition)
        assert z.shape == (16, model.code_length)
        for wrong in (z[:, 1:], torch.cat([z, z], 1), z[0], z[None], z.long()):
            with pytest.raises(UserError, match=rf"codes were given as .*takes floats \(B, {model.code_length}\)"):
                model.decode(wrong, condition)


@pytest.mark.parametrize("name", ["vae", "vae-vq"])
def test_labels_that_are_no_labels_are_refused(name: str) -> None:
    """Of both kinds of conditional model: the codes of one need the labels, those of the other take no notice."""
    model = create(name, shape=SHAPES[0], seed=1, conditional=True, n_classes=4).eval()
    assert isinstance(model, Conditional) and codes_need(model) == (("label",) if name == "vae" else ())
    image, right = batch_of(SHAPES[0], 4).image, torch.arange(4)
    z = model.encode(image, Condition(right))
    if not codes_need(model):
        assert torch.equal(model.encode(image), z) and torch.equal(model.encode(image, Condition(right.flip(0))), z)
        assert torch.equal(model.reconstruct(image), model.decode(z))
    for labels, message in (
        (right[:3], "3 labels were given for 4"),
        (right.repeat(2), "8 labels were given for 4"),
        (right + 0.5, r"labels were given as float32 \(4,\); give an int64 tensor"),
        (right > 1, r"labels were given as bool \(4,\)"),
        (right[:, None], r"labels were given as int64 \(4, 1\)"),
        ([0, 1, 2, 3], "labels were given as list"),
        (right + 1, "label 4 is not a class of this model; choose from 0 to 3"),
    ):
        calls = [(model.encode, image), (model.decode, z), (model.reconstruct, image)]
        for call, value in calls:
            with pytest.raises(UserError, match=message):
                call(value, Condition(labels))
        with pytest.raises(UserError, match=message):
            model.sample(4, seed=0, condition=Condition(labels))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *(pytest.param(name, {}, marks=MARKS.get(name, [])) for name in MODELS),
        pytest.param("diffusion", {"classes": True}, marks=pytest.mark.slow),
        pytest.param("diffusion", {"augment_p": 0.5}, marks=pytest.mark.slow),
        pytest.param("ae-kl", {"adversarial": 0.1}, marks=pytest.mark.slow),
        pytest.param("ae-kl", {"adversarial": 0.1, "steps": 8}, marks=pytest.mark.slow),
        pytest.param("vae-vq", {"steps": 8}, marks=pytest.mark.slow),
        pytest.param("ae-kl", {"portable": True}, marks=pytest.mark.slow),
        pytest.param("diffusion-few", {"adversarial": 0.1, "critic_width": 8}, marks=pytest.mark.slow),
        pytest.param("diffusion-few", {"targets": "data"}, marks=pytest.mark.slow),
        pytest.param("diffusion-few", {"init": {"dropout": 0.3}}, marks=pytest.mark.slow),
        ("gan", {"critic_augment": "adaptive"}),
    ],
    ids=str,
)
def test_stopped_and_resumed_equals_unbroken_bit_for_bit(
    name: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two of four steps; after six of eight in the last stage, which begins at a share of the training."""
    keys = {"batch": 16, "steps": 4, "seed": 3, "quiet": True, **small(name), **settings}
    steps, at = keys["steps"], {4: 2, 8: 6}[keys["steps"]]
    for part, recipe in get_recipe(name).parts.items():
        own = {"batch": 16, "steps": 2, "quiet": True, **small(recipe), **settings.get(part, {})}
        run = train(recipe, "digits", out=tmp_path / part, **own)
        keys[part] = run.path
    data = load_data("shapes:64", size=8) if name == "diffusion-text" else "digits"
    whole = train(name, data, out=tmp_path / "whole", **keys)
    late = [phase.begin for phase in whole.model.phases if phase.begin > 0]
    assert steps == 4 or (late and max(late) <= (at - 1) / steps)
    steps_taken = []
    one_step = Trainer.take_step

    def stop_early(trainer: Trainer) -> None:
        one_step(trainer)
        steps_taken.append(trainer.calendar.step)
        if len(steps_taken) == at:
            trainer.signals.stop = 2

    monkeypatch.setattr(Trainer, "take_step", stop_early)
    with pytest.raises(KeyboardInterrupt, match="the state is saved"):
        train(name, data, out=tmp_path / "parts", **keys)
    parts = train(name, data, out=tmp_path / "parts", **keys)
    assert steps_taken == list(range(1, steps + 1))
    for one, other in zip(files(whole.path), files(parts.path), strict=True):
        assert one.name == other.name and one.read_bytes() == other.read_bytes()
    assert copy.deepcopy(whole.model.state_dict()).keys() == parts.model.state_dict().keys()


def files(run: Path) -> list[Path]:
    """The weights to use, and every tensor of the last full state."""
    state = list_checkpoints(run / "checkpoints")[-1]
    return [run / "weights.safetensors", *sorted(state.glob("*.safetensors"))]
