"""What the verbs that explore a model print: every one is called once through the command line."""

import re

import pytest

from trilemma.cli.main import main

WIDEST = 120


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two short runs of digits: one that encodes and decodes, one that takes a class."""
    home = tmp_path_factory.mktemp("printed")
    for model, name in (("vae", "plain"), ("vae-conditional", "classes")):
        words = [
            "train",
            model,
            "digits",
            "steps=3",
            "latent=4",
            "batch=16",
            "device=cpu",
            f"out={home / name}",
            "quiet=true",
        ]
        assert main(words) == 0
    return home


def printed(words, home, monkeypatch, capsys):
    monkeypatch.chdir(home)  # paths are as long as they are typed
    capsys.readouterr()
    code, out = main(words), capsys.readouterr()
    assert code == 0, out.err
    return out.out


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["detect", "plain"],
        ["detect", "plain", "against=plain/batch.png"],
        ["detect", "plain", "against=shapes", "n=200"],
        ["augment", "classes", "n=20", "verdict=false", "quiet=true"],
        ["disentangle", "plain", "n=250", "quiet=true"],
        ["compress", "plain", "n=20"],
        ["reconstruct", "plain"],
        ["interpolate", "plain", "0", "1"],
        ["traverse", "plain"],
        ["map", "plain", "how=pca", "n=50"],
        ["edit", "plain", "0", "towards=3"],
    ],
    ids=" ".join,
)
def test_figures_are_readable(words, home, monkeypatch, capsys):
    text = printed(words, home, monkeypatch, capsys)
    assert text.strip() and "{'" not in text and "Estimate(" not in text and "tensor(" not in text
    assert max(map(len, text.splitlines())) <= WIDEST, text


def test_the_columns_of_a_detection(home, monkeypatch, capsys):
    parts = printed(["detect", "plain", "against=shapes", "n=200"], home, monkeypatch, capsys).split("\n\n")
    first, second, sentences, _ = parts
    lines = first.splitlines()
    heads = [re.split(r"\s{2,}", part.splitlines()[0]) for part in (first, second)]
    assert heads[0] == ["score", "what it is", "threshold", "false alarms (95% interval)", "chosen"]
    assert heads[1] == ["score", "AUROC (95% interval)", "AP (95% interval)", "flagged share (95% interval)"]
    assert sum(line.endswith(" yes") for line in lines) == 1
    assert " to " in second.splitlines()[1]
    assert "of 200 abnormal images are flagged" in " ".join(sentences.split())


def test_a_codec_that_misses_the_budget_says_so(home, monkeypatch, capsys):
    """A code of 4 numbers has 8 bytes, which no JPEG file fits into."""
    lines = printed(["compress", "plain", "n=20"], home, monkeypatch, capsys).splitlines()
    at = lines[0].index("within")
    within = {
        line.split("  ")[0] + (" file" if "whole file" in line else ""): line[at:].split()[0] for line in lines[1:7]
    }
    assert within["vae"] == within["PCA"] == "100.0%" and within["JPEG file"] == within["WebP file"] == "0.0%"
    assert lines[7].startswith("within: share of images in at most 8 bytes")
