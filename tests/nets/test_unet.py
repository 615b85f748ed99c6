"""The networks of diffusion: any size, what begins at zero, where attention is, how they are told the noise level."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma.errors import UserError
from trilemma.nets.attention import Attention, SpatialAttention
from trilemma.nets.dit import DiT
from trilemma.nets.network_input import NetworkInput
from trilemma.nets.text import CrossAttention
from trilemma.nets.unet import UNet
from trilemma.registry import count_parameters

LEVELS = torch.tensor([-3.0, 0.5])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_random_weights(network: nn.Module) -> nn.Module:
    """With random numbers in every weight, also those that begin at zero."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator(parameter.numel())))
    return network.eval()


def images(*shape: int) -> Tensor:
    return torch.randn(2, *shape, generator=generator(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet": lambda: UNet((1, 12, 10), 8, (1, 2), depth=1, attention_px=6),
    "unet of patches": lambda: UNet((3, 12, 10), 8, (1, 2), depth=1, patch=2),
    "dit": lambda: DiT((3, 12, 8), patch=4, width=16, depth=2, heads=2),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_new_network_gives_zero_and_one_with_random_weights_does_not(name: str) -> None:
    network = NETWORKS[name]()
    x = images(*{"unet": (1, 12, 10), "unet of patches": (3, 12, 10), "dit": (3, 12, 8)}[name])
    assert network(x, LEVELS).abs().max() == 0
    output = with_random_weights(network)(x, LEVELS)
    assert output.shape == x.shape and output.abs().max() > 0.01


@pytest.mark.parametrize("name", NETWORKS)
def test_level_and_condition_matter_and_a_condition_of_zero_is_none(name: str) -> None:
    network = with_random_weights(NETWORKS[name]())
    x = images(*{"unet": (1, 12, 10), "unet of patches": (3, 12, 10), "dit": (3, 12, 8)}[name])
    output = network(x, LEVELS)
    condition = torch.zeros(2, network.embedding)
    torch.testing.assert_close(network(x, LEVELS, NetworkInput(condition)), output)
    assert (network(x, LEVELS, NetworkInput(condition + 1)) - output).abs().max() > 1e-3
    assert (network(x, LEVELS.flip(0)) - output).abs().max() > 1e-3
    alone = network(x[1:], LEVELS[1:])
    torch.testing.assert_close(alone, output[1:], rtol=0, atol=1e-5)  # images do not see each other


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 21), (2, 8, 8), (1, 5, 4)])
@pytest.mark.parametrize("width", [1, 5, 13, 50, 52])
def test_any_size_and_any_width(shape: tuple[int, int, int], width: int) -> None:
    """At 50 and 52 the last level has 200 and 208 channels, which three heads do not divide."""
    x = images(*shape)
    assert UNet(shape, width, (1, 4), depth=1)(x, LEVELS).shape == x.shape


def test_padding_is_that_of_a_larger_image_cut() -> None:
    small, large = UNet((1, 9, 7), 8, (1, 2), depth=1), UNet((1, 10, 8), 8, (1, 2), depth=1)
    with_random_weights(small)
    large.load_state_dict(small.state_dict())
    x = images(1, 9, 7)
    padded = nn.functional.pad(x, (0, 1, 0, 1))
    torch.testing.assert_close(small(x, LEVELS), large.eval()(padded, LEVELS)[..., :9, :7])


def test_attention_is_where_maps_are_small() -> None:
    def sides(network: UNet, shape: tuple[int, int, int]) -> set[int]:
        seen: set[int] = set()
        for module in network.modules():
            if isinstance(module, SpatialAttention):
                module.register_forward_pre_hook(lambda module, given: seen.add(given[0].shape[-1]))
        network(images(*shape), LEVELS)
        return seen

    shape = (1, 32, 32)
    for most, expected in {0: set(), 8: {8}, 16: {8, 16}, 32: {8, 16, 32}}.items():
        network = UNet(shape, 4, (1, 1, 1), depth=1, attention_px=most)
        assert sides(network, shape) == expected
    assert sides(UNet(shape, 4, (1, 1), depth=1, attention_px=8), shape) == {16}  # in the middle at any size
    assert sides(UNet(shape, 4, (1, 1), depth=1, attention_px=8, patch=2), shape) == {8}


def test_attention_begins_as_the_identity_and_mixes_all_places() -> None:
    layer = SpatialAttention(64)
    h = images(64, 3, 4)
    assert torch.equal(layer(h), h)
    with_random_weights(layer)
    one = h.clone()
    one[:, :, 0, 0] += 1
    assert ((layer(one) - one) - (layer(h) - h)).abs().amax((0, 1)).min() > 1e-6


def test_attention_is_a_mean_of_values_weighted_by_softmax() -> None:
    layer = with_random_weights(Attention(8, heads=2)).double()
    x = images(5, 8).double()
    q, k, v = layer.inside(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)

    def normed(y: Tensor, scale: Tensor) -> Tensor:
        return y / (y.square().mean(-1, keepdim=True) + torch.finfo(y.dtype).eps).sqrt() * scale

    weights = (normed(q, layer.scale_q) @ normed(k, layer.scale_k).mT / 2).softmax(-1)  # sqrt(4) = 2
    expected = layer.last((weights @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-9)


def test_places_of_a_transformer_are_told_apart() -> None:
    network = with_random_weights(NETWORKS["dit"]())
    assert len(torch.unique(network.places, dim=0)) == 3 * 2
    x = images(3, 12, 8)
    moved = x.roll(4, dims=2)  # by one patch
    assert (network(moved, LEVELS) - network(x, LEVELS).roll(4, dims=2)).abs().max() > 1e-3


def test_a_patch_is_put_back_where_it_came_from() -> None:
    """Without attention and with 3x3 kernels that see their own place alone, a patch depends on the same patch."""
    network = with_random_weights(UNet((1, 8, 8), 8, (1,), depth=1, attention_px=0, patch=4))
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            with torch.no_grad():
                centre = module.weight[:, :, 1, 1].clone()
                module.weight.zero_()[:, :, 1, 1] = centre
        if isinstance(module, nn.GroupNorm):
            module.forward = lambda h: h  # its means are of the whole map
    x = images(1, 8, 8)
    other = x.clone()
    other[:, :, 4:, :4] += 1
    changed = (network(other, LEVELS) - network(x, LEVELS)).abs().amax((0, 1)) > 1e-6
    assert changed[4:, :4].any() and not changed[:4].any() and not changed[4:, 4:].any()


def test_a_transformer_names_the_patches_that_divide_both_sides() -> None:
    with pytest.raises(UserError, match=r"patch=3 does not divide images of 12x8; give 1, 2, 4, or another size="):
        DiT((3, 12, 8), patch=3, width=16, depth=1, heads=2)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_level_keeps_its_fine_steps_in_bfloat16(name: str) -> None:
    network = NETWORKS[name]()
    seen: list[Tensor] = []
    network.level.register_forward_hook(lambda module, given, output: seen.append(output))
    x = images(*{"unet": (1, 12, 10), "unet of patches": (3, 12, 10), "dit": (3, 12, 8)}[name])
    network(x, LEVELS)
    with torch.autocast("cpu", torch.bfloat16):
        network(x, LEVELS)
    assert seen[1].dtype == torch.float32 and torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("kind", ["normed", "plain", "masked", "of a text"])
def test_attention_on_a_cpu_is_computed_in_float32_under_autocast(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 its gradient takes many times as long."""
    keep = torch.tensor([[True, True, False], [True, False, True]])
    attention, given = {
        "normed": (Attention(16, 2), (images(3, 16),)),
        "plain": (Attention(16, 2, normed=False), (images(3, 16),)),
        "masked": (Attention(16, 2), (images(3, 16), keep)),
        "of a text": (CrossAttention(16, 12, 2), (images(5, 16), images(3, 12), keep)),
    }[kind]
    expected, seen, inner = with_random_weights(attention)(*given), [], F.scaled_dot_product_attention

    def watched(*qkv: Tensor, attn_mask: Tensor | None) -> Tensor:
        seen.append(({part.dtype for part in qkv}, torch.is_autocast_enabled("cpu")))
        return inner(*qkv, attn_mask=attn_mask)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    with torch.autocast("cpu", torch.bfloat16):
        result = attention(*given)
    result.float().square().sum().backward()
    assert seen == [({torch.float32}, False)] and result.dtype == torch.bfloat16
    assert 0 < (result.float() - expected).norm() < 0.02 * expected.norm()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in attention.parameters())


def test_dropout_is_of_training() -> None:
    network = with_random_weights(UNet((1, 8, 8), 8, (1,), depth=1, dropout=0.5))
    x = images(1, 8, 8)
    assert torch.equal(network(x, LEVELS), network(x, LEVELS))
    network.train()
    assert not torch.equal(network(x, LEVELS), network(x, LEVELS))


def test_two_keys_go_from_one_to_sixty_million_parameters() -> None:
    def millions(width: int, depth: int) -> float:
        with torch.device("meta"):
            return count_parameters(UNet((3, 32, 32), width, (1, 2, 4), depth=depth)) / 1e6

    sizes = [millions(*keys) for keys in ((16, 1), (16, 2), (32, 1), (32, 2), (64, 2), (96, 3), (112, 3))]
    assert sizes == sorted(sizes) and sizes[0] < 1 and sizes[-1] > 60
