"""The autoencoder: linear ones are principal component analysis; tying, corruption and losses do what they say."""

import copy
import math
from pathlib import Path

import pytest
import torch
from oracles import principal_components
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributions import Bernoulli

from trilemma.autoencoders.autoencoder import Autoencoder, AutoencoderConfig
from trilemma.data import load_data
from trilemma.errors import UserError
from trilemma.registry import create, get_recipe
from trilemma.training import train
from trilemma.types import Batch, Condition


def angles(one: Tensor, other: Tensor) -> Tensor:
    """Sines of the principal angles between the spans of the columns of two matrices."""
    a, b = torch.linalg.qr(one).Q, torch.linalg.qr(other).Q
    return torch.linalg.svdvals(b - a @ (a.T @ b))


def decoder_columns(model: torch.nn.Module) -> Tensor:
    """Where the unit vectors of the code take a linear decoder, in the images' units: (D, latent)."""
    with torch.no_grad():
        latent = model.config.latent
        z = torch.eye(latent).to(next(model.parameters()))
        return ((model.decoder(z) - model.decoder(0 * z)) / 2).flatten(1).T


def linear(shape: tuple[int, int, int], latent: int) -> Autoencoder:
    torch.manual_seed(0)
    config = AutoencoderConfig(shape=shape, hidden=(), latent=latent, code="none", output="none")
    return Autoencoder(config).double()


@pytest.mark.slow
def test_long_trained_ae_linear_has_the_plane_and_the_error_of_pca(tmp_path: Path) -> None:
    run = train("ae-linear", "ellipse", batch=60, epochs=200, precision="float32", out=tmp_path / "run", quiet=True)
    x = run.data.train.images.flatten(1).double() / 255
    eigenvalues, directions = principal_components(x)
    assert angles(decoder_columns(run.model).double(), directions[:, :2]).max() < 1e-3
    image = x.float()[:, :, None, None]
    error = float(run.model.loss(Batch(image), torch.Generator())[1]["mse"])
    assert error == pytest.approx(float(eigenvalues[2]) / 3, rel=1e-4)
    other = directions[:, 1:3]  # another plane
    assert angles(decoder_columns(run.model).double(), other).max() > 0.99


@pytest.mark.slow
def test_ae_linear_reaches_its_figure_in_its_own_training(tmp_path: Path) -> None:
    run = train("ae-linear", "ellipse", out=tmp_path / "run", quiet=True)
    train_x, valid_x = (split.images.flatten(1).double() / 255 for split in (run.data.train, run.data.valid))
    directions = principal_components(train_x)[1][:, :2]
    centred = valid_x - train_x.mean(0)
    pca = float((centred - centred @ directions @ directions.T).square().mean().sqrt())
    target = get_recipe("ae-linear").targets["valid_rmse"]
    assert 0.97 * pca < run.summary["valid_rmse"] < min(1.03 * pca, target)


def test_the_best_linear_autoencoder_of_digits_is_pca_in_float64() -> None:
    images = load_data("digits").train.images.double() / 255
    model, batch, x = linear((1, 8, 8), 8), Batch(images), 2 * images.flatten(1) - 1
    eigenvalues, directions = principal_components(images.flatten(1))
    directions = directions[:, :8]
    e_weight, e_bias, d_weight, d_bias = model.parameters()
    with torch.no_grad():
        e_weight.copy_(directions.T)
        e_bias.copy_(-x.mean(0) @ directions)
        d_weight.copy_(directions)
        d_bias.copy_(x.mean(0))
    loss, _ = model.loss(batch, torch.Generator())
    loss.backward()
    least = float(eigenvalues[8:].sum()) / 64
    assert float(loss.detach()) == pytest.approx(least, rel=1e-12)
    assert all(p.grad is not None and p.grad.abs().max() < 1e-12 for p in model.parameters())
    held = [p.detach().clone() for p in model.parameters()]
    for _ in range(20):
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), held, strict=True):
                parameter.copy_(value + 0.01 * torch.randn_like(value))
        assert float(model.loss(batch, torch.Generator())[1]["mse"]) > least + 1e-6


def test_a_tied_decoder_is_the_encoder_transposed() -> None:
    model = create("ae-tied", shape=(2, 3, 5), hidden=(7, 6), latent=4).double()
    first, second, third = (layer for layer in model.encoder.modules() if isinstance(layer, torch.nn.Linear))
    with torch.no_grad():
        for bias in model.decoder.biases:
            bias.normal_()
    z = torch.rand(5, 4, dtype=torch.float64)
    b3, b2, b1 = model.decoder.biases
    h = (z @ third.weight + b3).relu()
    h = (h @ second.weight + b2).relu()
    expected = (h @ first.weight + b1).sigmoid().view(5, 2, 3, 5)
    assert (model.decode(z) - expected).abs().max() < 1e-12
    own = sum(p.numel() for p in model.parameters())
    weights = 30 * 7 + 7 * 6 + 6 * 4
    assert own == weights + (7 + 6 + 4) + (6 + 7 + 30)  # weights once, biases of the encoder and of the decoder


def test_a_tied_autoencoder_is_saved_once_and_follows_its_encoder(tmp_path: Path) -> None:
    model, other = (create("ae-tied", shape=(1, 4, 4), seed=seed).eval() for seed in (0, 1))
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    z = torch.rand(3, 32)
    assert torch.equal(model.decode(z), other.decode(z))
    twin = copy.deepcopy(other)
    with torch.no_grad():
        next(twin.encoder.parameters()).zero_()
    assert torch.equal(model.decode(z), other.decode(z))
    assert (twin.decode(z) - other.decode(z)).abs().max() > 1e-3


@pytest.mark.parametrize("level", [0.25, 0.5])
def test_dropout_removes_its_share_and_keeps_the_mean(level: float) -> None:
    model = create("ae-denoising", shape=(1, 8, 8), level=level)
    image, n = torch.full((2_000, 1, 8, 8), 0.6), 2_000 * 64
    seen = model.corrupt(image, torch.Generator().manual_seed(0))
    kept = seen[seen > 0]
    assert torch.allclose(kept, torch.tensor(0.6 / (1 - level)))
    bound = 5 * math.sqrt(level * (1 - level) / n)
    assert abs(1 - len(kept) / n - level) < bound < 0.01


def test_gaussian_corruption_has_its_standard_deviation() -> None:
    model = create("ae-denoising", shape=(1, 8, 8), corruption="gaussian", level=0.3)
    image = torch.rand(2_000, 1, 8, 8)
    noise = model.corrupt(image, torch.Generator().manual_seed(0)) - image
    n = noise.numel()
    assert abs(float(noise.mean())) < 5 * 0.3 / math.sqrt(n)
    assert abs(float(noise.std()) - 0.3) < 5 * 0.3 / math.sqrt(2 * n)


@pytest.mark.parametrize("corruption", ["dropout", "gaussian"])
def test_the_target_is_the_clean_image_and_figures_see_no_noise(corruption: str) -> None:
    model, image = create("ae-denoising", shape=(1, 8, 8), corruption=corruption), torch.rand(5, 1, 8, 8)
    loss, parts = model.loss(Batch(image), torch.Generator().manual_seed(3))
    seen = model.corrupt(image, torch.Generator().manual_seed(3))
    assert (seen - image).abs().max() > 0.1
    assert float(loss.detach()) == pytest.approx(
        float((model.reconstruct(seen) - image).square().mean().detach()), rel=1e-5
    )
    target = model.validation(Batch(image), torch.Generator())["mse"]
    expected = (model.reconstruct(image) - image).square().flatten(1).mean(1)
    assert torch.allclose(target, expected) and float(parts["mse"]) == pytest.approx(float(loss.detach()))


def test_binary_cross_entropy_is_that_of_a_bernoulli() -> None:
    model, image = create("ae-stacked", shape=(1, 4, 4), reconstruction="bce"), torch.rand(6, 1, 4, 4).round()
    loss, parts = model.loss(Batch(image), torch.Generator())
    expected = -Bernoulli(probs=model.reconstruct(image)).log_prob(image).flatten(1).sum(1).mean()
    assert float(parts["bce_nats"]) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_a_linear_output_is_cut_in_an_image_but_not_in_the_loss() -> None:
    model = linear((1, 2, 2), 1)
    far = 100 * torch.ones(3, 1, dtype=torch.float64)
    image = model.decode(torch.cat([far, -far]))
    assert image.min() == 0 and image.max() == 1
    weight, bias = model.decoder.parameters()
    with torch.no_grad():
        weight.fill_(0)
        bias.fill_(3)  # 3 on the scale of [-1, 1] is (3 + 1) / 2 = 2 on that of [0, 1]
    loss, _ = model.loss(Batch(torch.ones(4, 1, 2, 2, dtype=torch.float64)), torch.Generator())
    assert float(loss.detach()) == pytest.approx((2 - 1) ** 2)


def test_labels_are_refused() -> None:
    model, condition = create("ae-stacked", shape=(1, 4, 4)), Condition(torch.tensor([1, 2]))
    image, z = torch.rand(2, 1, 4, 4), torch.rand(2, 32)
    for call in (lambda: model.encode(image, condition), lambda: model.decode(z, condition)):
        with pytest.raises(UserError, match="without labels"):
            call()
    with pytest.raises(UserError, match="without labels"):
        model.reconstruct(image, condition)
    with pytest.raises(UserError, match="without labels"):
        model.sample(2, seed=0, condition=condition)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tied": True, "network": "conv"}, "tied=true is for network=mlp, not conv"),
        ({"sparsity": 0.1}, "sparsity=0.1 is for code=sigmoid, not relu"),
        ({"reconstruction": "bce", "output": "none"}, "needs output=sigmoid"),
        ({"corruption": "dropout", "level": 1.0}, "share of pixels to drop is below 1"),
        ({"level": 0.9}, "level=0.9 is for corruption=dropout or corruption=gaussian, not none"),
        ({"sparsity_target": 0.3}, "sparsity_target=0.3 is for a sparsity above 0"),
        ({"code": "sigmoid", "sparsity_target": 0.3}, "sparsity_target=0.3 is for a sparsity above 0"),
        ({"network": "mpl"}, "network=mpl: give one of mlp"),
    ],
)
def test_parts_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create("ae-stacked", **settings)
