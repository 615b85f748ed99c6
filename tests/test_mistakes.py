"""Mistakes that people make on the command line: each is answered with what to do instead, and nothing is written.

A row: what is typed, and a pattern of the answer, which is the fix. Rows run in one process, in a folder with runs,
photos and broken files.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import trilemma
from trilemma import announce, vocabulary
from trilemma.cli import main as cli
from trilemma.cli.collect import collect
from trilemma.cli.words import check_words
from trilemma.errors import UserError
from trilemma.run.config import TrainConfig

# --- words: answered before torch is loaded -------------------------------------------------------------------------

WORDS = [
    ("trian vae digits", 'did you mean "train"'),
    ("sampel runs/vae-digits", 'did you mean "sample"'),
    ("help sampel", 'did you mean "sample"'),
    ("help vae", "trilemma list vae"),
    ("vae", "trilemma train vae DATA"),
    ("digits", "compare data=digits"),
    ("runs/vae-digits", "trilemma sample runs/vae-digits"),
    ("version", "trilemma --version"),
    ("data lsit", 'did you mean "list"'),
    ("data digits", "trilemma data show digits"),
    ("train", "trilemma train MODEL DATA"),
    ("train data=digits", "trilemma train MODEL DATA"),
    ("train vea digits", 'did you mean "vae"'),
    ("train gan-dgcan digits", 'did you mean "gan-dcgan"'),
    ("train vae digitz", 'did you mean "digits"'),
    ("train vae fashion-mnits", 'did you mean "fashion-mnist"'),
    ("train vae photso", "choose one of digits"),
    ("train vae no/such/photos", "no/such/photos not found in .*give a folder of images"),
    ("train vae ~nobody-here/photos", "~nobody-here/photos not found in .*give a folder of images"),
    ("train vae https://example.com/photos.zip", "download it and give the path"),
    (r"train vae 'C:\Users\me\photos'", "give a folder of images"),
    ("train vae digits setps=5", 'did you mean "steps"'),
    ("train vae digits learning_rate=0.1", 'did you mean "lr"'),
    ("train vae digits image_size=32", 'did you mean "size"'),
    ("train vae digits latnet=5", 'did you mean "latent"'),
    ("train vae digits --latnet 5", 'did you mean "latent"'),
    ("train vae digits steps = 5", "without spaces|more than that"),
    ("train vae digits extra words", "train takes MODEL DATA"),
    ("list vaee", 'did you mean "vae"'),
    ("list 'dif*x'", "choose one of"),
    ("imagine fox model=sd-trubo", 'did you mean "sd-turbo"'),
    ("edit pipeline:sd-trubo photo.png", 'did you mean "sd-turbo"'),
    ("compare pipeline:sd-trubo against=digits", 'did you mean "sd-turbo"'),
    ("compare data=digtis", 'did you mean "digits"'),
    ("compare dta=digits", "--data"),
    ("compare data=digits models=vae,gam", 'did you mean "gan"'),
    ("compare digits", "compare data=digits"),
    ("compare runs/vae-digits runs/vae-digitz", "Did you mean runs/vae-digits"),
    ("sample", "trilemma sample RUN"),
    ("sample runs/vae-digit", r"run runs/vae-digit not found\. Did you mean runs/vae-digits\?"),
    ("sample vae-digits", "Did you mean runs/vae-digits"),
    ("sample ~nobody-here/run", "run ~nobody-here/run not found"),
    ("sample runs/qqq", r"Runs here: runs/ae-digits, .*runs/vae-digits"),
    ("sample vae", "trilemma train vae DATA; or give a run of it: runs/vae-digits"),
    ("sample digits", "digits is a data set. Give a run folder, such as runs/"),
    ("sample photos", "it has no config.json. Give a folder that `trilemma train` made, such as runs/"),
    ("sample photos/1.png", "it is a file. Give a folder"),
    ("sample runs/ae-digits runs/vae-digits", "give one run at a time. To compare them: trilemma compare"),
    ("reconstruct runs/vae-digit", "Did you mean runs/vae-digits"),
    ("evaluate runs/vae-digit", "Did you mean runs/vae-digits"),
    ("evaluate runs/vae-digits against=digitz", 'did you mean "digits"'),
    ("detect runs/vae-digits against=no/folder", "give a folder of images"),
    ("sample runs/vae-digits temperatur=2", 'did you mean "temperature"'),
    ("sample runs/vae-digits steps=5", "drawing from vae takes temperature"),
    ("sample runs/vae-digits latent=5", "drawing from vae takes temperature"),
    ("sample runs/vae-digits guidance=3", "drawing from vae takes temperature$"),
    ("evaluate runs/vae-digits temperatur=2", 'did you mean "temperature"'),
    ("figure gumble", 'did you mean "gumbel"'),
    ("figure gumbel tempratures=1", 'did you mean "temperatures"'),
    ("interpolate runs/vae-digits 0", "trilemma interpolate RUN A B"),
]

# --- values, files and runs ----------------------------------------------------------------------------------------

VALUES = [
    ("train vae digits reconstruction=msee steps=1", 'mse, bce, gaussian .did you mean "mse"'),
    ("train vae digits augment=filp steps=1", 'did you mean "flip"'),
    ("train vae digits optimiser=adam", "unknown key|optimizer"),
    ("train vae digits steps=1 epochs=1", "one of steps, epochs, images, minutes"),
    ("train vae digits steps=0", "steps.*(greater than|above) 0|steps.*at least 1"),
    ("train vae digits minutes=-1", "minutes.*(greater than|above) 0"),
    ("train vae digits minutes=0", "minutes.*(greater than|above) 0"),
    ("train vae digits steps=1 size=0", "size"),
    ("train vae digits steps=1 size=64x", "size=64x|size"),
    ("train vae digits steps=1 batch=0", "batch.*(greater than|above) 0|batch.*at least 1"),
    ("train vae digits steps=1 valid=1.5", "valid.*1"),
    ("train vae digits steps=1 latent=0", "latent.*(greater than|above) 0|latent.*(at least|equal to) 1"),
    ("train vae digits steps=1 channels=2", r"1 \(grey\) or 3 \(colour\)"),
    ("train vae digits steps=1 seed=abc", "integer|whole number"),
    ("train vae digits steps=", "steps= has no value|valid integer"),
    ("train vae digits steps=1.5", "integer|whole number"),
    ("train vae digits steps=1 lr=-1", "lr.*(greater than|above) 0"),
    ("train vae digits steps=1 lr=abc", r"give one number|lr=0\.001"),
    ("train vae digits steps=1 lr=0,01", r"give one number|lr=0\.001"),
    ("train vae digits steps=1 device=gpu", "choose one of auto, (cuda.*, )?(mps, )?cpu"),
    ("train vae digits steps=1 precision=bf61", "bf16"),
    ("train vae-conditional photos steps=1", "folder"),
    ("train vae digits steps=1 out=afile", "afile"),
    ("train vae digits steps=1 out=photos", "choose another out="),
    ("train vae digits steps=1 out=runs/ae-digits", "choose another out="),
    ("compare data=digits minutes=0", "minutes=0: give a number above 0"),
    ("compare data=digits seeds=0", "seeds"),
    ("compare data=digits models=", "models= has no value; give one"),
    ("compare runs/vae-digits runs/vae-digits", "given twice; name each run once"),
    ("sample runs/vae-digits n=0", "at least 1"),
    ("sample runs/vae-digits n=-5", "at least 1"),
    ("sample runs/vae-digits n=abc", "whole number"),
    ("sample runs/vae-digits label=12", "it was trained without labels; models that do: vae-conditional"),
    ("sample runs/vae-digits label=cat", "it was trained without labels; models that do: vae-conditional"),
    ("sample runs/vae-digits temperature=hot", "temperature=hot"),
    ("again photos/1.png", "1.png"),
    ("traverse runs/vae-digits units=99", "units|unit"),
    ("reconstruct runs/vae-digits n=0", "n="),
    ("interpolate runs/vae-digits 0 99999", "99999"),
    ("interpolate runs/vae-digits 0 photos/9.png", "image file photos/9.png not found"),
    ("interpolate runs/vae-digits 0 ~nobody-here/9.png", "image file ~nobody-here/9.png not found"),
    ("map runs/vae-digits how=umap", "tsne"),
    ("detect runs/vae-digits score=err", "error"),
    ("edit runs/vae-digits 0 towards=cat", "neither a class"),
    ("edit runs/vae-digits 0", "edit needs towards="),
    ("edit runs/vae-digits photos towards=3", "image file photos is a folder; give a file"),
    ("edit runs/vae-digits 0 strength=0.5", "does not draw an image again.*diffusion"),
    ("evaluate photos", "against="),
    ("evaluate runs/vae-digits features=incepton", 'did you mean "inception"'),
    ("evaluate runs/vae-digits split=tset", 'did you mean "test"|test'),
    ("train vae keys.npz steps=1", "images|x_train"),
    ("train vae shape.npy steps=1", "shape"),
    ("train vae bad.zip steps=1", "bad.zip"),
    ("train vae notes.txt steps=1", "a folder of images"),
    ("train vae empty steps=1", "empty"),
    ("train vae texts steps=1", "texts"),
    ("train vae photos/1.png steps=1", "put it in a folder"),
    ("train vae hf:nobody/nothing steps=1", "install"),
    ("sample runs/cut-digits", "weights.safetensors"),
    ("sample runs/broken-digits", "restore it or train again"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Runs, photos and broken files."""
    home = tmp_path_factory.mktemp("home")
    keys = {"steps": 1, "quiet": True, "hidden": (4,), "latent": 2}
    run = trilemma.train("vae", "digits", out=home / "runs" / "vae-digits", **keys)
    trilemma.train("ae-stacked", "digits", out=home / "runs" / "ae-digits", **keys)
    for name in ("cut", "unfinished", "broken"):
        shutil.copytree(run.path, home / "runs" / f"{name}-digits")
    (home / "runs" / "unfinished-digits" / "weights.safetensors").unlink()
    (home / "runs" / "broken-digits" / "config.json").write_text("{")
    weights = home / "runs" / "cut-digits" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    for folder in ("photos", "texts", "empty"):
        (home / folder).mkdir()
    for k in range(4):
        Image.fromarray(np.full((8, 8, 3), 50 * k, np.uint8)).save(home / "photos" / f"{k}.png")
    (home / "texts" / "a.txt").write_text("words")
    for name in ("afile", "bad.zip", "notes.txt"):
        (home / name).write_text("words")
    np.savez(home / "keys.npz", a=np.zeros(3), b=np.zeros(4))
    np.save(home / "shape.npy", np.zeros((3, 4), np.uint8))
    return home


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in str(path))


@pytest.mark.parametrize(("line", "fix"), WORDS + VALUES)
def test_a_mistake_is_answered_with_a_fix(line, fix, home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    before = files(home)
    assert cli.main(shlex.split(line)) == 2
    answer = capsys.readouterr().err.strip()
    assert re.search(fix, answer, re.DOTALL), answer
    assert "Traceback" not in answer
    assert files(home) == before


@pytest.mark.slow
def test_a_wrong_word_is_answered_the_same_without_torch_and_at_once(home, monkeypatch, capsys):
    """In one new process, which would load torch if any of the lines did."""
    monkeypatch.chdir(home)
    code = (
        "import json, sys, time; from trilemma.cli import main as cli\n"
        "spent = []\n"
        "for words in json.load(sys.stdin):\n"
        "    begin = time.process_time(); print('>>', file=sys.stderr); code = cli.main(words)\n"
        "    spent.append(time.process_time() - begin); assert code == 2, words\n"
        "assert 'torch' not in sys.modules; print(max(spent))"
    )
    lines = [shlex.split(line) for line, _ in WORDS]
    done = subprocess.run([sys.executable, "-c", code], input=json.dumps(lines), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.5
    answers = [answer.strip() for answer in done.stderr.split(">>\n")[1:]]
    for words, answer, (_, fix) in zip(lines, answers, WORDS, strict=True):
        assert re.search(fix, answer, re.DOTALL), answer
        cli.main(words)
        slow = capsys.readouterr().err.strip()
        assert hint(slow) == hint(answer), words


def hint(answer):
    """The fix in an answer: the nearest word if it has one; the lists before it may differ in order."""
    meant = re.search(r"[Dd]id you mean [^?]+", answer)
    return meant[0] if meant else re.split(r"[;(]", answer)[-1]


def test_the_vocabulary_is_what_the_code_has():
    assert json.loads(vocabulary.FILE.read_text("utf-8")) == collect(), "make words"


def test_a_key_that_training_takes_is_not_refused_before():
    for key in TrainConfig.model_fields:
        with pytest.raises(UserError) as refused:
            trilemma.train("vae", "nowhere", **{"steps": 1, key: "?"})
        if "unknown key" not in str(refused.value):
            vocabulary.check_training_keys("vae", [key])
    with pytest.raises(UserError, match="latent"):
        vocabulary.check_training_keys("vae", ["latnet"])


def test_a_key_of_other_models_is_refused_with_their_names():
    message = r'"path_weight", which is for gan-style; `trilemma list gan` shows its keys$'
    with pytest.raises(UserError, match=message):
        vocabulary.check_training_keys("gan", ["path_weight"])
    with pytest.raises(UserError, match=message):
        trilemma.train("gan", "digits", steps=1, path_weight=1)


# --- what is accepted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["sample --run RUN n=1 out=drawn", "sample RUN/config.json n=1 out=drawn"])
def test_other_ways_to_name_a_run_are_accepted(line, home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(shlex.split(line.replace("RUN", str(home / "runs" / "vae-digits")))) == 0, capsys.readouterr().err
    assert (tmp_path / "drawn" / "00000.png").is_file()


def test_the_home_folder_is_known_everywhere(home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    run = trilemma.load("~/runs/vae-digits")
    assert run.path == home / "runs" / "vae-digits"
    assert cli.main(["reconstruct", "~/runs/vae-digits", "--data", "~/photos", "n=1", "out=~/r.png"]) == 0
    trilemma.sample("~/runs/vae-digits", n=2, out="~/drawn")
    trilemma.again("~/drawn/00001.png", out="~/again.png")
    trilemma.show(trilemma.load_data("~/photos"), out="~/show.png")
    trilemma.train("vae", "~/photos", steps=1, quiet=True, out="~/trained", hidden=(4,))
    trilemma.figure("kl-penalty", out="~/figure.png")
    outputs = ("r.png", "drawn", "again.png", "show.png", "trained", "figure.png")
    assert all((home / name).exists() for name in outputs)
    assert list(tmp_path.iterdir()) == []


# --- what the shell completes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("tr", ["train", "traverse"]),
        ("train gan", ["gan", "gan-dcgan", "gan-dcgan-28", "gan-wgan", "gan-wgan-gp", "gan-r3", "gan-style"]),
        ("train vae mn", ["mnist", "mnist-binary"]),
        ("train vae ph", ["photos/"]),
        ("sample runs/v", ["runs/vae-digits"]),
        ("sample em", ["empty/"]),
        ("evaluate runs/ae", ["runs/ae-digits"]),
        ("compare --models diffusion-s", ["diffusion-small"]),
        ("compare --data fa", ["fashion-mnist"]),
        ("list vae-b", ["vae-beta"]),
        ("data show ci", ["cifar10"]),
        ("figure gu", ["gumbel", "guidance"]),
    ],
)
def test_the_shell_completes_names(typed, words, home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    monkeypatch.setenv("_TRILEMMA_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"trilemma {typed}")
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split())))
    assert cli.main([]) == 0
    assert capsys.readouterr().out.split() == words


def test_completion_can_be_installed(capsys, monkeypatch):
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: ("bash", "/bin/bash"))  # a job may have none
    assert cli.main(["--show-completion"]) == 0
    assert "complete -o default -F _trilemma_completion trilemma" in capsys.readouterr().out
    assert cli.main(["--help"]) == 0
    assert "--install-completion" in capsys.readouterr().out


# --- silence --------------------------------------------------------------------------------------------------------


def test_silent_work_is_named_after_a_second_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(announce, "SILENT_S", 0.01)
    with announce.announced("reading the images"):
        time.sleep(0.05)
    assert capsys.readouterr().err == ""  # not a terminal
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with announce.announced("reading the images"):
        pass
    with announce.announced(None):
        time.sleep(0.05)
    assert capsys.readouterr().err == ""  # not silent for long
    with announce.announced("reading the images"):
        time.sleep(0.05)
    assert capsys.readouterr().err == "reading the images ...\n"


def test_folders_of_images_are_compared_too(monkeypatch, tmp_path):
    """Without torch, only what does not exist is refused; what a folder holds is looked at later."""
    monkeypatch.delitem(sys.modules, "torch")
    for verb, key in (("compare", "runs"), ("evaluate", "what")):
        check_words(verb, {key: (str(tmp_path),) if key == "runs" else str(tmp_path)}, ())
        gone = str(tmp_path / "x")
        with pytest.raises(UserError, match=r"run .* not found"):
            check_words(verb, {key: (gone,) if key == "runs" else gone}, ())


def test_what_one_of_several_processes_lacks_is_for_the_verb_to_find(monkeypatch, tmp_path):
    """Which the others learn of; here they do not know each other yet."""
    monkeypatch.delitem(sys.modules, "torch")
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    check_words("train", {"model": "vae", "data": str(tmp_path / "x")}, ())
    check_words("sample", {"run": str(tmp_path / "x")}, ())
