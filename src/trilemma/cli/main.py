"""The command line: `trilemma VERB [WHAT] [key=value ...]`, the same words as keywords in Python.

Thin: the words are brought into one form, typer parses them, the public function does the work, its result is printed.
Nothing heavy is imported before a verb runs, so `--help` answers at once.
"""

import errno
import inspect
import math
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import trilemma
from trilemma.arguments import SETTING, normalise, parse_rate, parse_settings, parse_value, take_imports, word
from trilemma.cli import explore as cli_explore
from trilemma.cli.evaluation import print_evaluation
from trilemma.cli.output import every_letter, facts, number, say, table, words
from trilemma.cli.words import Verbs, complete_data, complete_model, complete_run, refuse_verb
from trilemma.errors import DEBUG, Diverged, UserError, shows_tracebacks, unknown
from trilemma.hardware import tune_allocator
from trilemma.text import paragraph, printable, quoted

SAMPLES = (
    "seconds of training until they cover a quarter of the held-out images of the model's own data (one thread of an "
    "AMD EPYC with AVX2)"
)

app = Verbs(
    name="trilemma",
    help="Train, sample, measure and compare generative image models.\n\n"
    "Options are written key=value, --key=value or --key value. "
    "Start with: trilemma compare data=digits",
    epilog="trilemma help VERB explains a verb, trilemma list MODEL shows a model's own keys; "
    "--debug on any line shows the traceback of an error, --import FILE.py makes models of your own known.",
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
data_app = Verbs(name="data", help="List, show and check data.")
app.add_typer(data_app)
app.add_typer(cli_explore.app)

WIDE = 160  # letters in a line of a table that goes to a file

Run = Annotated[
    Path, typer.Argument(metavar="RUN", help="a run folder made by `trilemma train`", autocompletion=complete_run)
]
Source = Annotated[
    str, typer.Argument(help="a word from `trilemma data list`, or a path", autocompletion=complete_data)
]
Out = Annotated[Path | None, typer.Option(help="output folder or file (default: chosen for you and printed)")]
Seed = Annotated[int, typer.Option(help="random seed (weights, order, noise)")]
Size = Annotated[str | None, typer.Option(help="resize images to this: 32 or 32,48 (height, width), px")]
Channels = Annotated[
    int | None, typer.Option(help="1: convert images to grey, 3: to colour (default: inferred from the images)")
]
Frames = Annotated[
    str | None, typer.Option(help="all: each frame or page is an image (default: only the first of each file)")
]
BatchSize = Annotated[int, typer.Option(help="images at a time; changes speed and memory, not the images")]
Quiet = Annotated[bool, typer.Option(help="hide progress", show_default=False)]
Settings = Annotated[list[str] | None, typer.Option(SETTING, hidden=True)]


@app.callback(invoke_without_command=True)
def about(version: Annotated[bool, typer.Option("--version", "-V", help="show the version and exit")] = False) -> None:
    if version:
        print(f"trilemma {trilemma.__version__}")
        raise typer.Exit


@app.command(
    epilog="More keys are given in the same way: those of the training (optimizer, lr_schedule, clip, monitor ...) and "
    "those of the model. `trilemma list MODEL` shows them with their defaults."
)
def train(
    model: Annotated[
        str,
        typer.Argument(
            help="a name from `trilemma list`, or RUN/config.json to train it again", autocompletion=complete_model
        ),
    ],
    data: Annotated[
        str | None,
        typer.Argument(
            help="a word from `trilemma data list`, or a path (default: digits)", autocompletion=complete_data
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="length in optimiser steps")] = None,
    epochs: Annotated[float | None, typer.Option(help="length in passes over the training images")] = None,
    images: Annotated[int | None, typer.Option(help="length in training images seen")] = None,
    minutes: Annotated[float | None, typer.Option(help="length in minutes of training")] = None,
    batch: Annotated[int | None, typer.Option(help="images in a step (default: set by the model)")] = None,
    lr: Annotated[str | None, typer.Option(help="learning rate, or one per player: generator:1e-3,critic:5e-4")] = None,
    seed: Annotated[int | None, typer.Option(help="random seed: weights, order, noise (default: 0)")] = None,
    size: Size = None,
    channels: Channels = None,
    augment: Annotated[
        str | None, typer.Option(help="augmentation of the training images: flip,shift,binarise; '': none")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bf16")] = "auto",
    save_every: Annotated[
        int | None, typer.Option("--save_every", help="save a checkpoint every N images (default: about once a minute)")
    ] = None,
    sample_every: Annotated[
        int | None, typer.Option("--sample_every", help="draw samples every N images (default: the program decides)")
    ] = None,
    valid: Annotated[float | None, typer.Option(help="fraction of the images held out for validation")] = None,
    split_seed: Annotated[
        int | None,
        typer.Option(
            "--split_seed", help="seed for the validation split and for generated data such as shapes (default: 0)"
        ),
    ] = None,
    frames: Frames = None,
    out: Out = None,
    quiet: Quiet = False,
    setting: Settings = None,
) -> None:
    """Train a model on images. The same command again continues the run."""
    run = trilemma.train(
        model, data, steps=steps, epochs=epochs, images=images, minutes=minutes, batch=batch, lr=parse_rate(lr),
        seed=seed, size=parse_value(size), channels=channels, augment=augment, device=device, precision=precision,
        save_every=save_every, sample_every=sample_every, valid=valid, split_seed=split_seed, frames=frames, out=out,
        quiet=quiet, **parse_settings(setting),
    )  # fmt: skip
    facts({"run": run.path, **{name: number(v) for name, v in run.summary.items() if name.startswith("valid_")}})
    print(f"next: {quoted(['trilemma', 'sample', str(run.path)])}")


@app.command(epilog="A model's sampler has keys of its own (steps, sampler, eta ...): see `trilemma list MODEL`.")
def sample(
    run: Run,
    n: Annotated[int, typer.Option(help="number of images")] = 64,
    seed: Seed = 0,
    first: Annotated[int, typer.Option(help="number of the first image; image k of a seed is always the same")] = 0,
    label: Annotated[str | None, typer.Option(help="class to draw, by name or number")] = None,
    batch: BatchSize = 256,
    exact: Annotated[
        bool, typer.Option(help="bit-equal for every n, first and batch; always computes whole batches of 64")
    ] = False,
    out: Out = None,
    singles: Annotated[bool, typer.Option(help="also write each image by itself; the grid shows 400 at most")] = True,
    setting: Settings = None,
) -> None:
    """Draw new images from a run: a grid and single files."""
    drawn = trilemma.sample(
        run, n=n, seed=seed, first=first, label=label, batch=batch, exact=exact, out=out, singles=singles,
        **parse_settings(setting),
    )  # fmt: skip
    facts({"grid": drawn.grid, **({"images": drawn.images[0].parent} if drawn.images else {})})


@app.command()
def again(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="a PNG written by `trilemma sample`")],
    run: Annotated[
        Path | None, typer.Option(help="its run folder (default: searched for)", autocompletion=complete_run)
    ] = None,
    out: Out = None,
) -> None:
    """Draw a picture again, and compare the two.

    The PNG records how it was made. The run is searched for where it was, around the picture, and in runs/.
    The exit code is 1 if a pixel differs.
    """
    made = trilemma.again(image, run=run, out=out)
    by = "the size" if made.difference is None else f"up to {made.difference} of 255 levels"
    facts({"picture": made.picture, "run": made.run, "equal": "yes" if made.equal else f"no, by {by}"})
    if not made.equal:
        since = f"since then: {'; '.join(made.changed)}" if made.changed else "versions and device are the same"
        text = f"{made.picture} is not equal to {image}: they differ by {by}; {since}"
        print(f"error: {printable(text)}", file=sys.stderr)
        raise typer.Exit(1)


@app.command(epilog="A model's sampler has keys of its own (steps, sampler, eta ...): see `trilemma list MODEL`.")
def evaluate(
    what: Annotated[
        Path, typer.Argument(help="a run folder, or a folder or zip of generated images", autocompletion=complete_run)
    ],
    against: Annotated[
        str | None, typer.Option(help="real images (default: the data of the run)", autocompletion=complete_data)
    ] = None,
    n: Annotated[int | None, typer.Option(help="number of generated images")] = None,
    features: Annotated[
        str, typer.Option(help="network that extracts features; auto: the one that fits the data")
    ] = "auto",
    split: Annotated[
        str | None,
        typer.Option(help="split of the real images: test, valid or train (default: held-out images if there are any)"),
    ] = None,
    seed: Seed = 0,
    batch: BatchSize = 256,
    bound_samples: Annotated[
        int, typer.Option("--bound_samples", help="codes per image for the likelihood bound; 0: do not compute it")
    ] = 50,
    bound_images: Annotated[int, typer.Option("--bound_images", help="images to compute the bound on, at most")] = 1000,
    setting: Settings = None,
) -> None:
    """Measure generated images against real ones."""
    result = trilemma.evaluate(
        what, against=against, n=n, features=features, split=split, seed=seed, batch=batch,
        bound_samples=bound_samples, bound_images=bound_images, **parse_settings(setting),
    )  # fmt: skip
    print_evaluation(result)


@app.command()
def compare(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="THING", help="what to compare: runs, folders or zips of images", autocompletion=complete_run
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="data to train on: a word from `trilemma data list`, or a path", autocompletion=complete_data
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="real images to measure folders of images by (default: the data of the runs)",
            autocompletion=complete_data,
        ),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(help="names, comma-separated (default: one model per family)", autocompletion=complete_model),
    ] = None,
    minutes: Annotated[float, typer.Option(help="training time of each model, minutes")] = 0.5,
    n: Annotated[int | None, typer.Option(help="images drawn from each model, and real ones")] = None,
    size: Size = None,
    seed: Seed = 0,
    seeds: Annotated[
        int, typer.Option(min=1, help="trainings of each model (seed, seed + 1, ...); 3 show the luck of training")
    ] = 1,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Train a model per family, measure them, and say which to use.

    Each training gets the same time. The same command again resumes a comparison that was interrupted.
    Given THINGs (runs, folders or zips of images), nothing is trained: these are compared.
    """
    result = trilemma.compare(
        *(runs or ()), data=data, against=against, models=models, minutes=minutes, n=n, size=parse_value(size),
        seed=seed, seeds=seeds, out=out, quiet=quiet,
    )  # fmt: skip
    _show_comparison(result)
    facts({"report": result.html, "figures": result.json})


@app.command("list", epilog=f"The column samples: {SAMPLES}.")
def list_(
    pattern: Annotated[
        str, typer.Argument(help="a name, or a pattern such as 'vae*'", autocompletion=complete_model)
    ] = "*",
) -> None:
    """List the models, or show one with its keys."""
    from trilemma.registry import get_recipe, list_models

    names = list_models(pattern)
    if not names:
        raise unknown("model", pattern, list_models())
    if names == [pattern]:
        return _show_model(pattern)
    rows = [(r.name, r.suits, _first_samples(r.first_samples_s), r.summary) for r in map(get_recipe, names)]
    table(("name", "good for", "samples", "what"), rows)
    if sys.stdout.isatty():
        say(f"samples: {SAMPLES}")


def _first_samples(seconds: float | None) -> str:
    """Seconds to the first good samples of a model, for a table."""
    if seconds is None:
        return ""
    return f"{seconds:.0f} s" if math.isfinite(seconds) else "> 160 s"


@data_app.command("list")
def data_list() -> None:
    """List the built-in data sets; your own folder, archive or array file is given by its path."""
    from trilemma.data import list_sources

    table(("word", "what", "where"), list_sources())


@data_app.command("show")
def data_show(
    source: Source,
    n: Annotated[int, typer.Option(min=1, help="number of images")] = 64,
    size: Size = None,
    channels: Channels = None,
    seed: Annotated[
        int, typer.Option(help="random seed of the order and of the validation split (split_seed in training)")
    ] = 0,
    out: Out = None,
    augment: Annotated[str | None, typer.Option(help="augmentation as in training: flip,shift")] = None,
    frames: Frames = None,
) -> None:
    """Show images as a network sees them."""
    data = trilemma.load_data(source, size=parse_value(size), channels=channels, seed=seed, frames=frames)
    words = tuple(augment.split(",")) if augment else ()
    picture = trilemma.show(data, n=n, seed=seed, out=out, augment=words)
    for text in data.notes:  # they name the first of the skipped files; `data check` names all
        say(text)
    facts({"picture": picture})


@data_app.command("check")
def data_check(
    source: Source,
    size: Size = None,
    channels: Channels = None,
    frames: Frames = None,
    out: Annotated[
        Path | None, typer.Option(help="write the full report, with every file name, to this file", metavar="<path>")
    ] = None,
) -> None:
    """Find bad files, silent changes, duplicates and training images that are also in another split.

    The exit code is 1 if a file cannot be read, a training image is also in another split, or metadata names no file.
    """
    from trilemma.data import check

    report = check(source, size=parse_value(size), channels=channels, frames=frames, out=out)
    print(report)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Check the machine and the installation.

    Does not use the network. The exit code is 1 if there is a problem.
    """
    checks = trilemma.doctor()
    table(("check", "status", "found"), [(c.name, c.status, c.found) for c in checks])
    for check in checks:
        if check.advice:
            print(f"\n{check.name} ({check.status}): {check.advice}")  # a command that is wrapped cannot be copied
    if any(c.status == "problem" for c in checks):
        raise typer.Exit(1)


@every_letter()
def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Returns:
        Its exit code: 0, 1 for a defect or a training that diverged, 2 for a mistake in the request, 130 for Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    DEBUG.set("--debug" in words)
    debug = shows_tracebacks()
    tune_allocator()
    try:
        _run([word for word in words if word != "--debug"])
        sys.stdout.flush()
        return 0
    except SystemExit as leave:
        return _exit_code(leave)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left: nothing more to say
            return 1
        code, text = _explain(error)
        if debug:
            print(printable(traceback.format_exc(), lines=True), end="", file=sys.stderr)
        else:
            print(f"error: {paragraph(text)}", file=sys.stderr)
        return code


def _run(words: list[str]) -> None:
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    imports, words = take_imports(words)
    if imports:
        from trilemma.own import import_own

        for name in imports:
            import_own(name)
    command = typer.main.get_command(app)
    _refuse_other_verbs(words, command)
    command.main(normalise(words or ["--help"], command), prog_name="trilemma")


def _refuse_other_verbs(words: list[str], command: Any) -> None:
    """Raises UserError for a verb, or a second word of one, that does not exist."""
    for given in words:
        if given.startswith("-") or not hasattr(command, "commands"):
            return
        if given not in command.commands:
            raise refuse_verb(given, list(command.commands))
        command = command.commands[given]


def _exit_code(leave: SystemExit) -> int:
    """What the process ends with. typer makes 130 of every interrupt; one that was a signal knows its own code."""
    interrupt = leave.__context__.__cause__ if leave.__context__ else None
    code = getattr(interrupt, "code", leave.code)
    return code if isinstance(code, int) else int(code is not None)


def _explain(error: Exception) -> tuple[int, str]:
    """Exit code and text for an error."""
    if isinstance(error, UserError):
        return 1 if isinstance(error, Diverged) else 2, str(error)
    if isinstance(error, OSError) and error.filename:
        return 2, f"{error.filename}: {error.strerror}"
    if _is_out_of_memory(error):
        return 1, f"out of memory ({str(error) or type(error).__name__}); try a smaller batch= or size="
    what = f"{type(error).__name__}: {error}"
    return (
        1,
        f"{what}\nThis looks like a defect in trilemma; run the same command with --debug to see where it happened.",
    )


def _is_out_of_memory(error: Exception) -> bool:
    from trilemma.memory import is_out_of_memory

    return is_out_of_memory(error)


def _show_model(name: str) -> None:
    """Everything about one model."""
    from trilemma.registry import count_parameters, create, get_recipe, sampling_keys
    from trilemma.training.request import training_keys

    recipe, config = get_recipe(name), get_recipe(name).config
    shape = " x ".join(map(str, config.shape))
    facts(
        {
            "model": recipe.name,
            "family": recipe.family,
            "summary": recipe.summary,
            "good for": recipe.suits or None,
            "first samples": _first_samples(recipe.first_samples_s) or None,
            "source": recipe.source,
            "data": recipe.data,
            "figures to reach": words(recipe.figures),
            "parameters": f"{count_parameters(create(name)):,} for images of {shape}",
            "training": words(recipe.training),
        }
    )
    fields = type(config).model_fields
    keys = [(k, word(getattr(config, k)), f.description or "") for k, f in fields.items() if k != "shape"]
    if keys:
        print(f"\nKeys for trilemma train {name} DATA key=value")
        table(("key", "default", "what"), keys)
    print("\nKeys of the training, not in `trilemma train --help`")
    table(("key", "default", "what"), training_keys(recipe, inspect.signature(trilemma.train).parameters))
    if sampling := sampling_keys(recipe).model_fields:
        print("\nKeys for trilemma sample RUN key=value")
        table(("key", "default", "what"), [(k, word(f.default), f.description or "") for k, f in sampling.items()])


def _show_comparison(result: Any) -> None:
    """The figures of a comparison with their intervals, as in the report."""
    from rich.console import Console

    table = result.table()
    if not sys.stdout.isatty():
        table.box = None
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)
