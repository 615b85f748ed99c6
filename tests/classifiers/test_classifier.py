"""The classifier behind the feature networks."""

import pytest
import torch

from trilemma.classifiers.classifier import Classifier, ClassifierConfig
from trilemma.errors import UserError
from trilemma.registry import FAMILIES, create, get_recipe, list_models
from trilemma.types import Batch, Condition, Samples, Validates

RECIPES = ["features-digits", "features-mnist", "features-fashion-mnist", "features-cifar10"]


def generator():
    return torch.Generator().manual_seed(0)


def batch_of(shape, n=6):
    return Batch(torch.rand(n, *shape, generator=generator()), Condition(torch.arange(n) % 10))


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (4, 9, 33), (1, 1, 1), (3, 128, 50)])
def test_any_shape(shape):
    torch.manual_seed(0)
    model = Classifier(ClassifierConfig(shape=shape, widths=(4, 8, 12, 16))).eval()
    batch = batch_of(shape)
    assert model.features(batch.image).shape == (6, 16)
    assert model.logits(batch.image).shape == (6, 10)
    with pytest.raises(ValueError, match="takes images of shape"):
        model.features(batch.image[..., :-1] if shape[2] > 1 else batch.image.repeat(1, 1, 1, 2))


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name):
    recipe = get_recipe(name)
    assert name not in list_models()
    assert recipe.family not in FAMILIES
    model = create(name)
    assert sum(v.numel() * v.element_size() for v in model.state_dict().values()) < 2_000_000
    assert recipe.config.widths[-1] <= 128
    assert not isinstance(model, Samples)
    assert isinstance(model, Validates)


def test_loss_is_the_mean_cross_entropy():
    model = create("features-digits").eval()
    batch = batch_of((1, 8, 8))
    loss, parts = model.loss(batch, generator())
    logits = model.logits(batch.image).double()
    expected = (logits.logsumexp(1) - logits[torch.arange(6), batch.condition.label]).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert parts["cross_entropy"].item() == loss.item()
    assert not parts["cross_entropy"].requires_grad
    assert parts["accuracy"].item() == pytest.approx((logits.argmax(1) == batch.condition.label).double().mean().item())
    values = model.validation(batch, generator())
    assert values["error"].shape == values["cross_entropy"].shape == (6,)
    assert values["cross_entropy"].mean().item() == pytest.approx(loss.item(), rel=1e-5)
    assert 1 - values["error"].mean().item() == pytest.approx(parts["accuracy"].item())


def test_every_parameter_learns():
    model = create("features-digits")
    batch = batch_of((1, 8, 8))
    (phase,) = model.phases
    optimizer = torch.optim.AdamW(phase.player.parameters, 0.003)
    first = phase.loss(batch, generator())[0].item()
    for _ in range(10):
        loss, _ = phase.loss(batch, generator())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert loss.item() < first / 2


def test_labels_are_needed():
    with pytest.raises(UserError, match="no labels"):
        create("features-digits").loss(Batch(torch.rand(2, 1, 8, 8)), generator())
    with pytest.raises(UserError, match="widths"):
        create("features-digits", widths=())
