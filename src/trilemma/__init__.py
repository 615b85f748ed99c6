"""Train, sample, measure and compare every family of generative image model, on anyone's images.

The names load what they need when they are first used, so `import trilemma` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trilemma.checkup import doctor
    from trilemma.comparison import compare
    from trilemma.course import quiz
    from trilemma.data import check, list_sources, load_data
    from trilemma.errors import UserError
    from trilemma.explore import (
        again,
        augment,
        compress,
        denoise,
        detect,
        disentangle,
        edit,
        imagine,
        interpolate,
        invert,
        latent_map,
        reconstruct,
        sample,
        show,
        traverse,
        upscale,
    )
    from trilemma.lessons import figure, list_figures
    from trilemma.metrics import evaluate
    from trilemma.registry import Recipe, create, list_models, register
    from trilemma.run.run import Run, load
    from trilemma.sharing import export, push
    from trilemma.studio import open_studio
    from trilemma.training import train

__version__ = "0.1.0"

__all__ = [
    "Recipe",
    "Run",
    "UserError",
    "__version__",
    "again",
    "augment",
    "check",
    "compare",
    "compress",
    "create",
    "denoise",
    "detect",
    "disentangle",
    "doctor",
    "edit",
    "evaluate",
    "export",
    "figure",
    "imagine",
    "interpolate",
    "invert",
    "latent_map",
    "list_figures",
    "list_models",
    "list_sources",
    "load",
    "load_data",
    "open_studio",
    "push",
    "quiz",
    "reconstruct",
    "register",
    "sample",
    "show",
    "train",
    "traverse",
    "upscale",
]

_HOME = {
    "Recipe": "registry",
    "Run": "run.run",
    "UserError": "errors",
    "again": "explore",
    "augment": "explore",
    "check": "data",
    "compare": "comparison",
    "compress": "explore",
    "create": "registry",
    "denoise": "explore",
    "detect": "explore",
    "disentangle": "explore",
    "doctor": "checkup",
    "edit": "explore",
    "evaluate": "metrics",
    "export": "sharing",
    "figure": "lessons",
    "imagine": "explore",
    "interpolate": "explore",
    "invert": "explore",
    "latent_map": "explore",
    "list_figures": "lessons",
    "list_models": "registry",
    "list_sources": "data",
    "load": "run.run",
    "load_data": "data",
    "open_studio": "studio",
    "push": "sharing",
    "quiz": "course",
    "reconstruct": "explore",
    "register": "registry",
    "sample": "explore",
    "show": "explore",
    "train": "training",
    "traverse": "explore",
    "upscale": "explore",
}


_VERBS = {"map": "latent_map", "list": "list_models", "studio": "open_studio"}  # words of the command line


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        hint = f"; did you mean trilemma.{_VERBS[name]}?" if name in _VERBS else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
