"""The network of published Frechet distances: its layout, its arithmetic, and the way its weights are fetched."""

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
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
