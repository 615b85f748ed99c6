"""Consistency tuning: what holds at the edges, and in the limit of near noise levels."""

import math
import shutil
from dataclasses import replace

import pytest
import torch

import trilemma
from trilemma import rng
from trilemma.config import make
from trilemma.diffusion import few
from trilemma.diffusion.few import CALLS, NOISE_MEAN, NOISE_STD, T_MAX, FewConfig, FewKeys, FewSteps, noise_levels
from trilemma.diffusion.grids import times_of
from trilemma.diffusion.inversion import invert
from trilemma.diffusion.schedule import get_schedule
from trilemma.errors import UserError
from trilemma.gans.adversary import Adversary
from trilemma.registry import create
from trilemma.run.migration import migrated
from trilemma.tokeniser import BYTES, Tokeniser
from trilemma.types import UNCONDITIONAL, Batch, Condition, Inverts, Redraw, needs_caption

SHAPE = (1, 8, 8)
SMALL = {"width": 8, "multipliers": (1, 2), "depth": 1}


def images(n: int) -> torch.Tensor:
    return rng.uniform(torch.arange(n), SHAPE, 0, "images")


def tuned(gap: float | None = None, **settings: object) -> FewSteps:
    teacher = create("diffusion", shape=SHAPE, **SMALL, **settings)
    for parameter in teacher.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    keys = {} if gap is None else {"targets": "data", "gap": gap}
    return FewSteps(FewConfig(shape=SHAPE, **keys), {"init": teacher}).double()


class OfGaussian(torch.nn.Module):
    """The denoiser of images from N(0, std**2 I), for every pixel."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.variance = std**2

    def embed(self, condition: object, n: int) -> None:
        return None

    def denoise_at(self, x: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor, inputs: None) -> torch.Tensor:
        return x * (self.variance / (self.variance + sigma**2))[:, None, None, None]


def test_it_begins_as_the_model_that_is_tuned_and_its_state_has_no_other():
    teacher = create("diffusion", shape=SHAPE, **SMALL)
    model = FewSteps(FewConfig(shape=SHAPE), {"init": teacher.requires_grad_(False)})
    state = teacher.state_dict()
    assert model.state_dict().keys() == {f"student.{name}" for name in state}
    assert all(torch.equal(model.state_dict()[f"student.{name}"], value) for name, value in state.items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_f_without_noise_is_the_image():
    model, x = tuned(), images(3).double()
    given = model.student.embed(model_condition(), 3)
    assert torch.equal(model.f(x, torch.zeros(3, dtype=torch.float64), given), x)
    near = model.f(x, torch.full((3,), 1e-5, dtype=torch.float64), given)
    assert (near - x).abs().max() < 1e-3


def model_condition():
    from trilemma.types import UNCONDITIONAL

    return UNCONDITIONAL


def test_f_is_the_denoiser_of_what_it_was_made_of():
    model, x = tuned(), images(2).double()
    t = torch.tensor([0.3, 2.0], dtype=torch.float64)
    schedule = create("diffusion-edm", shape=SHAPE, **SMALL).schedule
    times = schedule.t_of(-2 * t.log())
    expected = model.student.denoiser(schedule, model_condition(), 2)(x, times)
    assert torch.allclose(model.f(x, t, model.student.embed(model_condition(), 2)).clamp(-1, 1), expected, atol=1e-6)


def test_the_earlier_level_is_a_share_of_t():
    model = tuned(gap=256.0)
    t = model.unit * torch.tensor([1e-3, 1.0, 80.0], dtype=torch.float64)
    shares = [1 - (1 + 8 / (1 + math.exp(u))) / 256 for u in (1e-3, 1.0, 80.0)]
    assert torch.allclose(model.earlier(t) / t, torch.tensor(shares, dtype=torch.float64), rtol=1e-9)
    assert tuned(gap=2.0).earlier(t)[0] == 0  # 5 / 2 of t below it


def test_levels_of_a_teachers_path_lead_from_pure_noise_to_an_image():
    model = tuned()
    t, steps = model.unit * torch.tensor([T_MAX], dtype=torch.float64), 0
    while t > 0:
        t, steps = model.earlier(t), steps + 1
    assert steps in (model.config.levels, model.config.levels + 1)  # the last may be a rounding away from 0
    drawn = model.draw_levels(1000, torch.Generator().manual_seed(0)) / model.unit
    assert drawn.min() < 1e-9 and 0.98 * T_MAX < drawn.max() <= T_MAX
    assert (drawn < T_MAX / 2**7).double().mean() == pytest.approx(0.5, abs=0.002)  # t**(1/7) is uniform


def test_a_step_along_the_path_of_a_gaussian_is_of_order_2():
    """x_r = x_t sqrt((s^2 + r^2) / (s^2 + t^2)), and an error of the third power of t - r in each step."""
    model, std, x = tuned(), 0.7, torch.randn(4, *SHAPE, dtype=torch.float64)
    model._teacher = [OfGaussian(std)]  # type: ignore[list-item]
    t, errors = torch.full((4,), 1.3, dtype=torch.float64), []
    for span in (0.1, 0.05):
        exact = x * math.sqrt((std**2 + (1.3 - span) ** 2) / (std**2 + 1.3**2))
        errors.append((model.along_path(x, t, t - span, model_condition()) - exact).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(3, abs=0.15)
    image = model.along_path(x, t, torch.zeros_like(t), model_condition())
    assert torch.allclose(image, x * std**2 / (std**2 + 1.3**2), rtol=1e-12)


def test_the_teacher_is_no_part_of_the_model_and_stays_as_it_is():
    model = tuned()
    (teacher,) = model._teacher
    before = [p.clone() for p in teacher.parameters()]
    loss, parts = model.loss(Batch(images(8).double()), torch.Generator().manual_seed(0))
    loss.backward()
    assert all(p.grad is None and torch.equal(p, old) for p, old in zip(teacher.parameters(), before, strict=True))
    assert loss.item() == pytest.approx(parts["distance"].item()) and loss > 0
    assert {id(p) for p in teacher.parameters()}.isdisjoint(id(p) for p in model.parameters())


def test_the_loss_tends_to_the_derivative_along_the_path():
    """|f_t - f_r| / (t - r) -> |df/dt| along x0 + t eps, with an error that falls as 1 / gap."""
    x, errors = images(16).double(), []
    for gap in (500.0, 1000.0):
        model = tuned(gap=gap)
        torch.manual_seed(0)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        distance, apart = model._distances(Batch(x), torch.Generator().manual_seed(3), 0.0)
        generator = torch.Generator().manual_seed(3)
        t, eps = model.draw_levels(16, generator), torch.randn(x.shape, generator=generator, dtype=x.dtype)
        inputs = model.student.embed(model_condition(), 16)

        def path(t: torch.Tensor, eps=eps, model=model, inputs=inputs) -> torch.Tensor:
            return model.f(2 * x - 1 + t[:, None, None, None] * eps, t, inputs)

        slope = (path(t + 1e-6) - path(t - 1e-6)) / 2e-6
        expected = model.unit * slope.square().flatten(1).mean(1).sqrt()
        errors.append(((distance / apart) / expected - 1)[t > 0.1].abs().max().item())
    assert errors[1] < 0.01 and errors[0] / errors[1] == pytest.approx(2, rel=0.2)


def test_with_r_0_the_target_is_the_image():
    """gap=1 + tiny: r = 0 everywhere, so the distance is that of plain regression on x0."""
    model, x = tuned(gap=1.0 + 1e-9), images(16).double()
    distance, apart = model._distances(Batch(x), torch.Generator().manual_seed(3), 0.0)
    assert (model.earlier(torch.tensor([0.1, 5.0, 79.0], dtype=torch.float64)) < 1e-6).all()
    generator = torch.Generator().manual_seed(3)
    from trilemma.diffusion.weighting import evenly_spread

    z = torch.special.ndtri(evenly_spread(16, generator))
    t = model.unit * (NOISE_MEAN + NOISE_STD * z).exp().clamp(max=T_MAX)
    eps = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    x0 = 2 * x - 1
    x0_hat = model.f(x0 + t[:, None, None, None] * eps, t, model.student.embed(model_condition(), 16))
    assert torch.allclose(distance, (x0_hat - x0).square().flatten(1).mean(1).sqrt(), rtol=1e-5)
    assert torch.allclose(apart, t / model.unit, rtol=1e-6)


def test_the_dropout_of_a_pair_is_the_same():
    """With r = t both are one function: any other mask would show."""
    model, generator = tuned(gap=256.0, dropout=0.5).train(), torch.Generator().manual_seed(0)
    rng.own_dropout(model, generator)  # as in a training
    model.earlier = lambda t: t  # type: ignore[method-assign]
    distance, _ = model._distances(Batch(images(8).double()), generator, 0.0)
    assert distance.max() < 1.1e-6  # the root of what keeps it from 0
    x, given = images(8).double(), model.student.embed(model_condition(), 8)
    one, other = (model.f(x, torch.ones(8, dtype=torch.float64), given) for _ in range(2))
    assert (one - other).abs().max() > 1e-3  # there is dropout


def test_levels_of_few_calls():
    assert noise_levels(1) == [T_MAX]
    two, four = noise_levels(2), noise_levels(4)
    assert two[1] == pytest.approx(math.exp(-1.1 + 2 * 0.4307272992954576))  # the quantile 2/3 of a normal
    assert four == sorted(four, reverse=True) and len(four) == 4


def test_other_levels_may_be_asked_for():
    keys = make(FewKeys, {"steps": 3, "call_levels": (4.7, 0.5)})
    assert keys.levels == [T_MAX, 4.7, 0.5] and FewKeys(steps=3).levels == noise_levels(3)
    model, x = tuned().float(), torch.zeros(2, *SHAPE)
    inputs = model.student.embed(UNCONDITIONAL, 2)
    for call, level in enumerate(keys.levels):  # by hand
        eps = rng.normal(torch.arange(2), SHAPE, 1, "few", call)
        x = model.f(x + model.unit * level * eps, torch.full((2,), model.unit * level, dtype=torch.float64), inputs)
    drawn = model.sample(2, seed=1, keys=keys)
    assert torch.allclose(drawn, ((x + 1) / 2).clamp(0, 1), atol=1e-5)
    assert (drawn - model.sample(2, seed=1, keys=FewKeys(steps=3))).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"call_levels": (1.0, 0.5)}, "call_levels=1,0.5: give 1 for steps=2, one for each call after the first, or s"),
        ({"steps": 3, "call_levels": (0.5, 1.0)}, "call_levels=0.5,1: give numbers that fall, below 80 and above 0"),
        ({"call_levels": (80.0,)}, "call_levels=80: give numbers that fall, below 80 and above 0"),
        ({"call_levels": (0.0,)}, "call_levels=0: give numbers that fall, below 80 and above 0"),
    ],
)
def test_levels_that_do_not_fit(keys: dict, text: str):
    with pytest.raises(UserError, match=text):
        make(FewKeys, keys)


def test_image_k_depends_on_its_own_number():
    model = tuned().float()
    for steps in (1, 2, 4):
        whole = model.sample(4, seed=2, keys=FewKeys(steps=steps))
        assert torch.allclose(model.sample(1, seed=2, first=3, keys=FewKeys(steps=steps)), whole[3:], atol=1e-5)
    assert (whole[0] - whole[1]).abs().max() > 1e-4


def test_a_model_that_was_trained_on_moved_images_is_tuned_on_images_as_they_are():
    teacher = create("diffusion", shape=SHAPE, augment_p=0.1, **SMALL)
    model = FewSteps(FewConfig(shape=SHAPE), {"init": teacher})
    model.loss(Batch(images(8)), torch.Generator().manual_seed(0))[0].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert torch.equal(model.student.network.first.weight, teacher.network.first.weight)


def test_classes_of_the_tuned_model_are_kept():
    teacher = create("diffusion", shape=SHAPE, classes=True, n_classes=4, **SMALL)
    model = FewSteps(FewConfig(shape=SHAPE), {"init": teacher})
    assert model.n_classes == 4 and model.sample(5, seed=0).shape == (5, *SHAPE)


def test_a_run_of_before_goes_on_by_the_data():
    before = {"format": 2, "model_config": {"shape": [1, 8, 8], "gap": 128.0}}
    assert migrated(before)["model_config"] == {"shape": [1, 8, 8], "gap": 128.0, "targets": "data"}
    now = {"format": 2, "model_config": {"shape": [1, 8, 8], "gap": 256.0, "targets": "teacher", "levels": 10.0}}
    assert migrated(now)["model_config"] == now["model_config"]


def test_a_model_that_is_loaded_to_draw_has_no_teacher():
    model = tuned()
    model.release()
    assert not model._teacher and model.float().sample(1, seed=0).shape == (1, *SHAPE)
    assert not tuned(gap=8.0)._teacher


def test_words_are_spelled_in_tuning_as_in_training(monkeypatch):
    settings = {**SMALL, "words": ("red", "circle"), "text_width": 32, "text_depth": 1}
    teacher = create("diffusion-text", shape=SHAPE, spelling_p=0.5, label_dropout=0.0, **settings)
    model = FewSteps(FewConfig(shape=SHAPE), {"init": teacher.requires_grad_(False)})
    seen, read = [], Tokeniser.pad
    monkeypatch.setattr(Tokeniser, "pad", lambda self, *given: seen.append(read(self, *given)) or seen[-1])
    batch = Batch(images(8).float(), Condition(caption=["red circle"] * 8))
    model.loss(batch, torch.Generator().manual_seed(0))
    model.validation(batch, torch.Generator().manual_seed(0))
    spelled = [any(0 < token <= BYTES for row in rows for token in row) for rows in seen]
    assert spelled == [True, False, False, False]  # of the student and its teacher: in training, and in validation


def test_a_model_that_was_always_told_a_caption_is_asked_for_one():
    settings = {**SMALL, "words": ("red", "circle"), "text_width": 32, "text_depth": 1, "label_dropout": 0.0}
    models = []
    for examples in ((), ("red circle",)):
        teacher = create("diffusion-text", shape=SHAPE, examples=examples, **settings)
        for parameter in teacher.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        models.append(FewSteps(FewConfig(shape=SHAPE), {"init": teacher}))
    bare, model = models
    assert needs_caption(model) and not needs_caption(tuned())
    by_example, plain = (
        model.sample(2, seed=0, condition=condition)
        for condition in (UNCONDITIONAL, Condition(caption=["red circle"] * 2))
    )
    assert torch.equal(by_example, plain)
    assert (model.sample(2, seed=0, condition=Condition(caption=["red"] * 2)) - plain).abs().max() > 1e-4
    for one, condition in ((bare, UNCONDITIONAL), (model, Condition(caption=["red", " "]))):
        with pytest.raises(UserError, match="so it knows no image without a caption; add caption=, or train it with"):
            one.sample(2, seed=0, condition=condition)


def with_critic(weight: float = 0.5, **settings: object) -> FewSteps:
    teacher = create("diffusion", shape=SHAPE, **SMALL, **settings)
    generator = torch.Generator().manual_seed(0)
    for parameter in teacher.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return FewSteps(FewConfig(shape=SHAPE, adversarial=weight, critic_width=4), {"init": teacher}, Adversary).double()


def silenced(model: FewSteps) -> FewSteps:
    """With a critic whose logits are 0."""
    for parameter in model.adversary.parameters():  # type: ignore[union-attr]
        torch.nn.init.zeros_(parameter)
    return model


def test_without_weight_there_is_no_critic_and_nothing_more_is_drawn():
    plain = tuned()
    given = FewSteps(plain.config, {"init": plain._teacher[0].float()}, Adversary)
    assert given.state_dict().keys() == plain.state_dict().keys() and given.adversary is None
    assert [(phase.name, phase.player.name) for phase in given.phases] == [("consistency", "consistency")]
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    batch = Batch(images(8))
    loss, parts = given.loss(batch, generators[0])
    distance, _ = given._distances(batch, generators[1], 0.0)
    assert torch.equal(loss, distance.mean()) and parts.keys() == {"distance"}
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


def test_the_critics_loss_is_added_with_its_weight():
    """A critic that knows nothing gives ln 2."""
    model, batch = silenced(with_critic(0.5)), Batch(images(8).double())
    loss, parts = model.loss(batch, torch.Generator().manual_seed(0))
    assert parts["adversarial"].item() == pytest.approx(math.log(2))
    assert loss.item() == pytest.approx(parts["distance"].item() + 0.5 * math.log(2))
    loss, parts = model.critic_loss(batch, torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(math.log(2)) and parts["penalty"] == 0


def test_the_critic_compares_at_the_noise_of_the_samplers_calls(monkeypatch):
    model, seen, f = with_critic(), [], FewSteps.f
    monkeypatch.setattr(FewSteps, "f", lambda self, x, t, inputs: seen.append((x, t)) or f(self, x, t, inputs))
    levels = [t for steps in CALLS for t in noise_levels(steps)]
    x = images(len(levels)).double()
    model.critic_loss(Batch(x), torch.Generator().manual_seed(0))
    ((noisy, t),) = seen
    assert torch.allclose(t.sort()[0], model.unit * torch.tensor(sorted(levels), dtype=torch.float64))  # each once
    eps = (noisy - (2 * x - 1)) / t[:, None, None, None]
    assert eps.std().item() == pytest.approx(1, abs=0.15)


def test_the_critic_sees_what_the_sampler_draws_in_one_call(monkeypatch):
    """From pure noise, where the image of the batch adds nothing."""
    model, judged = with_critic(), []
    x, noise = torch.full((3, *SHAPE), 0.5).double(), rng.normal(torch.arange(3), SHAPE, 4, "few", 0).double()
    with monkeypatch.context() as patch:
        patch.setattr(few, "CALLS", (1,))
        patch.setattr(Adversary, "critic_loss", lambda self, label, *, real, fake: judged.append((real, fake)))
        patch.setattr(torch, "randn", lambda *_, **__: noise)
        model.critic_loss(Batch(x), torch.Generator().manual_seed(0))  # x0 is 0
    ((real, fake),) = judged
    drawn = model.float().sample(3, seed=4, keys=FewKeys(steps=1))
    assert torch.equal(real, x) and drawn.std() > 1e-3
    assert torch.allclose(fake.clamp(0, 1).float(), drawn, atol=1e-5)


def test_each_player_moves_its_own_weights():
    model, batch = with_critic(classes=True, n_classes=3), Batch(images(6).double(), Condition(torch.arange(6) % 3))
    critic, consistency = model.phases
    assert (critic.player.name, critic.player.averaged, consistency.player.averaged) == ("critic", False, True)
    for phase, other in ((critic, consistency), (consistency, critic)):
        model.zero_grad()
        phase.loss(batch, torch.Generator().manual_seed(0))[0].backward()
        assert all(p.grad is not None for p in phase.player.parameters)
        assert all(p.grad is None for p in other.player.parameters)


def test_keys_without_an_effect_are_refused():
    for keys, text in (
        ({"gap": 8.0}, "gap=8 is for targets=data"),
        ({"targets": "data", "levels": 5.0}, "levels=5 is for"),
        ({"critic_width": 8}, "critic_width=8 is for adversarial= above 0"),
        ({"critic_lr": 0.01}, "critic_lr=0.01 is for adversarial= above 0"),
    ):
        with pytest.raises(UserError, match=text):
            make(FewConfig, {"shape": SHAPE, **keys})


def test_what_cannot_be_tuned_is_refused():
    for teacher in (create("vae", shape=SHAPE), create("diffusion-flow", shape=SHAPE, **SMALL)):
        with pytest.raises(UserError, match="the part init: consistency tuning begins with a diffusion model"):
            FewSteps(FewConfig(shape=SHAPE), {"init": teacher})


def test_a_model_that_is_given_an_image_is_not_tuned(tmp_path):
    for name, task in (("diffusion-upscale", "enlarges images"), ("diffusion-inpaint", "draws under a mask")):
        with pytest.raises(UserError, match=f"^the part init: a model that {task} is not tuned, .* a small steps=$"):
            FewSteps(FewConfig(shape=SHAPE), {"init": create(name, shape=SHAPE, **SMALL)})
        with pytest.raises(UserError, match=f"a model that {task} is not tuned"):
            trilemma.train("diffusion-few", "digits", init=name, quiet=True, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_images_of_other_classes_than_the_tuned_models_are_refused(tmp_path):
    keys = {**SMALL, "steps": 1, "batch": 8, "quiet": True, "device": "cpu"}
    teacher = trilemma.train("diffusion", "digits", classes=True, out=tmp_path / "teacher", **keys)
    data = trilemma.load_data("digits")
    lengths = {"steps": 1, "batch": 8, "quiet": True, "device": "cpu", "init": teacher.path}
    other = replace(data, classes=tuple(reversed(data.classes)))
    with pytest.raises(UserError, match=r"draws the classes 0, 1, .*; those of .* are 9, 8, .*: give images of the"):
        trilemma.train("diffusion-few", other, out=tmp_path / "other", **lengths)
    assert not (tmp_path / "other").exists()
    few = trilemma.train("diffusion-few", data, out=tmp_path / "few", **lengths)
    assert few.sample(2, label=3).shape == (2, 1, 8, 8)


@pytest.mark.slow
def test_a_run_does_without_its_teacher(tmp_path):
    keys = {"steps": 1, "batch": 8, "quiet": True, "device": "cpu"}
    teacher = trilemma.train("diffusion", "digits", out=tmp_path / "teacher", **SMALL, **keys)
    few = trilemma.train("diffusion-few", "digits", init=teacher.path, out=tmp_path / "few", **keys)
    drawn = few.sample(2, seed=1)
    shutil.rmtree(teacher.path)
    assert torch.equal(trilemma.load(few.path, device="cpu").sample(2, seed=1), drawn)


def with_f(model: FewSteps, monkeypatch, f) -> list:
    """The model with another f; what that is given: x and the noise levels of its calls."""
    seen: list = []
    monkeypatch.setattr(model, "f", lambda x, t, inputs: seen.append((x, t)) or f(x, t))
    return seen


def test_an_image_is_drawn_again_from_the_noise_of_its_strength_on():
    model = tuned()
    schedule = get_schedule("cosine")
    of_calls, alpha, sigma = (
        model.levels(FewKeys(steps=4)),
        *(float(part(0.4)) for part in (schedule.alpha, schedule.sigma)),
    )
    begin, *rest = model.levels_from(Redraw(0.4), FewKeys(steps=4))
    assert begin == pytest.approx(sigma / alpha) and rest == [level for level in of_calls if level < begin]
    assert len(rest) < 3 and model.levels_from(Redraw(1.0), FewKeys(steps=4)) == of_calls
    assert model.levels_from(Redraw(noise=0.1), FewKeys()) == [0.2]  # of images in [-1, 1]


def test_what_is_drawn_again_is_noisy_at_each_call(monkeypatch):
    """An f that knows the image gives it back, and is given it with the noise of the numbers asked for."""
    model, image = tuned().float(), images(2)
    x0 = 2 * image - 1
    seen = with_f(model, monkeypatch, lambda x, t: x0)
    result = model.redraw(image, Redraw(0.9), seed=3, first=5, keys=FewKeys(steps=4))
    torch.testing.assert_close(result, image, rtol=0, atol=1e-6)
    levels = model.levels_from(Redraw(0.9), FewKeys(steps=4))
    assert len(seen) == len(levels) > 1
    for call, ((x, t), level) in enumerate(zip(seen, levels, strict=True)):
        eps = rng.normal(torch.arange(5, 7), SHAPE, 3, "few", call)
        assert t.tolist() == [level] * 2
        torch.testing.assert_close(x, x0 + level * eps)
    assert torch.equal(model.redraw(image, Redraw(0.0), seed=3), image) and len(seen) == len(levels)


@pytest.mark.parametrize(("rounds", "calls"), [(None, 10), (1, 2), (3, 6)])
def test_outside_a_mask_the_image_is_known_at_each_call_and_stays(monkeypatch, rounds, calls):
    model, image, mask = tuned().float(), images(3), torch.zeros(3, *SHAPE)
    mask[..., :4] = 1
    seen = with_f(model, monkeypatch, lambda x, t: torch.full_like(x, 0.5))
    results, told, how = [], [], Redraw(mask=mask, rounds=rounds)
    for x in (image, torch.where(mask > 0, 1 - image, image)):  # nothing under the mask is seen
        on_step = lambda *at: told.append(at)  # noqa: E731
        results.append(model.redraw(x, how, seed=3, keys=FewKeys(steps=2), on_step=on_step))
    assert told == 2 * [(call, calls) for call in range(1, calls + 1)]
    assert len(seen) == 2 * calls and torch.equal(*results)
    torch.testing.assert_close(results[0], torch.where(mask > 0, 0.75, image), rtol=0, atol=1e-6)
    for call, (x, t) in enumerate(seen[:calls]):
        noise = t[0].item() * rng.normal(torch.arange(3), SHAPE, 3, "few", call)
        torch.testing.assert_close((x - noise)[..., 4:], (2 * image - 1)[..., 4:], rtol=0, atol=5e-5)


def test_noise_is_taken_out_in_one_call(monkeypatch):
    model, image = tuned().float(), images(2)
    seen = with_f(model, monkeypatch, lambda x, t: x / 2)
    result = model.redraw(image, Redraw(noise=0.1), seed=0)
    ((x, t),) = seen
    assert torch.equal(x, 2 * image - 1) and t.tolist() == [0.2, 0.2]
    torch.testing.assert_close(result, (x / 2 + 1) / 2)
    with pytest.raises(UserError, match="steps=4: the noise of an image is taken out in one call; leave steps out"):
        model.redraw(image, Redraw(noise=0.1), seed=0, keys=FewKeys(steps=4))
    assert not FewKeys().adds_noise
    with pytest.raises(UserError, match=r"images were given as .*takes \(B, 1, 8, 8\)"):
        model.redraw(image[..., 1:], Redraw(0.5), seed=0)


def test_codes_by_an_exact_f_would_have_half_of_the_noise():
    """Why there are none: of data N(0, s**2) the path of an image is x0 sqrt(1 + r**2 / s**2), and f of it x0. Along
    dy / dr = (y - f(y, r)) / r it becomes x0 (1 + sqrt(1 + r**2 / s**2)) / 2 instead."""
    schedule, std, x0 = get_schedule("edm"), 0.5, torch.ones(1, 1, 1, 1, dtype=torch.float64)
    times = times_of("log-snr", schedule, 400)
    x_T = invert(lambda x, t: x * std / (std**2 + schedule.sigma(t[0]) ** 2).sqrt(), schedule, times, x0)
    assert x_T.item() == pytest.approx((1 + math.hypot(std, T_MAX) / std) / 2, rel=1e-3)
    assert x_T.item() / T_MAX == pytest.approx(1 / std / 2, rel=0.01)  # x0 / std has a standard deviation of 1
    assert not isinstance(tuned(), Inverts)


def test_an_image_drawn_again_has_no_class_unless_one_is_asked_for():
    teacher = create("diffusion", shape=SHAPE, classes=True, n_classes=3, **SMALL)
    for parameter in teacher.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model, image = FewSteps(FewConfig(shape=SHAPE), {"init": teacher}), images(3)
    plain = model.redraw(image, Redraw(0.9), seed=0)
    asked = model.redraw(image, Redraw(0.9), seed=0, condition=Condition(torch.tensor([0, 0, 0])))
    assert (plain - asked).abs().max() > 1e-4 and model.student.network.training
    with pytest.raises(UserError, match="label 7 is not a class of this model"):
        model.redraw(image, Redraw(0.9), seed=0, condition=Condition(torch.tensor([0, 7, 0])))


def test_an_empty_caption_is_refused_where_none_was_learned():
    settings = {**SMALL, "words": ("red", "circle"), "text_width": 32, "text_depth": 1, "label_dropout": 0.0}
    model = FewSteps(FewConfig(shape=SHAPE), {"init": create("diffusion-text", shape=SHAPE, **settings)})
    for condition in (Condition(), Condition(caption=["red circle", ""])):
        with pytest.raises(UserError, match="so it knows no image without a caption; add caption="):
            model.redraw(images(2), Redraw(0.5), seed=0, condition=condition)
    assert model.redraw(images(2), Redraw(0.5), seed=0, condition=Condition(caption=["red"] * 2)).isfinite().all()
