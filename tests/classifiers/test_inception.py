"""The network of published Frechet distances: its layout, its arithmetic, and the way its weights are fetched."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trilemma.classifiers import inception
from trilemma.errors import UserError
from trilemma.metrics.features import bilinear_of_tensorflow_1, extract, feature_network
from trilemma.nets.inception import AVERAGE, LARGEST, SHRINK, InceptionV3, pooled

PUBLISHED_BYTES = 95_628_359


@pytest.fixture(scope="module")
def network() -> InceptionV3:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return InceptionV3().eval()


def small_weights(network: nn.Module) -> dict[str, Tensor]:
    """Weights of the layout, one number for each tensor, so that a file of them is small."""
    start = torch.Generator().manual_seed(0)
    shapes = {name: value.shape for name, value in network.state_dict().items() if "num_batches" not in name}
    return {name: (0.02 * torch.rand(1, generator=start)).view(-1)[0].expand(shape) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def served(network: InceptionV3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of such a file on a server of this machine, and its hash."""
    folder = tmp_path_factory.mktemp("served")
    torch.save(small_weights(network), folder / "weights.pth")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    digest = hashlib.sha256((folder / "weights.pth").read_bytes()).hexdigest()
    yield f"http://127.0.0.1:{server.server_address[1]}/weights.pth", digest
    server.shutdown()


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_layout_is_that_of_the_published_file(network: InceptionV3) -> None:
    """As many numbers of 4 bytes as the file has, but for what its format takes."""
    values = {name: v for name, v in network.state_dict().items() if "num_batches" not in name}
    beside = PUBLISHED_BYTES - 4 * sum(v.numel() for v in values.values())
    assert 0 < beside < 1000 * len(values)
    assert values["Mixed_6e.branch7x7dbl_5.conv.weight"].shape == (192, 192, 1, 7)
    assert values["fc.weight"].shape == (1008, 2048) and values["Mixed_7c.branch_pool.bn.running_var"].shape == (192,)


def test_maps_have_the_sizes_of_the_paper(network: InceptionV3) -> None:
    sizes = {}
    for name in ("Conv2d_1a_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c"):
        network.get_submodule(name).register_forward_hook(lambda _, __, y, name=name: sizes.update({name: y.shape[1:]}))
    with torch.no_grad():
        features = network.features(torch.rand(1, 3, 299, 299))
    assert sizes == {
        "Conv2d_1a_3x3": (32, 149, 149),
        "Conv2d_4a_3x3": (192, 71, 71),
        "Mixed_5d": (288, 35, 35),
        "Mixed_6e": (768, 17, 17),
        "Mixed_7c": (2048, 8, 8),
    }
    assert features.shape == (1, 2048)


def test_poolings_by_hand() -> None:
    x = torch.arange(9.0).view(1, 1, 3, 3)
    assert pooled(x, AVERAGE)[0, 0, 0, 0] == (0 + 1 + 3 + 4) / 4  # the four pixels inside the map
    assert pooled(x, AVERAGE)[0, 0, 1, 1] == 4 and pooled(x, LARGEST)[0, 0, 0, 0] == 4
    assert pooled(x, SHRINK).tolist() == [[[[8.0]]]]


Layer = Callable[..., Tensor]  # a layer by its name, of a map, with its padding and stride


def mean_inside(x: Tensor) -> Tensor:
    """The mean of those of 3 x 3 pixels that lie inside the map."""
    return F.avg_pool2d(x, 3, 1, 1) / F.avg_pool2d(torch.ones_like(x), 3, 1, 1)


def figure_5(layer: Layer, x: Tensor) -> list[Tensor]:
    """Szegedy et al. (2016), with one 5 x 5 convolution, as the network of 2015 has it."""
    double = layer("branch3x3dbl_2", layer("branch3x3dbl_1", x), 1)
    return [
        layer("branch1x1", x),
        layer("branch5x5_2", layer("branch5x5_1", x), 2),
        layer("branch3x3dbl_3", double, 1),
        layer("branch_pool", mean_inside(x)),
    ]


def figure_6(layer: Layer, x: Tensor) -> list[Tensor]:
    across, down = (0, 3), (3, 0)  # of kernels of 1 x 7 and 7 x 1
    single = layer("branch7x7_2", layer("branch7x7_1", x), across)
    double = layer("branch7x7dbl_3", layer("branch7x7dbl_2", layer("branch7x7dbl_1", x), down), across)
    double = layer("branch7x7dbl_5", layer("branch7x7dbl_4", double, down), across)
    pool = layer("branch_pool", mean_inside(x))
    return [layer("branch1x1", x), layer("branch7x7_3", single, down), double, pool]


def figure_7(layer: Layer, x: Tensor, pool: Callable[[Tensor], Tensor]) -> list[Tensor]:
    single = layer("branch3x3_1", x)
    double = layer("branch3x3dbl_2", layer("branch3x3dbl_1", x), 1)
    return [
        layer("branch1x1", x),
        *(layer(f"branch3x3_2{k}", single, padding) for k, padding in (("a", (0, 1)), ("b", (1, 0)))),
        *(layer(f"branch3x3dbl_3{k}", double, padding) for k, padding in (("a", (0, 1)), ("b", (1, 0)))),
        layer("branch_pool", pool(x)),
    ]


def to_17(layer: Layer, x: Tensor) -> list[Tensor]:
    """Figure 10, with strides of 2."""
    double = layer("branch3x3dbl_2", layer("branch3x3dbl_1", x), 1)
    return [layer("branch3x3", x, 0, 2), layer("branch3x3dbl_3", double, 0, 2), F.max_pool2d(x, 3, 2)]


def to_8(layer: Layer, x: Tensor) -> list[Tensor]:
    double = layer("branch7x7x3_3", layer("branch7x7x3_2", layer("branch7x7x3_1", x), (0, 3)), (3, 0))
    single = layer("branch3x3_2", layer("branch3x3_1", x), 0, 2)
    return [single, layer("branch7x7x3_4", double, 0, 2), F.max_pool2d(x, 3, 2)]


BY_HAND = {
    "Mixed_5b": (192, figure_5),
    "Mixed_6a": (288, to_17),
    "Mixed_6b": (768, figure_6),
    "Mixed_7a": (768, to_8),
    "Mixed_7b": (1280, partial(figure_7, pool=mean_inside)),
    "Mixed_7c": (2048, partial(figure_7, pool=lambda x: F.max_pool2d(x, 3, 1, 1))),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_block_by_hand(network: InceptionV3, name: str) -> None:
    """A map of 9 x 9 pixels by plain calls, with moments of the batch norms that differ from 0 and 1."""
    start, block = torch.Generator().manual_seed(0), deepcopy(network.get_submodule(name))
    for norm in (module for module in block.modules() if isinstance(module, nn.BatchNorm2d)):
        for values, low, high in (
            (norm.running_mean, -0.2, 0.2),
            (norm.running_var, 0.5, 2.0),
            (norm.weight, 0.5, 1.5),
            (norm.bias, -0.2, 0.2),
        ):
            assert values is not None
            values.data.uniform_(low, high, generator=start)
    weights = block.state_dict()

    def layer(name: str, x: Tensor, padding: int | tuple[int, int] = 0, stride: int = 1) -> Tensor:
        y = F.conv2d(x, weights[f"{name}.conv.weight"], stride=stride, padding=padding)
        keys = ("running_mean", "running_var", "weight", "bias")
        mean, variance, scale, shift = (weights[f"{name}.bn.{key}"].view(1, -1, 1, 1) for key in keys)
        return F.relu((y - mean) / (variance + 0.001).sqrt() * scale + shift)

    width, plain = BY_HAND[name]
    x = torch.rand(1, width, 9, 9, generator=start)
    with torch.no_grad():
        torch.testing.assert_close(block(x), torch.cat(plain(layer, x), 1), rtol=1e-4, atol=1e-5)


def test_images_come_between_minus_one_and_one_and_the_last_maps_are_averaged(network: InceptionV3) -> None:
    seen: dict[str, Tensor] = {}
    hooks = [
        network.get_submodule("Conv2d_1a_3x3").register_forward_pre_hook(lambda _, x: seen.update(first=x[0])),
        network.get_submodule("Mixed_7c").register_forward_hook(lambda _, __, y: seen.update(last=y)),
    ]
    image = torch.rand(1, 3, 107, 107, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = network.features(image)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(seen["first"], (255 * image - 128) / 128)
    assert seen["last"].shape[2:] == (2, 2)
    torch.testing.assert_close(features, seen["last"].sum((2, 3)) / 4)


def test_the_resizing_of_tensorflow_1_by_its_definition() -> None:
    """A ramp stays a ramp i m / n, up to the last pixel; a shrunk image takes single pixels."""
    ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 4, 4)
    larger = bilinear_of_tensorflow_1(ramp, [8, 8])
    assert larger[0, 0, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]
    assert torch.equal(larger[0, 0, 0], larger[0, 0, 7])
    image = torch.rand(2, 3, 6, 9)
    assert torch.equal(bilinear_of_tensorflow_1(image, [3, 3]), image[:, :, ::2, ::3])
    assert torch.equal(bilinear_of_tensorflow_1(image, [6, 9]), image)


@pytest.mark.slow
def test_weights_are_fetched_once_and_checked(served: tuple[str, str], own_cache: Path) -> None:
    url, digest = served
    network = inception.load_inception(url=url, sha256=digest)
    (file,) = (own_cache / "networks").iterdir()
    assert file.name == inception.FILE and network.sha256 == digest
    expected = small_weights(network.network)
    for name, value in network.network.state_dict().items():
        assert "num_batches" in name or torch.equal(value.cpu(), expected[name]), name
    again = inception.load_inception(url="http://127.0.0.1:9/nothing", sha256=digest)
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    features = extract(network, images)
    assert features.shape == (2, 2048) and torch.equal(features, extract(again, images))
    assert network.resize_rule((1, 8, 8)) == "bilinear-tensorflow1 to 299x299, colour"


def test_another_file_is_refused_and_not_kept(served: tuple[str, str], own_cache: Path) -> None:
    with pytest.raises(UserError, match=r"is not the file it should be: sha256 .* instead of 6726825d"):
        inception.load_inception(url=served[0])
    assert not list((own_cache / "networks").iterdir())
    (own_cache / "networks" / inception.FILE).write_bytes(b"something else")
    with pytest.raises(UserError, match=r"is not the published file: .*; remove it"):
        inception.load_inception(url=served[0])


def test_it_is_asked_for_by_its_name(served: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(inception.MIRROR, served[0])
    with pytest.raises(UserError, match="is not the file it should be"):
        feature_network("inception", (3, 32, 32), "cifar10")
    with pytest.raises(UserError, match='did you mean "inception"'):
        feature_network("inceptio", (3, 32, 32), "cifar10")


def test_the_arithmetic_is_that_of_torch_fidelity(network: InceptionV3, tmp_path: Path) -> None:
    module = pytest.importorskip(
        "torch_fidelity.feature_extractor_inceptionv3", reason="needs torch-fidelity", exc_type=ImportError
    )
    torch.save(dict(network.state_dict()), tmp_path / "weights.pth")
    theirs = module.FeatureExtractorInceptionV3(
        "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(tmp_path / "weights.pth")
    )
    images = (256 * torch.rand(4, 3, 32, 32)).floor().to(torch.uint8)
    expected, logits = theirs(images)
    ours = inception.FeatureNetwork("inception", network, (3, 299, 299), resize="bilinear-tensorflow1")
    features = extract(ours, images)
    torch.testing.assert_close(features.float(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.classify(features.float()), logits, rtol=1e-4, atol=1e-5)
