"""The codebook against its recursion, and the vector-quantised autoencoder around it."""

import math

import pytest
import torch
from torch import Tensor

from trilemma.autoencoders.codes import DEAD, Codebook, perplexity
from trilemma.autoencoders.vq import PRIOR_FROM, VQ, VQAutoencoder, VQConfig, make_vq
from trilemma.config import make
from trilemma.data import load_data
from trilemma.errors import UserError
from trilemma.types import Batch, Condition, HasCodeMap, Samples

TWO_CLASSES = {
    "shape": (1, 8, 8), "width": 16, "codes": 32, "dim": 8, "prior_width": 32, "prior_depth": 1,
    "conditional": True, "n_classes": 2,
}  # fmt: skip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def book(size: int, dim: int, **settings: object) -> Codebook:
    torch.manual_seed(0)
    return Codebook(size, dim, **settings).double()


def small(**settings: object) -> VQ:
    torch.manual_seed(0)
    return VQ(VQConfig(shape=(1, 8, 8), width=16, codes=32, dim=8, prior_width=32, prior_depth=1, **settings))


def without_prior() -> VQAutoencoder:
    torch.manual_seed(0)
    return make_vq(VQConfig(shape=(1, 8, 8), width=16, codes=32, dim=8, prior=False))


@pytest.mark.parametrize(("decay", "holds"), [(0.9, True), (0.91, False)])
def test_entries_follow_their_recursion(decay: float, holds: bool) -> None:
    codebook = book(3, 2, decay=decay, restart=False)
    counts, sums = [0.0] * 3, [[0.0, 0.0]] * 3
    for step in range(6):
        vectors = normal(4, 5, 2, seed=step)
        chosen = torch.randint(3, (4, 5), generator=generator(step))
        codebook.update(vectors, chosen, generator())
        for k in range(3):
            mine = vectors[chosen == k]
            counts[k] = 0.9 * counts[k] + 0.1 * len(mine)
            sums[k] = [0.9 * m + 0.1 * float(s) for m, s in zip(sums[k], mine.sum(0), strict=True)]
    expected = torch.tensor([[m / counts[k] for m in sums[k]] for k in range(3)], dtype=torch.float64)
    assert ((codebook.entries - expected).abs().max() < 1e-12) == holds


def test_one_batch_moves_the_entries_to_the_means_of_their_vectors() -> None:
    codebook = book(2, 3, decay=0.99, restart=False)
    vectors = normal(10, 3)
    chosen = torch.arange(10) % 2
    codebook.update(vectors, chosen, generator())
    assert (codebook.entries - torch.stack([vectors[::2].mean(0), vectors[1::2].mean(0)])).abs().max() < 1e-12


def test_nearest_is_nearest_in_half_precision_training_too() -> None:
    codebook, vectors = Codebook(50, 4), normal(7, 6, 4).float()
    codebook.entries.copy_(100 + 0.01 * codebook.entries)  # bfloat16 would see one entry
    vectors = 100 + 0.01 * vectors
    shifted, entries = vectors.double() - 100, codebook.entries.double() - 100
    gaps = (shifted[..., None, :] - entries).square().sum(3)
    with torch.autocast("cpu", torch.bfloat16):
        chosen = codebook.nearest(vectors)
    assert chosen.shape == (7, 6)
    error = gaps.gather(2, chosen[..., None])[..., 0] - gaps.amin(2)
    assert error.max() < 100**2 * 4 * 2**-20  # of float32 at squares of 100, in four dimensions
    plain = book(50, 4)
    away = (normal(7, 6, 4)[..., None, :] - plain.entries).square().sum(3)
    assert torch.equal(plain.nearest(normal(7, 6, 4)), away.argmin(2))


def test_dead_entries_start_again_at_vectors_of_the_batch() -> None:
    vectors, chosen = normal(20, 2), torch.arange(20) % 3
    codebook = book(5, 2, decay=0.9)
    used = codebook.update(vectors, chosen, generator(4))
    assert abs(float(used) - 3 / 5) < 1e-6
    for entry in codebook.entries[3:]:
        assert (vectors - entry).abs().sum(1).min() < 1e-12
    mean_use = 0.1 * 20 / 5
    assert (codebook.counts[3:] - DEAD * mean_use).abs().max() < 1e-12
    again, other = book(5, 2, decay=0.9), book(5, 2, decay=0.9)
    again.update(vectors, chosen, generator(4))
    other.update(vectors, chosen, generator(5))
    assert torch.equal(again.entries, codebook.entries) and not torch.equal(other.entries, codebook.entries)


@pytest.mark.slow
def test_without_restart_dead_entries_stay_where_they_are() -> None:
    codebook = book(5, 2, decay=0.5, restart=False)
    before = codebook.entries.clone()
    for step in range(3000):  # long enough for counts to underflow
        used = codebook.update(normal(20, 2, seed=step % 7), torch.arange(20) % (4 if step == 0 else 3), generator())
    assert torch.equal(codebook.entries[4], before[4]) and codebook.entries.isfinite().all()
    assert abs(float(used) - 3 / 5) < 1e-6
    assert (codebook.entries[3] - normal(20, 2, seed=0)[3::4].mean(0)).abs().max() < 1e-6


def test_perplexity_is_the_exponential_of_the_entropy() -> None:
    assert float(perplexity(torch.full((7,), 3))) == pytest.approx(7)
    assert float(perplexity(torch.tensor([0, 9, 0]))) == pytest.approx(1)
    p = [0.5, 0.25, 0.25]
    assert float(perplexity(torch.tensor([2, 1, 1]))) == pytest.approx(math.exp(-sum(q * math.log(q) for q in p)))
    assert float(perplexity(torch.zeros(3))) == pytest.approx(1)  # none yet


def test_gradient_passes_straight_through_the_codebook(monkeypatch) -> None:
    model = small(commitment=0.25).double().eval()
    image = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    vectors = model.vectors(image).detach().requires_grad_()
    monkeypatch.setattr(model, "vectors", lambda _: vectors)
    loss, parts = model.loss(Batch(image), generator())
    loss.backward()
    entries = model.codebook.entries[model.codebook.nearest(vectors)].clone().requires_grad_()
    error = (model.decode_entries(entries) - image).square().mean()
    error.backward()
    commitment = (vectors - entries).detach().square().mean()
    expected = entries.grad + 0.25 * 2 * (vectors - entries).detach() / vectors.numel()
    assert (vectors.grad - expected).abs().max() < 1e-12
    assert (vectors.grad - entries.grad).abs().max() > 1e-6
    assert abs(float(loss.detach() - error.detach() - 0.25 * commitment)) < 1e-12
    assert abs(float(parts["mse"] - error.detach())) < 1e-12
    assert abs(float(parts["commitment"] - commitment)) < 1e-12


def test_the_codebook_moves_in_the_training_of_the_autoencoder_alone() -> None:
    model, batch = small(), Batch(torch.rand(4, 1, 8, 8))
    before = model.codebook.entries.clone()
    model.prior_loss(batch, generator())
    model.eval()
    model.loss(batch, generator())
    model.validation(batch, generator())
    assert torch.equal(model.codebook.entries, before)
    model.train()
    model.loss(batch, generator())
    assert not torch.equal(model.codebook.entries, before)


def test_the_prior_trains_no_encoder() -> None:
    model = small()
    model.prior_loss(Batch(torch.rand(4, 1, 8, 8)), generator())[0].backward()
    assert all(p.grad is None for p in [*model.encoder.parameters(), *model.decoder.parameters()])
    spans = [(phase.name, phase.begin, phase.end) for phase in model.phases]
    assert spans == [("autoencoder", 0.0, 0.6), ("prior", 0.6, 1.0)]


SIZES = [((1, 28, 28), (7, 7)), ((3, 32, 32), (8, 8)), ((1, 8, 8), (4, 4)), ((3, 12, 9), (6, 5))]
SIZES += [((2, 64, 48), (8, 6)), ((3, 33, 70), (9, 18)), ((1, 128, 128), (8, 8))]


@torch.no_grad()
@pytest.mark.parametrize(("shape", "grid"), SIZES)
def test_any_size_and_number_of_channels(shape: tuple[int, int, int], grid: tuple[int, int]) -> None:
    model = VQ(VQConfig(shape=shape, width=16, codes=32, dim=8, prior_width=32, prior_depth=1)).eval()
    image = torch.rand(2, *shape)
    codes, z = model.code_indices(image), model.encode(image)
    assert codes.shape == (2, *grid) and codes.dtype == torch.int64
    assert torch.equal(z, model.codebook.entries[codes].flatten(1))
    assert torch.equal(model.decode(z), model.reconstruct(image))
    assert model.reconstruct(image).shape == image.shape
    assert model.sample(2, seed=0).shape == image.shape


@torch.no_grad()
def test_vectors_are_taken_to_their_nearest_entry() -> None:
    model = small().eval()
    model.codebook.entries.copy_(normal(32, 8).float() * 3)
    z = model.codebook.entries[torch.randint(32, (5, 16), generator=generator())].flatten(1)
    near = z + 0.05 * normal(5, 128).float()
    assert torch.equal(model.decode(near), model.decode(z))
    assert not torch.equal(model.decode(z + normal(5, 128).float() * 5), model.decode(z))


def test_usage_is_counted_on_the_images_given() -> None:
    model = small()
    images = torch.rand(30, 1, 8, 8)
    values = model.finish([Batch(images[:20]), Batch(images[20:])], seed=0)
    counts = model.code_indices(images).flatten().bincount(minlength=32)
    assert torch.equal(model.usage, counts) and int(model.usage.sum()) == 30 * 16
    assert values == {"perplexity": pytest.approx(float(perplexity(counts)))}
    model.finish([Batch(images)], seed=0)
    assert torch.equal(model.usage, counts)


def test_a_conditional_prior_draws_the_class_asked_for() -> None:
    """Class 0 is a dark image, class 1 a bright one."""
    torch.manual_seed(0)
    model = VQ(make(VQConfig, TWO_CLASSES))
    images = torch.stack([torch.full((1, 8, 8), 0.1), torch.full((1, 8, 8), 0.9)])
    batch = Batch(images, Condition(torch.tensor([0, 1])))
    optimizer = torch.optim.Adam(model.prior.parameters(), 0.01)
    with torch.no_grad():
        model.codebook.entries[:2] = model.vectors(images)[:, 2, 2]
        dark, bright = model.code_indices(images).flatten(1)
    assert not torch.equal(dark, bright)
    for _ in range(60):
        loss, _ = model.prior_loss(batch, generator())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    reconstructions = model.reconstruct(images, batch.condition)
    for label in (0, 1):
        drawn = model.sample(4, seed=0, condition=Condition(torch.full((4,), label)))
        assert torch.equal(drawn, reconstructions[[label] * 4])
    assert torch.equal(model.sample(4, seed=0), reconstructions[[0, 1, 0, 1]])


def test_labels_of_a_conditional_prior_are_checked() -> None:
    model = VQ(make(VQConfig, TWO_CLASSES))
    with pytest.raises(UserError, match="label 2 is not a class of this model; choose from 0 to 1"):
        model.sample(1, seed=0, condition=Condition(torch.tensor([2])))
    with pytest.raises(UserError, match="needs the class of each image or code; give labels from 0 to 1"):
        model.prior_loss(Batch(torch.rand(2, 1, 8, 8)), generator())
    with pytest.raises(UserError, match="trained without labels"):
        small().sample(1, seed=0, condition=Condition(torch.tensor([0])))
    with pytest.raises(UserError, match="is for images with classes"):
        make(VQConfig, TWO_CLASSES | {"n_classes": 0})


def test_without_a_prior_the_autoencoder_has_the_whole_training() -> None:
    """And is the same: its weights begin alike, and its loss and codes are those of one with a prior."""
    whole, model = small(), without_prior()
    assert [(phase.name, phase.begin, phase.end) for phase in model.phases] == [("autoencoder", 0, 1)]
    assert [(phase.name, phase.begin) for phase in whole.phases] == [("autoencoder", 0), ("prior", PRIOR_FROM)]
    state = model.state_dict()
    assert state.keys() == {name for name in whole.state_dict() if not name.startswith("prior.")}
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in state.items())
    assert isinstance(whole, Samples) and not isinstance(model, Samples) and isinstance(model, HasCodeMap)
    batch = Batch(torch.rand(4, 1, 8, 8, generator=generator()))
    assert torch.equal(model.eval().loss(batch, generator())[0], whole.eval().loss(batch, generator())[0])
    assert torch.equal(model.encode(batch.image), whole.encode(batch.image))
    values = [one.validation(batch, generator()) for one in (model, whole)]
    assert values[0].keys() == {"mse"} and torch.equal(values[0]["mse"], values[1]["mse"])
    for keys in ({"prior_depth": 2}, {"conditional": True, "n_classes": 3}):
        with pytest.raises(UserError, match="is for prior=true"):
            make(VQConfig, {"prior": False, **keys})


def test_a_code_takes_the_bits_of_its_choices() -> None:
    assert small().code_bits == 4 * 4 * math.log2(32)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UserError, match="prior_width=100 is not a multiple of 32"):
        make(VQConfig, {"prior_width": 100})


@pytest.mark.slow
def test_learns_digits_with_more_than_half_of_its_codes() -> None:
    model, data = small(), load_data("digits")
    images, rng = data.train.images.float() / 255, generator()
    optimizer = torch.optim.Adam(model.phases[0].player.parameters, 3e-3)
    for step in range(150):
        batch = Batch(images[torch.randint(len(images), (32,), generator=generator(step))])
        loss, _ = model.loss(batch, rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    held_out = data.valid.images.float() / 255
    model.finish([Batch(held_out)], seed=0)
    assert model.perplexity() > 0.5 * 32
    with torch.no_grad():
        error = (model.reconstruct(held_out) - held_out).square().mean()
    assert error < 0.3 * held_out.var(0).mean()
