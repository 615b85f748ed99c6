"""What a model does, as functions of tensors alone, which can be written as graphs.

    encoder     image [, label]               -> code
    decoder     code [, label]                -> image
    generator   z [, label] [, noise]         -> image
    denoiser    x_t, alpha, sigma [, label]   -> x0_hat of x_t = alpha x0 + sigma eps
    critic      image                         -> logit

The first dimension of each is the batch. A function keeps no state and draws no random numbers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.errors import UserError
from trilemma.registry import models_that
from trilemma.types import (
    UNCONDITIONAL,
    Condition,
    Conditional,
    Decodes,
    DenoisesOnAnySchedule,
    DrawsCodes,
    Encodes,
    HasEstimator,
    JudgesRealness,
    ReadsCaptions,
    TakesNoise,
    codes_need,
    flags,
)

Shape = tuple[int, int, int]
LEVEL = (0.05, 0.95)  # of the angle whose cosine and sine alpha and sigma are, in quarter turns, in a check
CAPABLE = (Encodes, Decodes, DrawsCodes, DenoisesOnAnySchedule, HasEstimator)  # of which a model has one at least


@dataclass(frozen=True)
class Slot:
    """An input of a graph: what it holds, and values for a check, `draw(n, rng) -> (n, ...)`."""

    about: str
    draw: Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Graph:
    """A function of tensors: `compute(*inputs) -> output`, in the order of `inputs`."""

    name: str
    inputs: Mapping[str, Slot]
    output: str
    about: str
    compute: Callable[..., Tensor]

    def draw(self, n: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Values of all inputs for n images."""
        rng = torch.Generator().manual_seed(seed)
        return tuple(slot.draw(n, rng) for slot in self.inputs.values())


@dataclass(frozen=True)
class Levels:
    """A schedule of which one time alone is asked, each image's own: alpha and sigma (B,)."""

    alphas: Tensor
    sigmas: Tensor

    def alpha(self, t: Tensor) -> Tensor:
        """Factor of x0."""
        return self.alphas.double()

    def sigma(self, t: Tensor) -> Tensor:
        """Factor of eps."""
        return self.sigmas.double()


def graphs_of(model: nn.Module, name: str, shape: Shape) -> list[Graph]:
    """What a model on the CPU does.

    Args:
        name: of the model; shape: of its images.
    Raises:
        UserError: nothing that could be a graph, with the reason and the models that can be.
    """
    if isinstance(model, ReadsCaptions):
        raise _refusal(name, "it reads captions, and a graph takes numbers alone")
    graphs = [*_coders(model, shape), *_generators(model), *_denoisers(model, shape), *_critics(model, shape)]
    if not graphs:
        raise _refusal(name, "it has no encoder, decoder, generator or denoiser")
    return graphs


def _refusal(name: str, reason: str) -> UserError:
    reading = models_that(ReadsCaptions)
    able = {other for capability in CAPABLE for other in models_that(capability)} - set(reading)
    names = [other for other in models_that() if other in able]
    return UserError(f"{name} cannot be exported to onnx: {reason}; models that can: {', '.join(names)}")


def _coders(model: nn.Module, shape: Shape) -> list[Graph]:
    """Encoder and decoder."""
    labels = _labels(model, nulls=False) if "label" in codes_need(model) else {}
    graphs = []
    if isinstance(model, Encodes):

        def encode(image: Tensor, *label: Tensor) -> Tensor:
            return model.encode(image, _condition(label))

        graphs.append(Graph("encoder", {"image": _image(shape), **labels}, "code", "a code of the image", encode))
    if isinstance(model, Decodes):

        def decode(code: Tensor, *label: Tensor) -> Tensor:
            return model.decode(code, _condition(label))

        inputs = {"code": _code(model, shape, labels), **labels}
        graphs.append(Graph("decoder", inputs, "image", "in [0, 1]", decode))
    return graphs


def _generators(model: nn.Module) -> list[Graph]:
    """Of a model that draws codes first, the way from latents z to images."""
    if not isinstance(model, DrawsCodes):
        return []
    source = model.in_z()
    labels = _labels(model, nulls=False)
    length = flags(source).code_length
    assert length is not None
    inputs = {"z": Slot("standard normal", _normal((length,))), **labels}

    def generate(z: Tensor, *label: Tensor) -> Tensor:
        return source.generate(z, _condition(label))

    def generate_with_noise(z: Tensor, *given: Tensor) -> Tensor:
        *label, noise = given
        assert isinstance(model, TakesNoise)
        return model.from_noise(z, noise, *label)

    if not isinstance(model, TakesNoise):
        return [Graph("generator", inputs, "image", "in [0, 1]", generate)]
    inputs["noise"] = Slot("standard normal: the noise inputs of all layers", _normal((model.n_noise,)))
    return [Graph("generator", inputs, "image", "in [0, 1]", generate_with_noise)]


def _denoisers(model: nn.Module, shape: Shape) -> list[Graph]:
    source = model.estimator if isinstance(model, HasEstimator) else model
    if not isinstance(source, DenoisesOnAnySchedule):
        return []
    noisy, takes = source.x_shape, flags(model).takes
    labels = _labels(model, nulls=flags(model).null_condition)
    factor = flags(model).factor
    small = (shape[0], shape[1] // factor, shape[2] // factor)
    shown = (
        {"image": Slot("the smaller or the masked image, in [0, 1]", _image(small).draw)} if "image" in takes else {}
    )
    mask = {"mask": Slot("1 where pixels are drawn, else 0", _mask(shape))} if "mask" in takes else {}
    inputs = {
        "x_t": Slot("alpha x0 + sigma eps, with x0 in [-1, 1] or a standardised code", _normal(noisy)),
        "alpha": Slot("of each image, at least 0", lambda n, rng: _angle(n, rng).cos()),
        "sigma": Slot("of each image, above 0", lambda n, rng: _angle(n, rng).sin()),
        **labels,
        **shown,
        **mask,
    }
    asked = [*labels, *shown, *mask]

    def denoise(x_t: Tensor, alpha: Tensor, sigma: Tensor, *given: Tensor) -> Tensor:
        fields: dict[str, Any] = dict(zip(asked, given, strict=True))
        estimate = source.denoiser(Levels(alpha, sigma), Condition(**fields), x_t.shape[0], clips=source is model)
        return estimate(x_t, torch.zeros_like(alpha))

    return [Graph("denoiser", inputs, "x0_hat", "the estimate of x0, as x_t", denoise)]


def _critics(model: nn.Module, shape: Shape) -> list[Graph]:
    if not isinstance(model, JudgesRealness):
        return []
    return [Graph("critic", {"image": _image(shape)}, "logit", "higher for real images", model.realness)]


def _condition(label: tuple[Tensor, ...]) -> Condition:
    return Condition(label[0]) if label else UNCONDITIONAL


def _labels(model: nn.Module, *, nulls: bool) -> dict[str, Slot]:
    """The classes of a model, with one for none where it has learned that; {} without classes."""
    if not isinstance(model, Conditional):
        return {}
    count = flags(model).n_classes
    about = f"class, 0 to {count - 1}" + (f"; {count}: none" if nulls else "")
    return {"label": Slot(about, lambda n, rng: torch.randint(count + nulls, (n,), generator=rng))}


def _image(shape: Shape) -> Slot:
    return Slot("in [0, 1]", lambda n, rng: torch.rand(n, *shape, generator=rng))


def _code(model: Decodes, shape: Shape, labels: Mapping[str, Slot]) -> Slot:
    """Codes of images where the model has an encoder, else standard normal ones."""

    def draw(n: int, rng: torch.Generator) -> Tensor:
        if not isinstance(model, Encodes):
            return _normal((flags(model).code_length or 0,))(n, rng)
        image = torch.rand(n, *shape, generator=rng)
        with torch.no_grad():
            return model.encode(image, _condition(tuple(slot.draw(n, rng) for slot in labels.values())))

    return Slot("a code, as the encoder gives it", draw)


def _normal(shape: tuple[int, ...]) -> Callable[[int, torch.Generator], Tensor]:
    return lambda n, rng: torch.randn(n, *shape, generator=rng)


def _mask(shape: Shape) -> Callable[[int, torch.Generator], Tensor]:
    return lambda n, rng: torch.rand(n, 1, *shape[1:], generator=rng).round()


def _angle(n: int, rng: torch.Generator) -> Tensor:
    """Angles (n,) between no noise and all of it: those of alpha are those of sigma."""
    low, high = LEVEL
    return torch.linspace(low, high, n + 2)[1:-1] * torch.pi / 2


def described(graph: Graph, shapes: Mapping[str, list[Any]], dtypes: Mapping[str, str]) -> dict[str, Any]:
    """Inputs and output of a graph by name: what each holds, its type and its shape."""
    about = {name: slot.about for name, slot in graph.inputs.items()} | {graph.output: graph.about}
    rows = {name: {"type": dtypes[name], "shape": shapes[name], "about": text} for name, text in about.items()}
    return {"inputs": {name: rows[name] for name in graph.inputs}, "outputs": {graph.output: rows[graph.output]}}
