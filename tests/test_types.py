"""A condition follows its images; flags, sampler keys and refusals of models of the project and of plain modules."""

import pytest
import torch
from torch import nn

from trilemma.config import Config, make
from trilemma.errors import UserError
from trilemma.registry import create, require
from trilemma.types import (
    UNCONDITIONAL,
    Batch,
    Condition,
    Conditional,
    Decodes,
    Encodes,
    Model,
    Phase,
    Player,
    Reconstructs,
    Samples,
    check_condition,
    codes_need,
    default_label,
    draw,
    flags,
    for_codes,
    join_conditions,
    keys_of,
)


def condition() -> Condition:
    image = torch.arange(4.0).view(4, 1, 1, 1)
    return Condition(torch.arange(4), ("a", "b", "c", "d"), image, image + 10)


class Plain(nn.Module):
    """Draws the number of each image, its label if that is asked for, plus a setting of its own."""

    n_classes = 3
    sampling_network = nn.Identity()

    def sample(self, n: int, *, seed: int, first: int = 0, condition=UNCONDITIONAL, shift: float = 0.5, times: int = 1):
        numbers = torch.arange(first, first + n) if condition.label is None else condition.label
        return (numbers * times + shift).view(n, 1, 1, 1)


def test_rows_of_every_field_go_together() -> None:
    for rows, numbers in ((slice(1, 3), [1, 2]), (torch.tensor([3, 0, 3]), [3, 0, 3])):
        part = condition().rows(rows)
        assert part.label.tolist() == part.image.flatten().tolist() == numbers
        assert part.mask.flatten().tolist() == [k + 10 for k in numbers]
        assert list(part.caption) == ["abcd"[k] for k in numbers]
        batch = Batch(torch.zeros(4, 1, 2, 2), condition(), torch.arange(4) * 2, 0.25).rows(rows)
        assert batch.index.tolist() == [2 * k for k in numbers] and batch.progress == 0.25
        assert batch.condition.label.tolist() == numbers and len(batch.image) == len(numbers)
    assert UNCONDITIONAL.rows(slice(2)).is_empty and not condition().is_empty
    only = condition().only("label", "mask")
    assert only.label is not None and only.mask is not None and only.caption is only.image is None


def test_conditions_of_several_sets_are_joined_where_all_have_a_field() -> None:
    part = condition().only("label", "caption")
    both = join_conditions([part, part.rows(slice(1))])
    assert both.label is not None and both.label.tolist() == [0, 1, 2, 3, 0]
    assert both.caption == [*(part.caption or ()), (part.caption or ())[0]]
    mixed = join_conditions([part, part.only("caption")])
    assert mixed.label is None and len(mixed.caption or ()) == 8


def test_what_a_model_does_not_take_is_refused() -> None:
    check_condition(UNCONDITIONAL, 4)
    check_condition(condition().only("label"), 4, n_classes=4)
    for name in ("caption", "image", "mask"):
        with pytest.raises(UserError, match=f"takes no {name}; leave it out"):
            check_condition(condition().only("label", name), 4, n_classes=4)
    assert default_label(torch.tensor([0, 4, 5, 11]), 4).tolist() == [0, 0, 1, 3]


def test_flags_of_a_plain_module_are_its_own_or_the_defaults() -> None:
    plain = flags(Plain())
    assert plain.n_classes == 3 and plain.batch_statistics is False and plain.code_length is None
    assert isinstance(Plain(), Conditional) and codes_need(Plain()) == ("label",)
    asked = for_codes(Plain(), condition())
    assert asked.label.tolist() == [0, 1, 2, 3] and asked.caption is asked.image is asked.mask is None
    assert not isinstance(nn.Linear(1, 1), Conditional) and codes_need(nn.Linear(1, 1)) == ()
    assert not isinstance(Model(), Conditional)
    module = Plain()
    module.phases = [
        Phase("a", Player("who", [nn.Parameter(torch.zeros(1))]), lambda batch, rng: (torch.zeros(()), {}))
    ]
    assert [player.name for player in flags(module).players] == ["who"]


def test_keys_of_a_plain_sampler_are_its_keywords() -> None:
    kind = keys_of(Plain())
    assert {name: field.default for name, field in kind.model_fields.items()} == {"shift": 0.5, "times": 1}
    assert draw(Plain(), 2, seed=0, first=5).flatten().tolist() == [5.5, 6.5]
    keys = make(kind, {"times": 2})
    assert keys.given() == {"times": 2}
    asked = Condition(torch.tensor([2, 0]))
    assert draw(Plain(), 2, seed=0, condition=asked, keys=keys).flatten().tolist() == [4.5, 0.5]
    with pytest.raises(UserError, match="shift=a lot: give a number"):
        make(kind, {"shift": "a lot"})


def test_declared_keys_reach_the_sampler_with_their_descriptions() -> None:
    vae = create("vae", shape=(1, 8, 8), latent=2).eval()
    kind = keys_of(vae)
    assert issubclass(kind, Config) and all(field.description for field in kind.model_fields.values())
    plain, still = draw(vae, 2, seed=0), draw(vae, 2, seed=0, keys=make(kind, {"temperature": 0}))
    assert torch.equal(still[0], still[1]) and not torch.equal(plain[0], plain[1])


def test_a_refusal_says_what_is_missing_and_who_has_it() -> None:
    sampler = Plain()
    require(sampler, "plain", "draw a class that is asked for", Conditional, Samples)
    for doing, capabilities, why in (
        ("reconstruct", (Reconstructs,), ": it has no encoder"),
        ("interpolate", (Encodes, Decodes), ": it has no encoder"),
        ("decode", (Decodes,), ": it has no decoder"),
    ):
        with pytest.raises(UserError, match=f"^plain does not {doing}{why}; models that do: ae-.*vae"):
            require(sampler, "plain", doing, *capabilities)
    with pytest.raises(UserError, match=r"^linear does not draw samples; models that do: .*gan.*diffusion"):
        require(nn.Linear(1, 1), "linear", "draw samples", Samples)
