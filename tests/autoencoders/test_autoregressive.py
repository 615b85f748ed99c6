"""The density over sequences of categories: it is causal, sums to 1, draws by its own law and learns a known one."""

import math

import pytest
import torch
from torch import Tensor

from trilemma.autoencoders.priors import AutoregressivePrior, pick
from trilemma.nets.autoregressive import HEAD, CausalTransformer


def network(categories: int = 5, length: int = 6) -> CausalTransformer:
    """In float64, with weights large enough to matter."""
    torch.manual_seed(0)
    net = CausalTransformer(categories, length, width=2 * HEAD, depth=2).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return net


def prior(categories: int, length: int) -> AutoregressivePrior:
    model = AutoregressivePrior(categories, length, width=HEAD, depth=1)
    model.network = network(categories, length)
    return model


def all_sequences(categories: int, length: int) -> Tensor:
    return torch.cartesian_prod(*[torch.arange(categories)] * length).view(-1, length)


@torch.no_grad()
def test_a_place_sees_what_is_before_it_and_nothing_else() -> None:
    net, codes = network(), torch.tensor([[3, 1, 4, 1, 0, 2]])
    logits = net(codes)
    for place in range(6):
        other = codes.clone()
        other[0, place] = 2 if codes[0, place] != 2 else 3
        moved = (net(other) - logits).abs().amax(2)[0]
        assert (moved[:place] == 0).all() and (moved[place:] > 1e-6).all()


@torch.no_grad()
def test_place_by_place_with_a_memory_equals_all_at_once() -> None:
    net, codes = network(), torch.randint(5, (7, 6), generator=torch.Generator().manual_seed(0))
    memory: list = []
    steps = torch.cat([net(codes[:, place : place + 1], memory) for place in range(6)], dim=1)
    assert (steps - net(codes)).abs().max() < 1e-12
    assert len(memory) == 2 and memory[0][0].shape == (7, 2, 6, HEAD)


@torch.no_grad()
def test_probabilities_of_all_sequences_sum_to_one() -> None:
    nats = prior(3, 5).nats(all_sequences(3, 5))
    assert nats.shape == (3**5,)
    assert abs(float((-nats).exp().sum()) - 1) < 1e-12
    assert nats.std() > 0.1


@torch.no_grad()
def test_each_class_has_a_law_of_its_own() -> None:
    torch.manual_seed(0)
    model = AutoregressivePrior(3, 4, width=HEAD, depth=1, n_classes=2).double()
    for parameter in model.parameters():
        parameter.add_(0.15 * torch.randn_like(parameter))
    codes = all_sequences(3, 4)
    nats = [model.nats(codes, torch.full((3**4,), label)) for label in (0, 1)]
    assert all(abs(float((-each).exp().sum()) - 1) < 1e-12 for each in nats)
    assert (nats[0] - nats[1]).abs().max() > 0.1


@pytest.mark.slow
@torch.no_grad()
def test_sequences_are_drawn_by_their_probability() -> None:
    model, n = prior(3, 3), 30_000
    drawn = model.sample(torch.arange(n), seed=0)
    counts = (drawn @ torch.tensor([9, 3, 1])).bincount(minlength=27)
    expected = (-model.nats(all_sequences(3, 3))).exp()
    error = (expected * (1 - expected) / n).sqrt()
    assert ((counts / n - expected).abs() < 4.5 * error).all()
    assert ((counts / n - expected.flip(0)).abs() > 4.5 * error).any()


@torch.no_grad()
def test_a_temperature_sharpens_each_choice() -> None:
    model, n = prior(4, 1), 30_000
    p = (-model.nats(torch.arange(4)[:, None])).exp()
    shares = model.sample(torch.arange(n), seed=1, temperature=0.5).flatten().bincount(minlength=4) / n
    expected = p.square() / p.square().sum()
    assert ((shares - expected).abs() < 4.5 * (expected * (1 - expected) / n).sqrt()).all()
    assert (model.sample(torch.arange(50), seed=1, temperature=0.0) == p.argmax()).all()


def test_a_sequence_depends_on_its_number_alone() -> None:
    model = AutoregressivePrior(16, 9, width=HEAD, depth=2)
    whole = model.sample(torch.arange(40), seed=3)
    assert torch.equal(whole[17:], torch.cat([model.sample(torch.arange(k, k + 1), seed=3) for k in range(17, 40)]))
    assert not torch.equal(whole, model.sample(torch.arange(40), seed=4))
    assert whole.shape == (40, 9) and whole.dtype == torch.int64 and whole.min() >= 0 and whole.max() < 16


@pytest.mark.parametrize(("u", "expected"), [(0.0, 1), (0.2499, 1), (0.25, 2), (0.7499, 2), (0.75, 4), (1 - 2**-24, 4)])
def test_pick_inverts_the_distribution_function(u: float, expected: int) -> None:
    probabilities = torch.tensor([[0.0, 0.25, 0.5, 0.0, 0.25, 0.0]], dtype=torch.float64)
    assert int(pick(probabilities.log(), torch.tensor([u], dtype=torch.float64))) == expected


@pytest.mark.slow
def test_learns_a_law_whose_entropy_is_known() -> None:
    """Sequences k, k, j, j, ...: each second place is certain, so the entropy is half of L ln K."""
    model = AutoregressivePrior(4, 6, width=2 * HEAD, depth=2)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(250):
        loss = model.nats(sequences(64, generator)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        reached = float(model.nats(sequences(4000, generator)).mean())
    entropy = 3 * math.log(4)
    assert entropy - 0.01 < reached < 1.03 * entropy
    drawn = model.sample(torch.arange(500), seed=0).view(500, 3, 2)
    assert (drawn[..., 0] == drawn[..., 1]).float().mean() > 0.97


def sequences(n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(4, (n, 3), generator=generator).repeat_interleave(2, dim=1)
