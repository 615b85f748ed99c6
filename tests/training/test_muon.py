"""Muon moves matrices along their orthogonal factor, all else as AdamW does."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from trilemma.run.config import TrainConfig
from trilemma.training.muon import COEFFICIENTS, REPEATS, Muon, orthogonal
from trilemma.training.optim import make_optimizer
from trilemma.training.state import first_entries, flatten_optimizer
from trilemma.types import Player

LR = 0.01


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def p_five_times(x: torch.Tensor) -> torch.Tensor:
    """The polynomial of singular values."""
    a, b, c = COEFFICIENTS
    for _ in range(REPEATS):
        x = a * x + b * x**3 + c * x**5
    return x


def stepped(weight: torch.Tensor, gradients: list[torch.Tensor], **keys: float) -> torch.Tensor:
    parameter = nn.Parameter(weight.clone())
    optimizer = Muon([parameter], LR, (0.9, 0.99), **keys)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize("shape", [(9, 40), (40, 9), (12, 12)])
def test_singular_values_go_through_the_polynomial_and_vectors_stay(shape: tuple[int, int]) -> None:
    x = noise(*shape)
    u, values, v = torch.linalg.svd(x, full_matrices=False)
    expected = u @ torch.diag(p_five_times(values / values.norm())) @ v
    torch.testing.assert_close(orthogonal([x])[0], expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(orthogonal([1e-6 * x.float()])[0], expected.float(), rtol=0, atol=1e-4)


def test_matrices_of_all_shapes_at_once_are_as_one_by_one() -> None:
    matrices = [noise(*shape, seed=k) for k, shape in enumerate([(8, 9), (9, 8), (20, 8), (8, 8), (20, 30)])]
    for together, matrix in zip(orthogonal(matrices), matrices, strict=True):
        torch.testing.assert_close(together, orthogonal([matrix])[0], rtol=0, atol=1e-12)


class AllRows:
    """Rows of the only process, which has all; `most` whole matrices were there at a time."""

    def __init__(self) -> None:
        self.whole: list[StorageWeakRef] = []
        self.most = 0

    def shape_of(self, weight: torch.Tensor) -> torch.Size:
        return weight.shape

    def joined(self, weight: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        whole = rows.clone()
        self.whole.append(StorageWeakRef(whole.untyped_storage()))
        self.most = max(self.most, sum(not matrix.expired() for matrix in self.whole))
        return whole

    def own_rows(self, whole: torch.Tensor) -> torch.Tensor:
        return whole


def test_of_weights_that_are_divided_one_matrix_is_whole_at_a_time() -> None:
    shapes, rows, results = [(8, 9), (20, 8), (8, 4, 3, 3), (8, 9), (5,)], AllRows(), []
    for divided in (None, rows):
        weights = [nn.Parameter(noise(*shape, seed=k)) for k, shape in enumerate(shapes)]
        for k, weight in enumerate(weights):
            weight.grad = noise(*weight.shape, seed=10 + k)
        Muon(weights, LR, rows=divided).step()
        results.append(weights)
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)
    assert len(rows.whole) == 4 and rows.most == 1


def test_singular_values_above_a_thousandth_of_the_norm_come_near_1() -> None:
    values = p_five_times(torch.logspace(-3, 0, 2000, dtype=torch.float64))
    assert 0.3 < values.min() < 0.7 and 1.1 < values.max() < 1.21
    assert (values[666:] > 0.65).all()  # from a hundredth on
    assert p_five_times(torch.zeros(1)) == 0 and orthogonal([torch.zeros(8, 8)])[0].abs().max() == 0


def test_a_step_is_orthogonal_and_has_the_size_of_one_of_adam() -> None:
    weight, gradient = noise(16, 64, seed=1), noise(16, 64, seed=2)
    step = (weight - stepped(weight, [gradient])) / LR
    torch.testing.assert_close(step, 0.2 * 8 * orthogonal([gradient])[0], rtol=0, atol=1e-9)  # sqrt(64) = 8
    assert 0.7 * 0.2 < step.square().mean().sqrt() < 1.2 * 0.2
    torch.testing.assert_close(weight - stepped(weight, [1000 * gradient]), LR * step, rtol=0, atol=1e-9)


def test_the_second_step_follows_the_mean_of_gradients() -> None:
    weight, first, second = noise(8, 8), noise(8, 8, seed=1), noise(8, 8, seed=2)
    mean = 0.9 * 0.1 * first + 0.1 * second
    moved = stepped(weight, [first]) - stepped(weight, [first, second])
    ahead = orthogonal([0.9 * mean + 0.1 * second])[0]
    torch.testing.assert_close(moved, LR * 0.2 * math.sqrt(8) * ahead, rtol=0, atol=1e-9)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_is_the_matrix_of_its_outputs_in_any_layout(layout: torch.memory_format) -> None:
    weight, gradient = noise(8, 4, 3, 3), noise(8, 4, 3, 3, seed=1)
    flat = stepped(weight.flatten(1), [gradient.flatten(1)])
    moved = stepped(weight.to(memory_format=layout), [gradient.to(memory_format=layout)])
    torch.testing.assert_close(moved.flatten(1), flat, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(30,), (1, 40), (7, 40), (40, 7), (7, 2, 3, 3), ()])
def test_what_is_no_matrix_moves_as_adamw_has_it(shape: tuple[int, ...]) -> None:
    gradients = [noise(*shape, seed=seed) for seed in range(5)]
    other = nn.Parameter(noise(*shape, seed=9))
    adamw = torch.optim.AdamW([other], LR, (0.9, 0.99), weight_decay=0.1)
    moved = stepped(other.detach(), gradients, weight_decay=0.1)
    for gradient in gradients:
        other.grad = gradient
        adamw.step()
    torch.testing.assert_close(moved, other.detach(), rtol=0, atol=1e-8)


def test_weight_decay_is_apart_from_the_gradient() -> None:
    weight, gradient = noise(8, 9), noise(8, 9, seed=1)
    decayed = stepped(weight, [gradient], weight_decay=0.5)
    torch.testing.assert_close(decayed, stepped(weight, [gradient]) - LR * 0.5 * weight, rtol=0, atol=1e-12)


def test_a_state_taken_back_goes_on_bit_for_bit() -> None:
    def weights() -> list[nn.Parameter]:
        return [nn.Parameter(noise(8, 9).float()), nn.Parameter(noise(5).float())]

    def take(optimizer: Muon, moved: list[nn.Parameter], steps: range) -> None:
        for step in steps:
            for weight in moved:
                weight.grad = noise(*weight.shape, seed=step).float()
            optimizer.step()

    whole, parts = weights(), weights()
    take(Muon(whole, LR), whole, range(7))
    first = Muon(parts, LR)
    take(first, parts, range(3))
    second = Muon(parts, LR)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    take(second, parts, range(3, 7))
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


def test_a_parameter_without_a_gradient_stays() -> None:
    weights = [nn.Parameter(noise(8, 9)), nn.Parameter(noise(8, 9)), nn.Parameter(noise(5))]
    weights[0].grad = noise(8, 9, seed=1)
    Muon(weights, LR).step()
    assert torch.equal(weights[1], noise(8, 9)) and torch.equal(weights[2], noise(5))
    assert not torch.equal(weights[0], noise(8, 9))


def test_the_form_of_the_state_is_known_before_the_first_step() -> None:
    player = Player("toy", [nn.Parameter(torch.randn(8, 3, 3, 3)), nn.Parameter(torch.randn(8))])
    config = TrainConfig(steps=1, optimizer="muon")
    optimizer = make_optimizer(player, config)
    assert isinstance(optimizer, Muon)
    for parameter in player.parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    form, state = first_entries(player, config), flatten_optimizer(optimizer)
    assert {name: (entry.shape, entry.dtype) for name, entry in form.items()} == {
        name: (entry.shape, entry.dtype) for name, entry in state.items()
    }
    assert state.keys() == {"0/exp_avg", "1/step", "1/exp_avg", "1/exp_avg_sq"}


@pytest.mark.parametrize("name", ["muon", "nadam"])
def test_a_state_that_is_taken_back_has_its_steps_where_the_weights_are(name: str) -> None:
    """States lie in main memory; a fused kernel on another device takes its step from there."""
    player = Player("toy", [nn.Parameter(torch.randn(8, 9)), nn.Parameter(torch.randn(5))])
    config = TrainConfig(steps=1, optimizer=name)
    first = make_optimizer(player, config)
    for parameter in player.parameters:
        parameter.grad = torch.randn_like(parameter)
    first.step()
    elsewhere = [nn.Parameter(torch.empty_like(p, device="meta")) for p in player.parameters]
    other = make_optimizer(Player("toy", elsewhere), config)
    other.load_state_dict(first.state_dict())
    assert {value.device.type for state in other.state.values() for value in state.values()} == {"meta"}
