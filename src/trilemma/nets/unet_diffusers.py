"""A U-Net of ours as a UNet2DModel of diffusers: the same arithmetic, with weights renamed and reshaped.

Both have residual blocks that the noise level scales and shifts, attention after them, and skips after each block and
each halving. They differ in three ways, which change no number:

    level       ours is told log(sigma / alpha) by sinusoids; there a table has the sinusoids of each of its steps
    attention   queries, keys and values come out of one layer here, and of three there
    doubling    the size is doubled by nearest pixels; a 3x3 convolution follows there, which is given the identity
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.nets.attention import SpatialAttention
from trilemma.nets.unet import FREQUENCY, Stage, UNet
from trilemma.nets.unet_small import sinusoid

Weights = dict[str, Tensor]


def unet2d_settings(network: UNet, channels: int, steps: int, n_classes: int) -> dict[str, Any]:
    """The settings of UNet2DModel.

    Args:
        network: with `groups`, and patches of one pixel.
        channels: of the images; steps: of the table of noise levels; n_classes: with one for none, 0 without classes.
    """
    levels = [[module for module in level if isinstance(module, Stage)] for level in _levels(network.down)]
    attends = [isinstance(level[0].attention, SpatialAttention) for level in levels]
    height, width = network.size
    return {
        "sample_size": height if height == width else [height, width],
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": [level[-1].conv_2.out_channels for level in levels],
        "layers_per_block": len(levels[0]),
        "down_block_types": ["AttnDownBlock2D" if attention else "DownBlock2D" for attention in attends],
        "up_block_types": ["AttnUpBlock2D" if attention else "UpBlock2D" for attention in reversed(attends)],
        "add_attention": isinstance(_stage(network.middle[0]).attention, SpatialAttention),
        "attention_head_dim": None,  # one head
        "norm_num_groups": network.groups,
        "attn_norm_num_groups": network.groups,
        "norm_eps": _norm(network.last[0]).eps,
        "resnet_time_scale_shift": "scale_shift",
        "dropout": _stage(network.middle[0]).dropout.p,
        "time_embedding_type": "learned",
        "num_train_timesteps": steps,
        "num_class_embeds": n_classes or None,
    }


def unet2d_weights(network: UNet, levels: Tensor, classes: Tensor | None = None) -> Weights:
    """The weights of UNet2DModel, by its names.

    Args:
        levels: log(sigma / alpha) of each step of the table, (T,).
        classes: vectors of the classes, (n_classes, E).
    """
    angles = levels.double() * FREQUENCY
    weights = {"time_proj.weight": sinusoid(angles, network.sinusoids).to(network.first.weight)}
    weights |= {} if classes is None else {"class_embedding.weight": classes}
    named = [("conv_in", network.first), ("conv_norm_out", network.last[0]), ("conv_out", network.last[2])]
    named += [("time_embedding.linear_1", network.level[0]), ("time_embedding.linear_2", network.level[2])]
    for name, module in named:
        weights |= _of(name, module)
    for k, level in enumerate(_levels(network.down)):
        weights |= _block(f"down_blocks.{k}", level, "downsamplers.0.conv")
    for k, level in enumerate(_levels(network.up)):
        weights |= _block(f"up_blocks.{k}", level, "upsamplers.0.conv")
    weights |= _block("mid_block", list(network.middle), "")
    return {name: value.detach().clone().contiguous() for name, value in weights.items()}


def _levels(modules: nn.ModuleList) -> Iterator[list[nn.Module]]:
    """The modules of each level: stages, and what changes the size at its end, which the last has not."""
    level = list[nn.Module]()
    for module in modules:
        level.append(module)
        if not isinstance(module, Stage):
            yield level
            level = []
    yield level


def _block(name: str, modules: list[nn.Module], resized: str) -> Weights:
    """A level; resized: the name there of what changes the size."""
    weights, stages = Weights(), [module for module in modules if isinstance(module, Stage)]
    for k, stage in enumerate(stages):
        weights |= _resnet(f"{name}.resnets.{k}", stage)
        if isinstance(stage.attention, SpatialAttention):
            weights |= _attention(f"{name}.attentions.{k}", stage.attention)
    if isinstance(modules[-1], nn.Conv2d):
        weights |= _of(f"{name}.{resized}", modules[-1])
    elif isinstance(modules[-1], nn.Upsample):
        weights |= _identity(f"{name}.{resized}", stages[-1].conv_2.weight)
    return weights


def _resnet(name: str, stage: Stage) -> Weights:
    parts = {"norm1": stage.norm_1, "conv1": stage.conv_1, "time_emb_proj": stage.modulation, "norm2": stage.norm_2}
    parts |= {"conv2": stage.conv_2} | ({"conv_shortcut": stage.skip} if isinstance(stage.skip, nn.Conv2d) else {})
    return {key: value for part, module in parts.items() for key, value in _of(f"{name}.{part}", module).items()}


def _attention(name: str, attention: SpatialAttention) -> Weights:
    inside, weights = attention.attention.inside, _of(f"{name}.group_norm", attention.norm)
    rows = zip("qkv", inside.weight.chunk(3), inside.bias.chunk(3), strict=True)
    for letter, weight, bias in rows:
        weights |= {f"{name}.to_{letter}.weight": weight, f"{name}.to_{letter}.bias": bias}
    return weights | _of(f"{name}.to_out.0", attention.attention.last)


def _identity(name: str, like: Tensor) -> Weights:
    """A 3x3 convolution that changes nothing."""
    weight = torch.zeros(len(like), len(like), 3, 3, dtype=like.dtype, device=like.device)
    return {f"{name}.weight": nn.init.dirac_(weight), f"{name}.bias": like.new_zeros(len(like))}


def _of(name: str, module: nn.Module) -> Weights:
    return {f"{name}.{key}": value for key, value in module.state_dict().items()}


def _stage(module: nn.Module) -> Stage:
    assert isinstance(module, Stage)
    return module


def _norm(module: nn.Module) -> nn.GroupNorm:
    assert isinstance(module, nn.GroupNorm)
    return module
