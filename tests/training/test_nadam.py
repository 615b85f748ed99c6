"""NAdam through the fused kernel of Adam equals NAdam as it is written."""

import copy

import torch

from trilemma.training.nadam import NAdam, momentum

STEPS = 40


def gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [(1 + step % 5) * torch.randn(shape, dtype=torch.float64, generator=generator) for shape in ((5, 3), (7,))]


def take(optimizer: torch.optim.Optimizer, weights: list[torch.Tensor], steps: range) -> None:
    for step in steps:
        for weight, gradient in zip(weights, gradients(step), strict=True):
            weight.grad = gradient
        optimizer.step()


def fresh() -> list[torch.Tensor]:
    return [g.clone().requires_grad_() for g in gradients(999)]


def by_hand(steps: int, lr: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> list[torch.Tensor]:
    """The equations of the paper, one weight after the other."""
    weights = [w.detach() for w in fresh()]
    means, squares = [torch.zeros_like(w) for w in weights], [torch.zeros_like(w) for w in weights]
    product = 1.0
    for t in range(1, steps + 1):
        product *= momentum(b1, t)
        a = momentum(b1, t + 1) / (1 - product * momentum(b1, t + 1))
        b = (1 - momentum(b1, t)) / (1 - product)
        for k, g in enumerate(gradients(t - 1)):
            means[k] = b1 * means[k] + (1 - b1) * g
            squares[k] = b2 * squares[k] + (1 - b2) * g**2
            weights[k] = weights[k] - lr * (a * means[k] + b * g) / ((squares[k] / (1 - b2**t)).sqrt() + eps)
    return weights


def test_equals_the_paper_and_torch() -> None:
    ours, theirs = fresh(), fresh()
    take(NAdam(ours, 0.01), ours, range(STEPS))
    take(torch.optim.NAdam(theirs, 0.01), theirs, range(STEPS))
    for one, other, hand in zip(ours, theirs, by_hand(STEPS, 0.01), strict=True):
        torch.testing.assert_close(one.detach(), hand, rtol=0, atol=1e-8)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8)
    start = torch.cat([w.flatten() for w in fresh()])
    assert (torch.cat([w.flatten() for w in ours]) - start).abs().min() > 1e-4  # they moved


def test_the_mean_is_the_mean_of_the_gradients() -> None:
    weights = fresh()
    optimizer = NAdam(weights, 0.01)
    take(optimizer, weights, range(STEPS))
    expected = sum(0.1 * 0.9 ** (STEPS - 1 - step) * gradients(step)[0] for step in range(STEPS))
    torch.testing.assert_close(optimizer.state[weights[0]]["exp_avg"], expected, rtol=1e-9, atol=1e-9)


def test_a_state_taken_back_goes_on_bit_for_bit() -> None:
    whole, parts = fresh(), fresh()
    take(NAdam(whole, 0.01), whole, range(STEPS))
    first = NAdam(parts, 0.01)
    take(first, parts, range(15))
    second = NAdam(parts, 0.01)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    take(second, parts, range(15, STEPS))
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


def test_a_parameter_without_a_gradient_stays() -> None:
    weights = fresh()
    weights[0].grad = torch.ones_like(weights[0])
    before = weights[1].detach().clone()
    NAdam(weights, 0.1).step()
    assert torch.equal(weights[1], before)
