"""The blocks whose weights are gathered by themselves where they are divided over processes."""

from typing import Any

import pytest
from presets import small
from torch import Tensor, nn

from trilemma.registry import create
from trilemma.training import blocks
from trilemma.training.blocks import blocks_of, division, size_of


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "LEAST", 50)


class OfBlocks(nn.Module):
    whole_because = ""

    def __init__(self, *entries: nn.Module) -> None:
        super().__init__()
        self.entries, self.apart = nn.ModuleList(entries), nn.Linear(10, 10)


class WithTwo(nn.Module):
    """Which is used by another method, too."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def prior(self, x: Tensor) -> Tensor:
        return self.net(x)


def names_of(model: nn.Module) -> list[str]:
    names = {module: name for name, module in model.named_modules()}
    return [names[block] for block in blocks_of(model)]


def test_entries_of_lists_are_blocks_if_they_are_large_enough() -> None:
    model = OfBlocks(*(nn.Linear(10, 10) for _ in range(10)), nn.Linear(4, 9))
    assert names_of(model) == [f"entries.{n}" for n in range(10)]
    total = 11 * 110 + 45
    assert size_of(model) == total and size_of(model, blocks_of(model)) == total - 10 * 110
    text = f"10 blocks with {1100 / total:.0%} of the weights are gathered when they are used, the largest with 8.8%"
    assert text in division(model, blocks_of(model))


def test_a_large_block_is_parted_into_those_inside_it() -> None:
    inside = nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 10))
    model = OfBlocks(inside, nn.Linear(10, 10))
    assert size_of(inside) > size_of(model) // blocks.SHARE
    assert names_of(model) == ["entries.0.0", "entries.0.2", "entries.1"]


def test_what_is_left_of_a_block_around_others_is_one() -> None:
    around = nn.TransformerEncoderLayer(8, 2, 8)
    around.more = nn.Sequential(nn.Linear(8, 8))  # type: ignore[assignment]
    assert names_of(OfBlocks(around)) == ["entries.0.more.0", "entries.0"]


def test_what_is_not_used_by_its_forward_pass_alone_is_no_block() -> None:
    assert names_of(OfBlocks(WithTwo())) == ["entries.0.net.0"]
    shared, other = nn.Linear(10, 10), nn.Linear(10, 10)
    shared.weight = other.weight
    assert names_of(OfBlocks(shared, nn.Linear(10, 10))) == ["entries.0", "entries.1"]  # with nobody else
    model = OfBlocks(shared, nn.Linear(10, 10))
    model.apart.weight = other.weight
    assert names_of(model) == ["entries.1"]


def test_a_part_says_that_its_weights_stay_whole() -> None:
    critic = nn.Sequential(nn.Linear(10, 10))
    model = OfBlocks(critic, *(nn.Linear(10, 10) for _ in range(9)))
    critic.whole_because = "of a penalty"  # type: ignore[assignment]
    assert names_of(model) == [f"entries.{n}" for n in range(1, 10)]
    assert division(model, blocks_of(model)).endswith("all else for each loss (entries.0 because of a penalty)")


def test_a_model_that_says_nothing_stays_whole() -> None:
    model = nn.Sequential(nn.Linear(10, 10))
    assert blocks_of(model) == []
    assert division(model, []).startswith("shard=true: all weights are gathered for each loss")
    assert "the model because it does not say" in division(model, [])
    model.whole_because = ""  # type: ignore[assignment]
    assert names_of(model) == ["0"]
    model[0] = nn.Linear(2, 2)
    assert division(model, blocks_of(model)).endswith("(it has no blocks of 50 numbers)")


@pytest.mark.parametrize(
    ("name", "settings", "some", "none"),
    [
        ("diffusion-dit", {}, ["network.blocks.0", "network.blocks.1"], []),
        ("diffusion", {}, ["network.down.0", "network.middle.0", "network.up.0"], []),
        ("diffusion-text", {}, ["text.blocks.0", "network.down.0"], []),
        ("gan-dcgan", {}, ["generator.body.2", "critic.body.2"], []),
        ("gan-r3", {"width": 16}, ["generator.body.1"], ["critic"]),
        ("gan-wgan-gp", {}, ["generator.body.2"], ["critic"]),
        ("ae-residual", {}, ["encoder.net.0.1"], []),
        ("ae-tied", {}, [], ["encoder", "decoder"]),
        ("vae-hierarchical", {}, ["up.levels.0", "down.layers.1.net.0"], []),
        ("vae-vq", {}, ["prior.network.layers.0"], []),
        ("ae-kl", {"adversarial": 0.5}, ["critic.body.2"], []),
    ],
)
def test_blocks_of_the_families(name: str, settings: dict[str, Any], some: list[str], none: list[str]) -> None:
    """`some` are blocks, or have blocks inside; nothing in `none` is one."""
    names = names_of(create(name, shape=(1, 8, 8), **{**small(name), **settings}))
    for part in some:
        assert any(name == part or name.startswith(f"{part}.") for name in names), names
    assert not any(name.startswith(part) for name in names for part in none)
