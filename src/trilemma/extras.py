"""The optional parts of the installation, and the command that installs one."""

import shutil
import sys
import tomllib
from pathlib import Path

EXTRAS = {  # as in pyproject.toml
    "hub": ("datasets>=4", "pyarrow>=23.0.1", "transformers>=4.57"),
    "video": ("av>=15",),
    "pretrained": ("diffusers>=0.42", "transformers>=5.23", "accelerate>=1.15"),
    "studio": ("fastapi>=0.141", "python-multipart>=0.0.31", "uvicorn>=0.50"),
    "export": ("onnx>=1.20", "onnxscript>=0.6", "onnxruntime>=1.23"),
}


def install_line(extra: str) -> str:
    """The command that adds an optional part: from the project's folder if it is a checkout, else package by package.

    It can be typed anywhere and installs into the environment that runs.
    """
    project = checkout()
    if project is not None:
        return f'{pip()} install -e "{project}[{extra}]"'
    return " ".join([pip(), "install", *(f'"{package}"' for package in EXTRAS[extra])])


def reinstall_line() -> str:
    """The command that installs everything again."""
    project = checkout()
    return f'{pip()} install -e "{project}"' if project else f"{pip()} install --force-reinstall WHEEL"


def pip() -> str:
    """How the pip of the environment that runs is typed."""
    first = shutil.which("pip")
    same = first is not None and Path(first).parent == Path(sys.executable).parent
    return "pip" if same else f"{_quoted(sys.executable)} -m pip"


def checkout() -> Path | None:
    """The project's own folder, if this is where the code lies."""
    folder = Path(__file__).parents[2]
    try:
        name = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]["name"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return folder if name == "trilemma" else None


def _quoted(path: str) -> str:
    return f'"{path}"' if " " in path else path
