"""The command line as a user types it; in a process of its own where that matters."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import trilemma
from trilemma.arguments import parse_rate, parse_value
from trilemma.cli import main as cli
from trilemma.cli.arguments import normalise
from trilemma.cli.words import check_words
from trilemma.errors import UserError
from trilemma.pretrained.table import CHECKPOINTS
from trilemma.registry import get_recipe, registered
from trilemma.words import size_in_words


def trilemma_(*words, cwd=None, **environment):
    """Run a command line; its output has no control codes, for it goes to a pipe."""
    done = subprocess.run(
        [sys.executable, "-m", "trilemma", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        timeout=300,
    )
    assert "\x1b" not in done.stdout + done.stderr
    return done


@pytest.fixture
def here(monkeypatch, capsys):
    """A command line as `trilemma_` runs it, but in this process, which saves the seconds that imports take."""

    def run(*words, cwd=None, **environment):
        with monkeypatch.context() as patch:
            if cwd is not None:
                patch.chdir(cwd)
            for name, value in environment.items():
                patch.setenv(name, value)
            code = cli.main([str(word) for word in words])
        output = capsys.readouterr()
        assert "\x1b" not in output.out + output.err
        return subprocess.CompletedProcess(words, code, output.out, output.err)

    return run


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def run(home):
    """A short run, trained by a command."""
    done = trilemma_("train", "vae", "digits", "steps=20", "out=first", "latent=8", cwd=home)
    assert done.returncode == 0, done.stderr
    return home / "first"


# --- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        (["train", "vae", "digits", "steps=20"], ["train", "--steps=20", "--", "vae", "digits"]),
        (["train", "vae", "digits", "--steps=20"], ["train", "--steps=20", "--", "vae", "digits"]),
        (["train", "--steps", "20", "vae", "digits"], ["train", "--steps=20", "--", "vae", "digits"]),
        (["train", "vae", "digits", "save_every=5"], ["train", "--save_every=5", "--", "vae", "digits"]),
        (["train", "vae", "digits", "--save-every", "5"], ["train", "--save_every=5", "--", "vae", "digits"]),
        (["train", "data=digits", "model=vae"], ["train", "--", "vae", "digits"]),
        (["train", "vae", "data=digits"], ["train", "--", "vae", "digits"]),
        (["train", "data=digits"], ["train"]),
        (["train", "vae", "digits", "beta=4"], ["train", "--setting=beta=4", "--", "vae", "digits"]),
        (["train", "vae", "--beta", "-4", "digits"], ["train", "--setting=beta=-4", "--", "vae", "digits"]),
        (["train", "vae", "digits", "note=a=b"], ["train", "--setting=note=a=b", "--", "vae", "digits"]),
        (["train", "--help", "vae"], ["train", "--help", "--", "vae"]),
        (["sample", "run", "singles=false"], ["sample", "--no-singles", "--", "run"]),
        (["compare", "quiet=no"], ["compare", "--no-quiet"]),
        (["sample", "run", "singles=yes"], ["sample", "--singles", "--", "run"]),
        (["sample", "--no-singles", "run"], ["sample", "--no-singles", "--", "run"]),
        (["train", "vae", "augment="], ["train", "--augment=", "--", "vae"]),
        (["compare", "data=digits", "models=vae,gan"], ["compare", "--data=digits", "--models=vae,gan"]),
        (["compare", "dta=digits"], ["compare", "--dta=digits"]),
        (["compare", "runs/a=b", "--", "c=d"], ["compare", "--", "runs/a=b", "c=d"]),
        (["data", "show", "digits", "n=4"], ["data", "show", "--n=4", "--", "digits"]),
        (["--version"], ["--version"]),
        (["nonsense", "a=b"], ["nonsense", "a=b"]),
        ([], []),
    ],
)
def test_three_ways_to_write_an_option(words, typed):
    assert normalise(words) == typed


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["train", "vae", "steps=3", "steps=4"], "^steps= is given twice, as 3 and as 4; give it once$"),
        (["train", "vae", "--beta", "3", "beta=4"], "^beta= is given twice, as 3 and as 4"),
        (["train", "vae", "model=gan", "model=gan"], "^model= is given twice"),
        (["train", "vae", "steps", "=", "5"], '^"steps = 5": write a key, its sign and its value without spaces'),
        (["train", "vae", "steps", "=5"], '^"steps =5": '),
        (["sample", "run", "n="], "^n= has no value"),
        (["sample", "run", "out="], "^out= has no value"),
        (["train", "vae", "steps=1.5"], r"^steps=1\.5: give a whole number of at least 1$"),
        (["train", "vae", "--epochs", "ten"], "^epochs=ten: give a number above 0$"),
        (["compare", "seeds=0"], "^seeds=0: give a whole number of at least 1$"),
    ],
)
def test_what_is_not_one_key_and_one_value_is_refused(words, text):
    with pytest.raises(UserError, match=text):
        normalise(words)


def test_a_path_with_an_equals_sign_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "size=3").mkdir()
    assert normalise(["compare", "size=3", "seed=1"]) == ["compare", "--seed=1", "--", "size=3"]


def test_the_home_folder_is_known():
    home = os.path.expanduser("~/x")
    assert normalise(["sample", "run", "out=~/x"]) == ["sample", f"--out={home}", "--", "run"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("-3", -3), ("3.0", 3.0), ("1e-3", 0.001), ("true", True), ("False", False), ("None", None),
        ("heun", "heun"), ("", ""), ("1,2.5,a", (1, 2.5, "a")), ("4,", (4,)), (None, None),
    ],
)  # fmt: skip
def test_values_get_types(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_a_rate_that_is_no_number_is_refused():
    for text in ("fast", "critic:fast", "critic:1,2"):
        with pytest.raises(UserError, match="learning rate"):
            parse_rate(text)


def test_a_module_of_ones_own_is_imported(here, tmp_path):
    """By its file or its name, from the current folder, on any line; nothing is without being named."""
    text = (
        "import trilemma\nfrom trilemma.registry import get_recipe\nfrom dataclasses import replace\n"
        'trilemma.register(replace(get_recipe("ae-stacked"), name="NAME", suits="a test"))\n'
    )
    for name in ("ae-by-file", "ae-by-name"):
        (tmp_path / f"{name.replace('-', '_')}.py").write_text(text.replace("NAME", name))
    assert here("list", "ae-by-file", cwd=tmp_path).returncode == 2
    with registered():
        assert "good for" in here("--import", "ae_by_file.py", "list", "ae-by-file", cwd=tmp_path).stdout
        assert "good for" in here("list", "ae-by-name", "--import=ae_by_name", cwd=tmp_path).stdout
    for wrong, why in (("ae_by_nobody", "no module"), ("nobody.py", "not found"), ("", "needs the name")):
        done = here(f"--import={wrong}", "list", cwd=tmp_path)
        assert done.returncode == 2 and why in done.stderr


# --- finding out ----------------------------------------------------------------------------------------------------


def test_help_and_version():
    plain = trilemma_("--help")
    assert plain.returncode == 0
    for verb in ("train", "sample", "reconstruct", "evaluate", "compare", "list", "data", "doctor"):
        assert re.search(rf"^  {verb} ", plain.stdout, re.MULTILINE)
    assert trilemma_().stdout == trilemma_("help").stdout == plain.stdout
    assert trilemma_("--version").stdout == f"trilemma {trilemma.__version__}\n"


def test_help_of_a_verb_has_defaults_and_units():
    text = trilemma_("help", "train").stdout
    assert text == trilemma_("train", "-h").stdout == trilemma_("train", "--help").stdout
    assert "trilemma list MODEL" in text.replace("\n  ", " ")
    for words in ("[default: auto]", "px", "minutes", "--save_every"):
        assert words in text
    assert "--setting" not in text


def test_list_names_every_model():
    done = trilemma_("list")
    assert done.returncode == 0
    models, published = ([line.split()[0] for line in part.splitlines()] for part in done.stdout.split("\n\n"))
    assert models[1:] == trilemma.list_models()
    assert "vae" in models
    assert published == ["published", *CHECKPOINTS]


def test_list_of_a_checkpoint_says_which_verbs_take_it(here):
    done = trilemma_("list", "sd-turbo")
    assert re.search(r"^repository +stabilityai/sd-turbo$", done.stdout, re.MULTILINE)
    assert re.search(r"^verbs +imagine, edit, interpolate, evaluate, compare$", done.stdout, re.MULTILINE)
    assert re.search(r"^keys +steps=1 guidance=0", done.stdout, re.MULTILINE)
    names = [line.split()[0] for line in here("list", "shap-e*").stdout.splitlines()[1:]]
    assert names == ["shap-e", "shap-e-image"]


def test_list_of_a_checkpoint_says_what_was_downloaded(here, tmp_path):
    cache = {"TRILEMMA_CACHE": str(tmp_path)}
    assert re.search(r"^downloaded +no; licence and size are said", here("list", "sd-turbo", **cache).stdout, re.M)
    files, folder = {"model_index.json": 300, "unet/model.safetensors": 2000}, tmp_path / "files"
    for name, size in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(size))
    record = {"repository": "stabilityai/sd-turbo", "commit": "c" * 40, "licence": None, "files": files}
    place = tmp_path / "pretrained" / "stabilityai--sd-turbo.json"
    place.parent.mkdir()
    place.write_text(json.dumps({**record, "folder": str(folder)}), "utf-8")
    text = here("list", "sd-turbo", **cache).stdout
    total, weights = size_in_words(2300), size_in_words(2000)
    assert re.search(rf"^downloaded +{total}, of which {weights} are weights$", text, re.M)
    assert re.search("^licence +not stated$", text, re.M) and re.search(f"^commit +{'c' * 40}$", text, re.M)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("imagine", "a fox", "model=sd-turbo", "x=steps:"), "give a key and its values"),
        pytest.param(
            ("edit", "pipeline:sd-turbo", "photo.png", "caption=a fox"),
            "give strength=, mask= or both",
            marks=pytest.mark.slow,
        ),
        pytest.param(("evaluate", "pipeline:sd-turbo"), "add what to measure them against", marks=pytest.mark.slow),
    ],
    ids=lambda part: part[0],
)
def test_a_new_process_knows_the_checkpoints(words, answer):
    """What is wrong with the rest of the words is said, before anything is downloaded."""
    done = trilemma_(*words)
    assert done.returncode == 2 and answer in done.stderr


def test_list_takes_a_pattern(here):
    done = here("list", "vae*")
    names = [line.split()[0] for line in done.stdout.splitlines()[1:] if line]
    assert names == trilemma.list_models("vae*") or done.stdout.startswith("model")  # one match of that very name


def test_list_of_a_name_shows_its_keys(here):
    done = here("list", "vae")
    assert done.returncode == 0
    assert re.search(r"^latent +32 ", done.stdout, re.MULTILINE)
    assert re.search(r"^source +\w", done.stdout, re.MULTILINE)
    assert "shape " not in done.stdout
    for key, default in (("optimizer", "nadam"), ("schedule", "linear"), ("clip", "1"), ("monitor", "valid_rmse")):
        assert re.search(rf"^{key} +{default} +\w", done.stdout, re.MULTILINE)
    assert re.search(r"^lr_schedule +cosine ", here("list", "diffusion-small").stdout, re.MULTILINE)


def test_list_of_nothing_names_the_nearest(here):
    done = here("list", "vaee")
    assert done.returncode == 2
    assert 'did you mean "vae"?' in done.stderr


def test_data_list_and_show(here, tmp_path):
    done = here("data", "list")
    assert done.returncode == 0
    assert re.search(r"^digits ", done.stdout, re.MULTILINE)
    done = here("data", "show", "digits", "n=4", "out=digits.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "digits.png" in done.stdout
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")


def test_data_show_and_check_in_grey(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for verb in ("show", "check"):
        assert cli.main(["data", verb, "shapes:20", "channels=1", "size=8"]) == 0
        assert "20 train, 1,000 valid, 1,000 test; grey 8x8" in capsys.readouterr().out
    assert (tmp_path / "shapes-20.png").exists()


def test_data_show_names_a_bad_file_once_and_nothing_before_a_mistake(tmp_path, monkeypatch, capsys):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    for k in range(3):
        Image.new("L", (8, 8), k).save(tmp_path / "d" / f"{k}.png")
    (tmp_path / "d" / "bad.png").write_text("no image")
    assert cli.main(["data", "show", "d"]) == 0
    assert capsys.readouterr().out.count("bad.png") == 1
    assert cli.main(["data", "show", "d", "augment=flop"]) == 2
    assert capsys.readouterr().out == ""


def test_doctor_finds_no_problem(here, tmp_path):
    done = here("doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    for check in ("python", "torch", "device", "memory", "free disk", "write", "extra hub"):
        assert re.search(rf"^{check} ", done.stdout, re.MULTILINE)


def test_doctor_leaves_with_1_on_a_problem(here, tmp_path):
    done = here("doctor", cwd=tmp_path, TRILEMMA_DATA=str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert re.search(r"^TRILEMMA_DATA +problem", done.stdout, re.MULTILINE)


# --- the work -------------------------------------------------------------------------------------------------------


def test_train_leaves_a_run_folder(run):
    for name in ("config.json", "weights.safetensors", "summary.json", "log.jsonl", "README.md"):
        assert (run / name).is_file()
    loaded = trilemma.load(run)
    assert loaded.summary["images"] > 0
    assert loaded.model_config.latent == 8


def test_the_same_command_continues(here, run, home):
    before = trilemma.load(run).summary["images"]
    done = here("train", "vae", "digits", "--steps", "30", "--out=first", "latent=8", cwd=home)
    assert done.returncode == 0, done.stderr
    assert trilemma.load(run).summary["images"] == before * 30 // 20


def test_sample_draws(here, run, home):
    done = here("sample", run, "n=5", "seed=3", "out=drawn", cwd=home)
    assert done.returncode == 0, done.stderr
    grid = re.search(r"^grid +(.+)$", done.stdout, re.MULTILINE)
    assert grid and (home / grid[1]).is_file()
    singles = re.search(r"^images +(.+)$", done.stdout, re.MULTILINE)
    assert singles and len([p for p in (home / singles[1]).glob("*.png") if p != home / grid[1]]) == 5


def test_sample_passes_settings_on(here, run, home):
    done = here("sample", run, "n=2", "temperatur=0.5", cwd=home)
    assert done.returncode == 2
    assert "temperature" in done.stderr


def test_reconstruct_shows_and_measures(here, run, home):
    done = here("reconstruct", run, "n=4", "out=pairs.png", cwd=home)
    assert done.returncode == 0, done.stderr
    assert (home / "pairs.png").is_file()
    assert 0 < float(re.search(r"^rmse +(\S+)$", done.stdout, re.MULTILINE)[1]) < 1


def test_evaluate_measures(here, run, home):
    done = here("evaluate", run, "n=100", cwd=home)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^kernel_distance +\S+", done.stdout, re.MULTILINE)
    assert list((run / "metrics").glob("*.json"))


@pytest.mark.slow
def test_compare_reports(here, home):
    words = ("data=digits", "models=ae-stacked,vae", "minutes=0.005", "n=64", "out=report")
    done = here("compare", *words, cwd=home)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ *vae ", done.stdout, re.MULTILINE)
    for name in ("report", "values"):
        assert (home / re.search(rf"^{name} +(.+)$", done.stdout, re.MULTILINE)[1]).is_file()


# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["train", "vea", "digits", "steps=1"], "vae"),
        (["train", "vae", "digit", "steps=1"], "digits"),
        (["train", "vae", "digits", "setps=1"], "steps"),
        (["train", "vae", "digits", "steps=1", "latnet=3"], "latent"),
        (["train", "vae", "digits", "steps=1", "latent=many"], "latent"),
        (["train", "vae", "digits", "steps=1", "device=gpu"], "cpu"),
        (["train", "vae", "digits", "steps=1", "precision=bf61"], "bf16"),
        (["train", "vae", "digits", "steps=1", "epochs=1"], "steps"),
        (["train", "vae", "digits", "steps=many"], "steps"),
        (["train", "vae", "digits", "steps=0"], "steps"),
        (["train", "data=digits"], "MODEL"),
        (["train", "vae", "no/such/folder", "steps=1"], "no/such/folder"),
        (["sample", "no-run"], "no-run"),
        (["sample"], "RUN"),
        (["evaluate", "no-run"], "run no-run not found"),
        (["evaluate", "no-run", "against=digits"], "run no-run not found"),
        (["evaluate", "."], "against="),
        (["reconstruct", "no-run"], "no-run"),
        (["compare", "dta=digits"], "data"),
        (["compare", "data=digits", "models=vea"], "vae"),
        (["compare", "no-run"], "no-run"),
        (["compare", "minutes=0"], "minutes"),
        (["train", "vae", "digits", "steps=1", "channels=2"], "channels=2"),
        (["data", "show", "digitz"], "digits"),
        (["data", "show", "digits", "n=0"], "n=0: give a whole number of at least 1"),
        (["data", "show", "digits:5"], "shapes"),
        (["trian"], "train"),
    ],
    ids=str,
)
def test_a_mistake_is_explained(words, hint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    text = capsys.readouterr().err
    assert hint.lower() in text.lower()
    assert "Traceback" not in text
    assert re.search(r"^error: ", text, re.MULTILINE | re.IGNORECASE)
    assert list(tmp_path.iterdir()) == []


def test_the_home_folder_is_looked_in_before_torch_is_loaded(tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "vae-digits").mkdir()
    (tmp_path / "vae-digits" / "config.json").write_text("{}")
    monkeypatch.delitem(sys.modules, "torch")
    with pytest.raises(UserError, match=re.escape(f"Did you mean {tmp_path / 'vae-digits'}?")):
        check_words("evaluate", {"what": "~/vae-digit"}, ())


def test_a_mistake_is_one_message(tmp_path):
    done = trilemma_("train", "vea", "digits", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r'error: .*did you mean "vae"\?.*\n', done.stderr)


def test_a_verb_of_one_process_is_refused_in_several(here):
    """By the first of them; what torchrun is for is said. In one process, and for its help, it is as ever."""
    done = here("data", "list", RANK="0", WORLD_SIZE="2")
    assert done.returncode == 2 and not done.stdout
    refusal = "error: data list runs in one process, and 2 were started; start it without torchrun, which is for "
    assert done.stderr.strip() == f"{refusal}train, sample and evaluate"
    other = here("data", "list", RANK="1", WORLD_SIZE="2")
    assert (other.returncode, other.stderr) == (2, "")
    assert here("data", "list", RANK="0", WORLD_SIZE="1").returncode == 0
    assert here("data", "list", "--help", RANK="0", WORLD_SIZE="2").returncode == 0


@pytest.mark.parametrize("size", [{}, {"WORLD_SIZE": "1"}])
def test_a_process_alone_prints_whatever_number_it_has(size, here):
    """Where a batch system has left one in the environment."""
    report = here("data", "check", "digits").stdout
    assert report and here("data", "check", "digits", RANK="1", **size).stdout == report
    done = here("data", "show", "digitz", RANK="1", **size)
    assert done.returncode == 2 and 'did you mean "digits"?' in done.stderr


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_number_of_processes_that_is_none_is_explained(rank, here):
    done = here("data", "list", RANK=rank, WORLD_SIZE="two")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: WORLD_SIZE=two in the environment is not a whole number; start the processes")
    assert "defect" not in done.stderr


def test_debug_shows_the_trace(here, tmp_path):
    for words, environment in ((["--debug"], {}), ([], {"TRILEMMA_DEBUG": "1"})):
        done = here("sample", "no-run", *words, cwd=tmp_path, **environment)
        assert done.returncode == 2
        assert "Traceback" in done.stderr
        assert "UserError" in done.stderr


def test_a_defect_says_so(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_run", lambda words: 1 / 0)
    assert cli.main([]) == 1
    text = capsys.readouterr().err
    assert "ZeroDivisionError" in text and "defect" in text and "--debug" in text


def test_a_file_that_is_not_there_is_named(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_run", lambda words: Path("no-such-file").read_text())
    assert cli.main([]) == 2
    assert "no-such-file" in capsys.readouterr().err


def test_ctrl_c_leaves_with_130(monkeypatch, capsys):
    def interrupted(words):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert cli.main([]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_stopped_training_leaves_with_the_code_of_its_signal(monkeypatch, capsys):
    class Stopped(KeyboardInterrupt):
        code = 128 + 15

    def train(*args, **settings):
        raise Stopped

    monkeypatch.setattr(trilemma, "train", train)
    assert cli.main(["train", "vae"]) == 143
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="pipes break differently here")
def test_a_reader_that_leaves_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "trilemma", "list"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.stderr == ""


def test_the_installed_command_is_the_same():
    script = Path(sys.executable).with_name("trilemma")
    if not script.exists():
        pytest.skip("trilemma is not installed in this environment")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"trilemma {trilemma.__version__}\n"


def on_a_terminal(width, monkeypatch, capsys, *words):
    """What a command line prints on a terminal of this width, without control codes."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert cli.main([*words]) == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


@pytest.mark.parametrize("width", [60, 80])
def test_list_is_readable_on_a_narrow_terminal(width, monkeypatch, capsys):
    """Names stand whole at the start of a line, nothing is cut off, and every model says what it is good for."""
    shown = on_a_terminal(width, monkeypatch, capsys, "list")
    lines = shown.splitlines()
    assert max(map(len, lines)) <= width
    assert "\u2026" not in shown
    for name in trilemma.list_models():
        assert any(re.match(rf"\W*{name}(\s|$)", line) for line in lines), name
        assert 20 <= len(get_recipe(name).suits) <= 80
    assert "quickest" in shown


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("words", [("list", "vae"), ("data", "list"), ("doctor",), ("figure",)], ids=" ".join)
def test_every_word_is_whole_on_a_narrow_terminal(words, width, monkeypatch, capsys, tmp_path):
    """The words are those of a pipe; only a command to copy, which the terminal wraps itself, may be longer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRILEMMA_DATA", str(tmp_path))
    shown = on_a_terminal(width, monkeypatch, capsys, *words)
    assert "\u2026" not in shown
    assert all(len(line) <= width or "pip install" in line or str(tmp_path) in line for line in shown.splitlines())
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRILEMMA_DATA", str(tmp_path))
    assert cli.main([*words]) == 0
    plain = capsys.readouterr().out.partition("\n")[2]  # a list has no line of titles
    assert set(re.findall(r"[\w.=/]+", plain)) - set(re.findall(r"[\w.=/]+", shown)) <= {"GiB"} | free_space(plain)


def free_space(text):
    """Figures that differ from one moment to the next."""
    return set(re.findall(r"[\d.]+(?= GiB)", text))


@pytest.mark.parametrize("width", [60, 80])
def test_an_evaluation_is_readable_on_a_narrow_terminal(width, run, monkeypatch, capsys):
    shown = on_a_terminal(width, monkeypatch, capsys, "evaluate", str(run), "n=100")
    assert max(map(len, shown.splitlines())) <= width
    assert "\u2026" not in shown
    for name in ("frechet_distance", "kernel_distance", "density", "coverage", "Held-out images"):
        assert name in shown
