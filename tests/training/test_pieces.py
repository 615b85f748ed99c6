"""A batch in pieces is the same mathematics, or the model says that it is not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from presets import ALIKE, PLAIN, small
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trilemma import rng
from trilemma.diffusion import few, model
from trilemma.diffusion.weighting import evenly_spread
from trilemma.registry import create, list_models
from trilemma.team import ALONE
from trilemma.training.exchange import Exchange
from trilemma.training.players import Players, needs_whole_batch
from trilemma.types import Batch, Condition, Phase

SHAPE, IMAGES, PIECES = (1, 8, 8), 16, 4
SLOW = pytest.mark.slow
SETTINGS: list[Any] = [
    *(pytest.param(name, small(name), marks=SLOW if name in (*PLAIN, *ALIKE) else ()) for name in list_models()),
    ("vae", {"capacity_nats": 30.0}),
    ("vae", {"reconstruction": "gaussian", "variance": "learned"}),
    ("vae-hierarchical", {"free_nats": 8.0}),
    ("vae-hierarchical", {"structure": "ladder"}),
    ("vae-ladder", {"free_nats": 8.0}),
    ("ae-denoising", {"corruption": "gaussian"}),
    ("vae", {"reconstruction": "bce"}),
    pytest.param("diffusion-few", {"adversarial": 0.1, "critic_width": 8}, marks=pytest.mark.slow),
]


class SameNoise(TorchFunctionMode):
    """In each of `copies` equal parts of a batch the same numbers are drawn, as if it were drawn alone."""

    def __init__(self, copies: int) -> None:
        super().__init__()
        self.copies = copies

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("generator") is None or func is torch.randint:
            return func(*args, **kwargs)
        if isinstance(args[0], Tensor):  # in place
            part = args[0][: len(args[0]) // self.copies].clone()
            return args[0].copy_(self._repeated(func(part, *args[1:], **kwargs)))
        shape = args if isinstance(args[0], int) else tuple(args[0])
        return self._repeated(func((shape[0] // self.copies, *shape[1:]), **kwargs)) if shape else func((), **kwargs)

    def _repeated(self, part: Tensor) -> Tensor:
        return part.repeat(self.copies, *[1] * (part.ndim - 1))


def prepared(name: str, settings: dict[str, Any]) -> nn.Module:
    """A model without what differs between the parts of a batch for other reasons than its loss."""
    model = create(name, shape=SHAPE, seed=1, **settings)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if hasattr(model, "add_noise"):  # the times of a batch are spread evenly over it

        def noised(image: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
            parts = []
            for part in image.split(IMAGES // PIECES):
                with SameNoise(1):
                    parts.append(type(model).add_noise(model, part, generator.manual_seed(3)))
            return tuple(torch.cat(values) for values in zip(*parts, strict=True))

        model.add_noise = noised
    return model


def batch_at(progress: float) -> Batch:
    """Images that grow brighter from part to part."""
    image = rng.uniform(torch.arange(IMAGES), SHAPE, 0, "pieces") * torch.linspace(0.1, 1, IMAGES)[:, None, None, None]
    return Batch(image, Condition(torch.arange(IMAGES) % 4), index=torch.arange(IMAGES), progress=progress)


def loss_and_gradient(name: str, settings: dict[str, Any], number: int, pieces: int, progress: float) -> Tensor:
    """Loss and gradient of a phase as the trainer takes them, in one row."""
    phase: Phase = prepared(name, settings).phases[number]
    batch = batch_at(progress)
    seeded = replace(phase, loss=lambda part, generator: phase.loss(part, generator.manual_seed(7)))
    players = Players.__new__(Players)
    players.device, players.pieces, players.bf16, players.noise = torch.device("cpu"), pieces, False, torch.Generator()
    players.exchange, players.first, players.shards = Exchange(ALONE, []), 0, None
    copies = PIECES // pieces
    alike = {"evenly_spread": lambda n, rng: evenly_spread(n // copies, rng).repeat(copies)}
    spread, spread_of_few = (patch.multiple(module, **alike) for module in (model, few))
    with rng.isolated(5), SameNoise(copies), spread, spread_of_few:  # the times of a batch are spread evenly over it
        loss, _ = Players.gradient(players, seeded, batch)
    return torch.cat(
        [loss.detach().view(1), *(p.grad.flatten() for p in phase.player.parameters if p.grad is not None)]
    )


def distance(name: str, settings: dict[str, Any], progress: float) -> float:
    """The largest relative distance between a batch in one piece and in PIECES, over the phases of a model."""
    far = 0.0
    for number in range(len(create(name, shape=SHAPE, **settings).phases)):
        whole, divided = (loss_and_gradient(name, settings, number, n, progress) for n in (1, PIECES))
        far = max(far, float(((whole - divided)[1:].norm() / whole[1:].norm()).item()))
        far = max(far, float((whole - divided)[0].abs() / whole[0].abs().clamp(min=1e-3)))
    return far


@pytest.mark.parametrize("progress", [pytest.param(0.2, marks=pytest.mark.slow), 1.0])
@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=lambda x: ",".join(x) if isinstance(x, dict) else x)
def test_pieces_are_the_same_mathematics_or_the_model_says_that_they_are_not(
    name: str, settings: dict[str, Any], progress: float
) -> None:
    if not any(needs_whole_batch(module) for module in create(name, shape=SHAPE, **settings).modules()):
        assert distance(name, settings, progress) < 1e-4


@pytest.mark.parametrize(
    ("name", "setting", "part"),
    [
        ("vae", "capacity_nats", "kl_nats"),
        ("vae-hierarchical", "free_nats", "kl1_nats"),
    ],
)
def test_a_loss_that_is_no_mean_over_images_would_be_seen(name: str, setting: str, part: str) -> None:
    plain = create(name, shape=SHAPE, seed=1)
    with rng.isolated(5), SameNoise(PIECES):  # the divergence of a whole batch: some parts are above and some below
        divergence = plain.loss(batch_at(1.0), torch.Generator().manual_seed(7))[1][part].item()
    settings = {setting: divergence}
    assert any(needs_whole_batch(module) for module in create(name, shape=SHAPE, **settings).modules())
    assert distance(name, settings, 1.0) > 1e-3
