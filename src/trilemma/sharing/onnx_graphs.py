"""Graphs as ONNX: converted by torch's exporter, and compared with the model in onnxruntime."""

import contextlib
import io
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trilemma.errors import UserError
from trilemma.extras import install_line
from trilemma.modes import own_modes
from trilemma.pretrained.libraries import brief, silent_logs
from trilemma.sharing.graphs import Graph, described
from trilemma.sharing.parity import Parity, check_parity, parity_of, worst

BATCHES = (1, 5)  # that are compared
EXAMPLE = 3  # images of the batch that the exporter sees
LARGEST = 1_800 << 20  # bytes of the weights in one file, whose format ends at 2 GB


class Converted(NamedTuple):
    """A graph as a file, and what is said of it."""

    content: bytes
    about: dict[str, Any]


class _Function(nn.Module):
    """A graph as the exporter takes it: a module, whose weights are the model's."""

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        super().__init__()
        self.model, self.graph = model, graph

    def forward(self, *inputs: Tensor) -> Tensor:
        """The output of the graph."""
        return self.graph.compute(*inputs)


def check_installed() -> None:
    """Raises UserError where a library of the extra `export` is missing, with the line that installs it."""
    try:
        import onnx  # noqa: F401  # pyright: ignore[reportMissingImports]
        import onnxruntime  # noqa: F401  # pyright: ignore[reportMissingImports]
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(f"to=onnx needs the library {error.name}: {install_line('export')}") from None


def convert(model: nn.Module, graph: Graph, name: str) -> Converted:
    """A graph of a model, as ONNX with a batch of any size.

    Args:
        model: on the CPU, in eval mode; name: of the run, for messages.
    Raises:
        UserError: the weights are too large for a file, the exporter cannot convert it, or the two disagree.
    """
    size = sum(value.nbytes for value in model.state_dict().values())
    if size > LARGEST:
        raise UserError(f"{name} has {size:,} bytes of weights; one ONNX file holds {LARGEST:,} at most")
    with own_modes(), torch.no_grad():
        content = _content(model, graph, name)
        parity, about = _compared(content, graph)
    check_parity(parity, f"the {graph.name} of {name}", "onnxruntime")
    return Converted(content, {**about, **parity.record, "parity_batches": list(BATCHES)})


def _content(model: nn.Module, graph: Graph, name: str) -> bytes:
    """The file, without what the exporter notes of this machine."""
    example = graph.draw(EXAMPLE)
    batch = tuple({0: torch.export.Dim.DYNAMIC} for _ in example)
    names: dict[str, Any] = {"input_names": list(graph.inputs), "output_names": [graph.output]}
    quiet = io.StringIO()
    try:
        with silent_logs(), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            program = torch.onnx.export(
                _Function(model, graph).eval(), example, dynamo=True, verbose=False, dynamic_shapes=(batch,), **names
            )
        assert program is not None
        proto = program.model_proto
    except Exception as error:  # the exporter has many kinds
        raise UserError(
            f"the {graph.name} of {name} cannot be converted to ONNX: {brief(error.__cause__ or error)}"
        ) from error
    _forget_sources(proto)
    return proto.SerializeToString()


def _forget_sources(proto: Any) -> None:
    """Remove the lines of source, with their paths on this machine, that the exporter writes to each node."""
    for part in (proto.graph, *proto.functions):
        part.ClearField("metadata_props")
        for entry in (*part.node, *part.value_info):
            entry.ClearField("metadata_props")
            entry.ClearField("doc_string")


def _compared(content: bytes, graph: Graph) -> tuple[Parity, dict[str, Any]]:
    """How far the graph is from the model, and the types and shapes of inputs and output."""
    session = session_of(content)
    parities = []
    for n in BATCHES:
        inputs = graph.draw(n, seed=n)
        expected = graph.compute(*inputs)
        given = {name: value.numpy() for name, value in zip(graph.inputs, inputs, strict=True)}
        (result,) = session.run([graph.output], given)
        if result.shape != tuple(expected.shape):
            return Parity(float("inf"), 1.0), {}
        parities.append(parity_of(torch.from_numpy(result), expected))
    slots = [*session.get_inputs(), *session.get_outputs()]
    shapes = {slot.name: ["batch", *slot.shape[1:]] for slot in slots}
    dtypes = {slot.name: slot.type.removeprefix("tensor(").removesuffix(")") for slot in slots}
    return worst(parities), described(graph, shapes, dtypes)


def session_of(content: bytes) -> Any:
    """A session of onnxruntime on the CPU, whose idle threads leave the processor to torch."""
    import onnxruntime  # pyright: ignore[reportMissingImports]

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
