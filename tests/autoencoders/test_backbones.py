"""Encoders and decoders: every size and number of channels, labels, and that no pixel is left out."""

import pytest
import torch

from trilemma.autoencoders.backbones import NetworkConfig, join, make_decoder, make_encoder
from trilemma.errors import UserError

NETWORKS = ["mlp", "conv", "strided", "recurrent", "residual"]
SHAPES = [(1, 8, 8), (3, 12, 9), (1, 28, 28), (3, 33, 20), (3, 64, 64), (3, 1, 1)]


def config_of(network: str, shape: tuple[int, int, int] = (3, 12, 9)) -> NetworkConfig:
    return NetworkConfig.model_validate({"network": network, "shape": shape, "hidden": (16,), "width": 8})


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_image_goes_in_and_comes_out(network: str, shape: tuple[int, int, int]) -> None:
    config, image = config_of(network, shape), torch.rand(3, *shape)
    for last in ("none", "relu", "sigmoid"):
        z = make_encoder(config, 5, last=last)(image)
        assert z.shape == (3, 5)
        assert z.min() >= {"none": -torch.inf, "relu": 0, "sigmoid": 0}[last]
    assert make_decoder(config, 5)(z).shape == image.shape
    assert make_decoder(config, 5, channels=4)(z).shape == (3, 4, *shape[1:])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("shape", [(3, 12, 9), (1, 28, 28)], ids=str)
def test_every_pixel_is_read_and_written(network: str, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    config, image = config_of(network, shape), torch.rand(8, *shape, requires_grad=True)
    make_encoder(config, 5)(image).square().sum().backward()
    assert image.grad is not None and (image.grad.abs().amax(0) > 0).all()
    with torch.no_grad():
        written = make_decoder(config, 5)(torch.randn(64, 5))
    assert (written.std(0) > 0).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_a_label_changes_its_own_image_alone(network: str) -> None:
    torch.manual_seed(0)
    config, image, z = config_of(network), torch.rand(4, 3, 12, 9), torch.randn(4, 5)
    one, other = torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 2, 3])
    for net, x in ((make_encoder(config, 5, n_classes=4), image), (make_decoder(config, 5, n_classes=4), z)):
        change = (net(x, one) - net(x, other)).abs().flatten(1).amax(1)
        assert change[:3].max() < 1e-6 < 1e-4 < change[3]
        with pytest.raises(UserError, match="give labels from 0 to 3"):
            net(x)


def test_labels_are_joined_as_one_hot_channels() -> None:
    x, labels = torch.rand(2, 3, 4, 5), torch.tensor([1, 0])
    joined = join(x, labels, 2)
    assert torch.equal(joined[:, :3], x)
    assert joined[:, 3:].amax((2, 3)).tolist() == joined[:, 3:].amin((2, 3)).tolist() == [[0, 1], [1, 0]]
    assert join(x[:, :, 0, 0], labels, 2)[:, 3:].tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("network", NETWORKS)
def test_an_image_is_coded_the_same_in_any_batch(network: str) -> None:
    torch.manual_seed(0)
    config, image = config_of(network), torch.rand(6, 3, 12, 9)
    encoder, decoder = make_encoder(config, 5).eval(), make_decoder(config, 5).eval()
    with torch.no_grad():
        z = encoder(image)
        assert (encoder(image[4:]) - z[4:]).abs().max() < 1e-5
        assert (decoder(z[4:]) - decoder(z)[4:]).abs().max() < 1e-5


@pytest.mark.parametrize("network", NETWORKS)
def test_half_precision_stays_near(network: str) -> None:
    torch.manual_seed(0)
    config, image = config_of(network), torch.rand(6, 3, 12, 9)
    encoder = make_encoder(config, 5).eval()
    with torch.no_grad():
        exact = encoder(image)
        with torch.autocast("cpu", torch.bfloat16):
            half = encoder(image).float()
    assert 0 < (half - exact).abs().max() < 0.1 * (exact.abs().max() + 0.1)
