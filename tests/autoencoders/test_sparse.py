"""Sparsity: the penalties in closed form, what the loss makes of them, and a mean activation that is met."""

from pathlib import Path

import pytest
import torch
from torch.distributions import Bernoulli, kl_divergence

from trilemma.autoencoders.penalties import kl_penalty, l1_penalty, l2_penalty
from trilemma.registry import create
from trilemma.training import train
from trilemma.types import Batch


def test_kl_penalty_equals_torch_distributions() -> None:
    q, p = torch.linspace(0.01, 0.99, 99, dtype=torch.float64), 0.1
    expected = kl_divergence(Bernoulli(torch.tensor(p, dtype=torch.float64)), Bernoulli(q))
    assert (kl_penalty(q, p) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("penalty", [kl_penalty, l1_penalty, l2_penalty])
def test_a_penalty_is_0_at_its_target_and_grows_from_it(penalty) -> None:
    q, p = torch.tensor([0.0, 0.02, 0.1, 0.3, 0.7, 1.0], dtype=torch.float64), 0.1
    values = penalty(q, p)
    assert abs(float(values[2])) < 1e-12
    assert values[0] > values[1] > values[2] < values[3] < values[4] < values[5]
    assert values.isfinite().all()


def test_l1_and_l2_are_distances() -> None:
    q = torch.tensor([0.3, 0.05], dtype=torch.float64)
    assert l1_penalty(q, 0.1).tolist() == pytest.approx([0.2, 0.05])
    assert l2_penalty(q, 0.1).tolist() == pytest.approx([0.04, 0.0025])


def test_the_loss_adds_the_penalty_of_each_unit_on_means_over_the_batch() -> None:
    model, image = (
        create("ae-sparse", shape=(1, 4, 4), latent=6, sparsity=0.02, sparsity_target=0.2),
        torch.rand(9, 1, 4, 4),
    )
    loss, parts = model.loss(Batch(image), torch.Generator())
    z = model.encode(image)
    kl = sum(float(kl_divergence(Bernoulli(0.2), Bernoulli(z[:, j].mean().detach()))) for j in range(6))
    assert float(parts["sparsity_kl_nats"]) == pytest.approx(kl, rel=1e-4)
    assert float(loss.detach()) == pytest.approx(float(parts["mse"]) + 0.02 * kl, rel=1e-4)
    values = model.validation(Batch(image), torch.Generator())
    assert torch.allclose(values["mean_activation"], z.mean(1))


def test_only_a_sparse_autoencoder_needs_whole_batches() -> None:
    assert create("ae-sparse", shape=(1, 4, 4)).batch_statistics
    assert not create("ae-sparse", shape=(1, 4, 4), sparsity=0.0).batch_statistics


@pytest.mark.slow
def test_training_meets_the_target_and_nothing_else_would(tmp_path: Path) -> None:
    mean = {}
    for weight in (0.0, 1e-3):
        keys = {"sparsity": weight, "components": 1}  # a mixture of 10 takes longer to fit than the training
        run = train("ae-sparse", "digits", epochs=6, **keys, out=tmp_path / str(weight), quiet=True)
        mean[weight] = run.summary["valid_mean_activation"]
    assert abs(mean[1e-3] - 0.10) < 0.01 < abs(mean[0.0] - 0.10)


def test_samples_decode_codes_of_a_sigmoid(monkeypatch: pytest.MonkeyPatch) -> None:
    model = create("ae-sparse", shape=(1, 4, 4), latent=6).eval()
    model.prior.means += 0.5
    model.prior.factors *= 3  # codes far outside [0, 1]
    seen = []
    model.decoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.sample(20, seed=0)
    assert seen[0].min() == 0 and seen[0].max() == 1
