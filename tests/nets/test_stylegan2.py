"""StyleGAN2's networks against their formulas, and the mistakes that others have made with them."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trilemma.errors import UserError
from trilemma.nets import stylegan2
from trilemma.nets.stylegan2 import (
    Conv,
    Critic,
    Generator,
    Linear,
    Mapping,
    MinibatchDeviation,
    StyledConv,
    demodulation,
    downsample,
    enlarge_and_convolve,
    update_mean,
    upsample,
)

SHAPES = [(1, 8, 8), (3, 28, 28), (1, 12, 9), (4, 31, 45), (1, 4, 4), (3, 64, 64)]
ROW = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def with_zeros(x: Tensor) -> Tensor:
    """Zeros to the right of and below each pixel."""
    zeros = torch.zeros_like(x)
    return torch.stack(
        [torch.stack([x, zeros], -1).flatten(-2), torch.stack([zeros, zeros], -1).flatten(-2)], -2
    ).flatten(-3, -2)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_follow_the_rule(shape: tuple[int, int, int]) -> None:
    generator, critic = Generator(shape, 6, 2, styles=5), Critic(shape, 2, group=2)
    stages = max(2, round(math.log2(min(shape[1:]) / 4)))
    assert generator.n_layers == 2 * stages + 2
    assert generator.start.shape[2:] == tuple(math.ceil(n / 2**stages) for n in shape[1:])
    images = generator(torch.randn(2, generator.n_layers, 5), torch.randn(2, generator.n_noise))
    assert images.shape == (2, *shape)
    features = critic.features(images)
    assert features.shape == (2, critic.n_features) and critic(images).shape == (2,)
    torch.testing.assert_close(critic.head(features), critic(images))


def test_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"3x8 are too small for a network that halves them twice .*4 px and more, or train gan"
    ):
        Generator((1, 3, 8), 6, 2)
    with pytest.raises(UserError, match=r"3x8 are too small"):
        Critic((1, 3, 8), 2)


def test_demodulated_weights_have_unit_norm() -> None:
    weight, y = double(5, 4, 3, 3), double(6, 4)
    modulated = weight * y[:, None, :, None, None] * demodulation(weight, y)[:, :, None, None, None]
    torch.testing.assert_close(
        modulated.flatten(2).norm(dim=2), torch.ones(6, 5, dtype=torch.float64), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("enlarges", [False, True])
def test_modulation_equals_a_loop_over_the_images(enlarges: bool) -> None:
    layer = StyledConv(4, 5, 6, enlarges=enlarges)
    nn.init.normal_(layer.bias)
    nn.init.constant_(layer.noise_strength, 0.3)
    x, w = torch.randn(3, 4, 5, 7), torch.randn(3, 6)
    side = (10, 14) if enlarges else (5, 7)
    noise = torch.randn(3, math.prod(side))
    expected = []
    for k in range(3):
        weight = layer.weight * layer.affine(w[k : k + 1])[0][:, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        maps = enlarge_and_convolve(x[k : k + 1], weight) if enlarges else F.conv2d(x[k : k + 1], weight, padding=1)
        maps = maps + 0.3 * noise[k].view(1, 1, *side) + layer.bias[:, None, None]
        expected.append(math.sqrt(2) * F.leaky_relu(maps, 0.2))
    torch.testing.assert_close(layer(x, w, noise), torch.cat(expected), atol=1e-5, rtol=0)


def test_gradients_of_modulation_equal_those_of_a_loop() -> None:
    weight, x, y = (double(*shape).requires_grad_() for shape in ((5, 4, 3, 3), (3, 4, 6, 6), (3, 4)))
    ours = F.conv2d(x * y[:, :, None, None], weight, padding=1) * demodulation(weight, y)[:, :, None, None]
    scaled = weight * y[:, None, :, None, None]
    scaled = scaled / (scaled.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    loop = torch.cat([F.conv2d(x[k : k + 1], scaled[k], padding=1) for k in range(3)])
    direction = double(*loop.shape)
    for one, other in zip(
        *(torch.autograd.grad((z * direction).sum(), (weight, x, y)) for z in (ours, loop)), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_a_scale_of_the_style_does_not_change_what_is_demodulated() -> None:
    weight, y = double(5, 4, 3, 3), double(6, 4)
    torch.testing.assert_close(3 * demodulation(weight, 3 * y), demodulation(weight, y), atol=1e-7, rtol=1e-7)


def test_enlarging_is_zeros_and_the_filter() -> None:
    x = double(2, 3, 5, 6)
    kernel = (torch.outer(ROW, ROW) / 16).expand(3, 1, 4, 4)
    expected = F.conv2d(F.pad(with_zeros(x), (2, 1, 2, 1)), kernel, groups=3)
    torch.testing.assert_close(upsample(x)[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])
    torch.testing.assert_close(upsample(torch.full_like(x, 0.7)), torch.full((2, 3, 10, 12), 0.7, dtype=torch.float64))


def test_enlarging_with_a_convolution_is_that_of_the_enlarged_inside() -> None:
    x, weight = double(2, 3, 6, 7), double(4, 3, 3, 3)
    flipped = weight.flip(2, 3)  # a transposed convolution puts the kernel down, a convolution reads through it
    expected = F.conv2d(upsample(x), flipped, padding=1)
    ours = enlarge_and_convolve(x, weight)
    assert ours.shape == (2, 4, 12, 14)
    torch.testing.assert_close(ours[..., 3:-3, 3:-3], expected[..., 3:-3, 3:-3])


@pytest.mark.parametrize(("size", "half"), [((8, 8), (4, 4)), ((7, 10), (4, 5)), ((3, 5), (2, 3))])
def test_reducing_is_the_filter_at_every_second_pixel(size: tuple[int, int], half: tuple[int, int]) -> None:
    x = double(2, 3, *size)
    assert downsample(x).shape == (2, 3, *half)
    constant = downsample(torch.full((1, 1, 12, 13), 0.7, dtype=torch.float64))
    torch.testing.assert_close(constant[..., 1:-1, 1:-1], torch.full((1, 1, 4, 5), 0.7, dtype=torch.float64))
    if size == (8, 8):
        by_hand = (x[:, :, 1:5, 3:7] * torch.outer(ROW, ROW) / 64).sum((2, 3))
        torch.testing.assert_close(downsample(x)[:, :, 1, 2], by_hand)


def test_equalised_layers_keep_the_variance_and_learn_at_their_rate() -> None:
    x = torch.randn(4000, 50)
    layer = Linear(50, 40, gain=2.0, bias=1.5, rate=0.01)
    y = layer(x) - 1.5
    assert y.std().item() == pytest.approx(2.0, rel=0.05) and y.mean().item() == pytest.approx(0, abs=0.05)
    assert layer.weight.std().item() == pytest.approx(100, rel=0.05)
    maps = Conv(8, 16, 3, gain=1.0)(torch.randn(64, 8, 10, 10))
    assert maps.std().item() == pytest.approx(1.0, rel=0.1)
    before = layer(x[:1])
    with torch.no_grad():
        layer.bias += 1  # a step of Adam, whatever the gradient
    torch.testing.assert_close(layer(x[:1]) - before, torch.full((1, 40), 0.02), atol=1e-4, rtol=0)


def test_the_mapping_sees_the_direction_of_z_alone() -> None:
    mapping, z = Mapping(6, 5, 2), torch.randn(4, 6)
    torch.testing.assert_close(mapping(3 * z), mapping(z), atol=1e-5, rtol=1e-5)
    assert (mapping(z)[0] - mapping(z)[1]).abs().max() > 0.1


def test_noise_has_no_effect_at_the_start_and_then_reaches_every_layer() -> None:
    generator = Generator((1, 8, 8), 6, 2, styles=5)
    styles, noise = torch.randn(1, generator.n_layers, 5), torch.randn(1, generator.n_noise)
    start = generator(styles, noise)
    torch.testing.assert_close(generator(styles, 0 * noise), start)
    strengths = [p for name, p in generator.named_parameters() if name.endswith("noise_strength")]
    assert len(strengths) == len(generator.areas) and generator.n_noise == sum(generator.areas)
    for strength in strengths:
        with torch.no_grad():
            strength.fill_(0.5)
        assert (generator(styles, noise) - start).abs().max() > 1e-3
        with torch.no_grad():
            strength.zero_()


def test_each_layer_has_the_style_of_its_number() -> None:
    generator = Generator((1, 8, 8), 6, 2, styles=5)
    styles, noise = torch.randn(1, generator.n_layers, 5), torch.zeros(1, generator.n_noise)
    before = generator(styles, noise)
    for layer in range(generator.n_layers):
        changed = styles.clone()
        changed[:, layer] += 1
        assert (generator(changed, noise) - before).abs().max() > 1e-5


def test_the_deviation_is_that_of_the_group_of_an_image() -> None:
    x = double(6, 2, 3, 3)
    maps = MinibatchDeviation(3).double()(x)
    assert torch.equal(maps[:, :2], x)
    for group in (slice(0, 3), slice(3, 6)):
        expected = (x[group].var(0, correction=0) + 1e-8).sqrt().mean()
        torch.testing.assert_close(maps[group, 2], expected.expand(3, 3, 3))


def test_an_order_inside_a_group_changes_nothing_but_the_order() -> None:
    layer, x = MinibatchDeviation(4), torch.randn(8, 2, 3, 3)
    for order in itertools.islice(itertools.permutations(range(4)), 0, 24, 5):
        within = torch.tensor([*order, 4, 5, 6, 7])
        torch.testing.assert_close(layer(x[within]), layer(x)[within])
    across = torch.tensor([4, 1, 2, 3, 0, 5, 6, 7])
    assert (layer(x[across]) - layer(x)[across]).abs().max() > 1e-3  # another group


def test_images_that_are_alike_deviate_by_nothing() -> None:
    maps = MinibatchDeviation(4)(torch.randn(1, 2, 3, 3).expand(4, -1, -1, -1))
    assert maps[:, 2].max().item() == pytest.approx(1e-4, rel=1e-3)  # the root of 1e-8


@pytest.mark.parametrize(("batch", "group"), [(6, 4), (1, 4), (2, 4)])
def test_a_batch_without_whole_groups_is_refused(batch: int, group: int) -> None:
    with pytest.raises(UserError, match=rf"a batch of {batch} cannot .* choose a batch that is a multiple of {group}"):
        Critic((1, 8, 8), 2, group=group)(torch.rand(batch, 1, 8, 8))


def test_the_running_deviation_begins_at_the_first() -> None:
    """By a mean that begins at 0, critics of a short training would find all images alike."""
    layer, first, second = MinibatchDeviation(2), torch.randn(4, 2, 3, 3), 3 * torch.randn(4, 2, 3, 3)
    deviations = [layer(x)[::2, 2, 0, 0].mean().item() for x in (first, second)]
    assert layer.eval()(first)[:, 2].unique().item() == pytest.approx(0.99 * deviations[0] + 0.01 * deviations[1])


def test_a_running_mean_that_has_begun_moves_by_its_share() -> None:
    mean = torch.tensor([2.0, -1.0, 0.0])
    update_mean(mean, torch.tensor([4.0, 1.0, 5.0]), 0.25)
    assert mean.tolist() == [2.5, -0.5, 5.0]


def test_out_of_training_an_image_is_judged_by_itself() -> None:
    critic = Critic((1, 8, 8), 2, group=4)
    images = torch.rand(8, 1, 8, 8)
    layer = next(m for m in critic.modules() if isinstance(m, MinibatchDeviation))
    for _ in range(3):
        critic(images)
    assert 0 < layer.running_deviation.item() < 1
    critic.eval()
    torch.testing.assert_close(torch.cat([critic(image[None]) for image in images]), critic(images), atol=1e-6, rtol=0)
    assert stylegan2.MinibatchDeviation(4).batch_statistics and not stylegan2.MinibatchDeviation(1).batch_statistics
