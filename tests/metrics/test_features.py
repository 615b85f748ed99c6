"""One path from images to features for real and generated images, and networks that are what their card says."""

import json

import pytest
import torch

from trilemma.classifiers.bundled import FeatureNetwork, load_network
from trilemma.classifiers.classifier import Classifier, ClassifierConfig
from trilemma.errors import UserError
from trilemma.metrics.features import choose, extract, feature_network, to_channels, to_levels
from trilemma.metrics.nearest import nearest_training_images
from trilemma.run.tensor_files import write_tensors


def random_network(shape=(1, 8, 8), seed=0):
    torch.manual_seed(seed)
    return FeatureNetwork("random", Classifier(ClassifierConfig(shape=shape, widths=(8, 16))), shape)


def levels(n, *shape, seed=0):
    return torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def write_network(folder, name="digits-cnn"):
    from trilemma.files import sha256_of, write_json

    network = random_network()
    weights = folder / f"{name}.safetensors"
    write_tensors(weights, network.network.state_dict())
    card = {"config": network.network.config.to_json(), "sha256": sha256_of(weights)}
    write_json(folder / f"{name}.json", card)
    return network


def test_all_256_levels_survive():
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_levels(image.float() / 255), image)
    assert torch.equal(to_levels(image), image)
    assert to_levels(torch.tensor([[[[-0.5, 1.5, 0.499 / 255, 0.501 / 255]]]])).flatten().tolist() == [0, 255, 0, 1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite(bad):
    images = torch.zeros(5, 1, 4, 4)
    images[3, 0, 1, 1] = bad
    with pytest.raises(UserError, match=r"1 of 5 images .* number 3"):
        to_levels(images)


def test_real_and_generated_take_one_path():
    """A float image and the uint8 image it becomes in a file have the same features."""
    network, images = random_network(), levels(10, 1, 8, 8)
    jitter = 0.4 / 255 * (2 * torch.rand(images.shape) - 1)
    assert torch.equal(extract(network, images), extract(network, images.float() / 255 + jitter))


def test_batches_change_nothing():
    network, images = random_network(), levels(23, 1, 8, 8)
    whole = extract(network, images)
    assert whole.dtype == torch.float64
    assert whole.shape == (23, 16)
    assert torch.allclose(whole, extract(network, images, batch=5), atol=1e-6)
    assert not network.network.training


def test_resize_rule():
    network = random_network((1, 28, 28))
    assert network.resize_rule((1, 28, 28)) == "none"
    assert network.resize_rule((1, 32, 32)) == "bilinear-antialias to 28x28"
    assert network.resize_rule((3, 28, 28)) == "grey"
    assert network.resize_rule((3, 64, 48)) == "bilinear-antialias to 28x28, grey"
    assert random_network((3, 32, 32)).resize_rule((1, 32, 32)) == "colour"


def test_resizing_is_the_stated_one():
    """A constant stays constant; a checkerboard of single pixels becomes its mean, which plain bilinear misses."""

    class Pixels(torch.nn.Module):
        def features(self, image):
            return image.flatten(1)

    pixels = FeatureNetwork("pixels", Pixels(), (1, 4, 4))
    constant = torch.full((1, 1, 9, 13), 100, dtype=torch.uint8)
    assert torch.allclose(extract(pixels, constant), torch.tensor(100 / 255).double(), atol=1e-6)
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 200
    centre = extract(pixels, board.to(torch.uint8).expand(1, 1, 16, 16)).reshape(4, 4)[1:3, 1:3]
    assert torch.allclose(centre, torch.tensor(100 / 255).double(), atol=0.02)


def test_channels_are_brought_together_where_the_images_are(device):
    colour = torch.rand(2, 3, 4, 4, device=device)
    assert to_channels(colour, 1).device == colour.device and to_channels(colour, 1).shape == (2, 1, 4, 4)


def test_channels():
    grey = torch.rand(2, 1, 3, 3)
    assert torch.equal(to_channels(grey, 3), grey.repeat(1, 3, 1, 1))
    assert torch.allclose(to_channels(to_channels(grey, 3), 1), grey, atol=1e-6)
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    assert to_channels(red, 1).item() == pytest.approx(0.299)
    clear = torch.tensor([1.0, 0.0, 0.0, 0.25]).view(1, 4, 1, 1)
    assert to_channels(clear, 3).flatten().tolist() == [1.0, 0.75, 0.75]
    with pytest.raises(UserError, match="2 channels"):
        to_channels(torch.zeros(1, 2, 3, 3), 1)


@pytest.mark.parametrize(
    ("shape", "data", "name"),
    [
        ((1, 8, 8), "digits", "digits-cnn"),
        ((1, 28, 28), "mnist", "mnist-cnn"),
        ((1, 32, 32), "mnist", "mnist-cnn"),
        ((1, 28, 28), "mnist-binary", "mnist-cnn"),
        ((1, 28, 28), "fashion-mnist", "fashion-mnist-cnn"),
        ((3, 32, 32), "cifar10", "cifar10-cnn"),
        ((3, 28, 28), "mnist", "cifar10-cnn"),
        ((1, 12, 12), "stamps", "digits-cnn"),
        ((1, 13, 8), "stamps", "fashion-mnist-cnn"),
        ((1, 56, 40), "scans", "fashion-mnist-cnn"),
        ((1, 40, 57), "scans", "efficientnet-lite0"),
        ((1, 64, 64), "mnist", "mnist-cnn"),
        ((3, 64, 64), "photos", "cifar10-cnn"),
        ((3, 64, 65), "photos", "efficientnet-lite0"),
        ((3, 24, 32), "icons", "cifar10-cnn"),
    ],
)
def test_automatic_choice_says_why(shape, data, name):
    chosen, note = choose(shape, data)
    assert chosen == name
    assert name in note and data in note


def test_unknown_network():
    with pytest.raises(UserError, match='did you mean "mnist-cnn"'):
        feature_network("mnist-cn", (1, 28, 28), "mnist")


def test_networks_are_what_their_card_says(tmp_path):
    network = write_network(tmp_path)
    loaded = load_network("digits-cnn", folder=tmp_path)
    images = levels(4, 1, 8, 8)
    assert torch.equal(extract(loaded, images), extract(network, images))
    assert not any(p.requires_grad for p in loaded.network.parameters())

    weights = tmp_path / "digits-cnn.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match="not the file its card describes"):
        load_network("digits-cnn", folder=tmp_path)
    weights.unlink()
    with pytest.raises(UserError, match="install the package again"):
        load_network("digits-cnn", folder=tmp_path)
    with pytest.raises(UserError, match="has no card"):
        load_network("mnist-cnn", folder=tmp_path)


def test_card_is_plain_json(tmp_path):
    write_network(tmp_path)
    assert json.loads((tmp_path / "digits-cnn.json").read_text("utf-8"))["config"]["shape"] == [1, 8, 8]


def test_nearest_training_images():
    network, train = random_network(), levels(50, 1, 8, 8)
    picks = torch.tensor([41, 3, 17])
    index, distance = nearest_training_images(extract(network, train[picks].float() / 255), train, network)
    assert torch.equal(index, picks)
    assert distance.max() < 1e-5
    others = levels(6, 1, 8, 8, seed=1)
    queries = extract(network, others)
    index, distance = nearest_training_images(queries, train, network)
    gaps = (extract(network, others)[:, None] - extract(network, train)).square().sum(2).sqrt()  # (6, 50)
    assert torch.equal(index, gaps.argmin(1))
    assert torch.allclose(distance, gaps.min(1).values)
    again = nearest_training_images(queries, train, network, block=7)
    assert torch.equal(again[0], index)
    assert torch.allclose(again[1], distance, atol=1e-5)


def test_features_that_are_not_finite_are_refused() -> None:
    """A network that divides by the brightness of an image, on a black one."""

    class Ratio(torch.nn.Module):
        def features(self, image: torch.Tensor) -> torch.Tensor:
            return image.flatten(1) / image.flatten(1).sum(1, keepdim=True)

    images = torch.stack([torch.ones(1, 4, 4), torch.zeros(1, 4, 4)])
    with pytest.raises(UserError, match=r"1 of 2 features by ratio hold NaN .*number 1\); nothing is measured"):
        extract(FeatureNetwork("ratio", Ratio(), (1, 4, 4)), images)
