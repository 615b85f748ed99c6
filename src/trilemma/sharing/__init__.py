"""One's own models out: as graphs of ONNX."""

from trilemma.sharing.export import export

__all__ = ["export"]
