"""docs/sharing.md: its trainings and exports run, of fewer steps, and so do its programs on what they leave."""

import re
from pathlib import Path

import pytest
from pages import commands

from trilemma.cli import main as cli

PAGE = Path(__file__).parents[2] / "docs" / "sharing.md"
SHORT = {"train": ["steps=2", "batch=8"], "export": []}  # of each verb that is run here: keys that are added
OF_PART = ["autoencoder.steps=2", "autoencoder.batch=8", "check=false"]


def shortened(words):
    """A command of the page with less to do; None for one of another verb (test_push.py has push and hf:)."""
    if words[1] not in SHORT:
        return None
    few = ["shapes:64" if word == "shapes" else word for word in words[1:]]
    return [*few, *SHORT[words[1]], *(OF_PART if "diffusion-latent" in words else [])]


@pytest.mark.slow
def test_the_commands_and_the_programs_run(tmp_path, monkeypatch, capsys):
    for library in ("onnx", "onnxscript", "onnxruntime", "diffusers"):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text("utf-8")
    lines = list(filter(None, map(shortened, commands(text))))
    assert len(lines) >= 10
    for words in lines:
        assert cli.main(words) == 0, (words, capsys.readouterr().err)
    programs = re.findall(r"^```py\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(programs) == 4
    for program in programs:
        names = {}
        exec(program, names)
        assert len(names["images"]) >= 4
