"""The training stream is a function of (seed, position), and augmentation of (seed, image, epoch)."""

import pytest
import torch

from trilemma import rng
from trilemma.data import Loader, Split, batches
from trilemma.data.transform import draws, transform
from trilemma.errors import UserError
from trilemma.pictures.levels import to_float

N = 50
IMAGES = torch.randint(0, 256, (N, 3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SPLIT = Split(IMAGES, torch.arange(N), captions=tuple(str(k) for k in range(N)))


def test_levels_become_the_nearest_floats():
    levels = torch.arange(256, dtype=torch.uint8)
    floats = to_float(levels)
    assert floats.dtype == torch.float32
    assert torch.equal(floats, (torch.arange(256).double() / 255).float())
    assert torch.equal((floats * 255).round().to(torch.uint8), levels)


def test_a_batch_is_rows_of_the_split():
    batch = Loader(SPLIT, batch=8, seed=1).batch_at(3)
    assert torch.equal(batch.image, IMAGES[batch.index].double().div(255).float())
    assert batch.condition.label.tolist() == batch.index.tolist() == [int(text) for text in batch.condition.caption]
    assert batch.image.shape == (8, 3, 16, 24)


def test_the_stream_is_the_shuffled_epochs_joined():
    stream = torch.cat([rng.permutation(N, 1, "order", epoch) for epoch in range(4)])
    loader = Loader(SPLIT, batch=7, seed=1)
    result = torch.cat([loader.batch_at(at).index for at in range(0, 4 * N - 7, 7)])
    assert torch.equal(result, stream[: len(result)])
    assert not torch.equal(stream[:N], stream[N : 2 * N])
    assert torch.equal(loader.batch_at(30, 140).index, stream[30:170])  # one batch over four epochs
    assert not torch.equal(Loader(SPLIT, batch=7, seed=2).batch_at(0).index, stream[:7])


@pytest.mark.parametrize("names", [(), ("flip",), ("shift",), ("flip", "shift")])
def test_any_position_at_once_and_in_any_batches(names):
    one = Loader(SPLIT, batch=10, seed=1, augment=names).batch_at(0, 180).image
    other = Loader(SPLIT, batch=10, seed=1, augment=names)
    assert torch.equal(other.batch_at(95, 30).image, one[95:125])
    assert torch.equal(other.batch_at(20).image, one[20:30])


def test_a_bounded_number_of_orders_is_kept():
    loader = Loader(SPLIT, batch=10, seed=1)
    for epoch in range(20):
        loader.batch_at(epoch * N)
    assert len(loader._orders) <= 2


def test_batches_once_in_order():
    all_batches = list(batches(SPLIT, 16))
    assert [len(batch.image) for batch in all_batches] == [16, 16, 16, 2]
    assert torch.equal(torch.cat([batch.image for batch in all_batches]), to_float(IMAGES))
    assert torch.cat([batch.index for batch in all_batches]).tolist() == list(range(N))
    assert [text for batch in all_batches for text in batch.condition.caption] == list(SPLIT.captions)


def test_a_split_without_labels():
    batch = Loader(Split(IMAGES), batch=4, seed=0).batch_at(0)
    assert batch.condition.label is None
    assert batch.condition.caption is None


def test_unknown_augmentation_and_no_images():
    with pytest.raises(UserError, match='did you mean "flip"'):
        Loader(SPLIT, batch=4, seed=0, augment=("flipp",))
    with pytest.raises(UserError, match="of 0 images"):
        Loader(Split(IMAGES[:0]), batch=4, seed=0)


def test_flip_exchanges_left_and_right():
    u = torch.tensor([[0.49, 0, 0], [0.5, 0, 0]])
    images = transform(IMAGES[:2], ("flip",), u)
    assert torch.equal(images[0], IMAGES[0].flip(2))
    assert torch.equal(images[1], IMAGES[1])


@pytest.mark.parametrize(("v", "w", "dy", "dx"), [(0.0, 0.0, -2, -3), (0.5, 0.5, 0, 0), (0.999, 0.999, 2, 3)])
def test_shift_moves_by_up_to_an_eighth_and_reflects(v, w, dy, dx):
    images = transform(IMAGES[:1], ("shift",), torch.tensor([[0.0, v, w]]))[0]
    padded = torch.nn.functional.pad(IMAGES[:1].float(), (3, 3, 2, 2), mode="reflect")[0]
    expected = padded[:, 2 + dy : 2 + dy + 16, 3 + dx : 3 + dx + 24]
    assert torch.equal(images.float(), expected)


def test_a_flip_comes_before_a_shift():
    u = torch.tensor([[0.1, 0.999, 0.2]])
    both = transform(IMAGES[:1], ("flip", "shift"), u)
    assert torch.equal(both, transform(transform(IMAGES[:1], ("flip",), u), ("shift",), u))


def test_every_shift_and_half_the_flips_occur():
    n = 20_000
    u = draws(torch.arange(n), 0, 0)
    x = torch.arange(24).expand(n, 1, 16, 24)
    steps = transform(x, ("shift",), u)[:, 0, 0, 10] - 10
    counts = torch.bincount(steps + 3, minlength=7)
    assert ((counts - n / 7).abs() < 5 * (n / 7 * 6 / 7) ** 0.5).all()  # binomial, 5 standard deviations
    flips = (transform(x, ("flip",), u)[:, 0, 0, 0] == 23).sum()
    assert (flips - n / 2).abs() < 5 * (n / 4) ** 0.5


def test_augmentation_depends_on_seed_image_and_epoch():
    index = torch.tensor([5, 9])
    assert torch.equal(draws(index, 0, 3)[1], draws(torch.tensor([9]), 0, 3)[0])
    assert not torch.equal(draws(index, 0, 3), draws(index, 0, 4))
    assert not torch.equal(draws(index, 0, 3), draws(index, 1, 3))


def test_narrow_images_can_be_augmented():
    """A row of 9 pixels moves by at most one, and not up or down."""
    image = torch.arange(9, dtype=torch.uint8)[None, None, None]
    u = torch.tensor([[0.6, 0.9, 0.1], [0.6, 0.9, 0.5], [0.6, 0.9, 0.9], [0.1, 0.0, 0.9]])
    moved = transform(image.expand(4, -1, -1, -1), ("flip", "shift"), u).flatten(1).tolist()
    left, right = [1, *range(8)], [*range(1, 9), 7]
    assert moved == [left, [*range(9)], right, [8 - k for k in right]]
