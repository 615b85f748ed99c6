"""What a verb of the command line prints: its function is called with the words, and its result is shown."""

import csv
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

import typer

import trilemma
from trilemma.arguments import parse_settings
from trilemma.cli.evaluation import print_evaluation
from trilemma.cli.models import show_models
from trilemma.cli.output import estimate, facts, number, say, table
from trilemma.cli.self_test import self_test
from trilemma.hardware import is_first_process
from trilemma.pretrained.table import TEXT_KEYS, pipeline_name
from trilemma.text import printable, quoted
from trilemma.verbs import Verb, function_of, parse

if TYPE_CHECKING:
    from trilemma.metrics.intervals import Estimate

Given = Mapping[str, Any]
WIDE = 160  # letters in a line of a table that goes to a file
COLUMNS = {"list_figures": ("figure", "what", "needs"), "list_sources": ("word", "what", "where")}


def carry_out(verb: Verb, words: Given) -> None:
    """Call the function of a verb with the words that are given, and print its result."""
    settings = parse_settings(words.get("setting"), _texts(words))
    given = {name: _value(verb, name, value) for name, value in words.items() if name != "setting"}
    if verb.lists and not given:
        return _print_rows(verb.lists, function_of(verb.lists)())
    if verb.name in OWN:
        return OWN[verb.name](given)
    places = [given[name] for name in verb.places if name in given]
    if verb.gathers and verb.places[-1] in given:
        places[-1:] = places[-1]
    keys = {name: value for name, value in given.items() if name not in verb.places}
    result = function_of(verb.function)(*places, **keys, **settings)
    if is_first_process():
        PRINT[verb.name](result, given)


def _texts(words: Given) -> Sequence[str]:
    """The keys beside those of a verb whose values are texts: of a pipeline in the place of a run."""
    return TEXT_KEYS if pipeline_name(words.get("run", words.get("what"))) is not None else ()


def _value(verb: Verb, name: str, value: Any) -> Any:
    """A value of the type that a key takes; flags have theirs."""
    return parse(value, verb.keys[name]) if isinstance(value, str) else value


def _print_rows(name: str, rows: Any) -> None:
    table(COLUMNS[name], rows)


def _train(run: Any, given: Given) -> None:
    facts({"run": run.path, **{name: number(v) for name, v in run.summary.items() if name.startswith("valid_")}})
    print(f"next: {quoted(['trilemma', 'sample', str(run.path)])}")


def _sample(result: Any, given: Given) -> None:
    facts({"grid": result.grid, **({"images": result.images[0].parent} if result.images else {})})


def _again(result: Any, given: Given) -> None:
    by = "the size" if result.difference is None else f"up to {result.difference} of 255 levels"
    facts({"picture": result.picture, "run": result.run, "equal": "yes" if result.equal else f"no, by {by}"})
    if not result.equal:
        since = f"since then: {'; '.join(result.changed)}" if result.changed else "versions and device are the same"
        text = f"{result.picture} is not equal to {Path(given['image'])}: they differ by {by}; {since}"
        print(f"error: {printable(text)}", file=sys.stderr)
        raise typer.Exit(1)


def _compare(result: Any, given: Given) -> None:
    """The scores of a comparison with their intervals, as in the report."""
    from rich.console import Console

    table = result.table()
    if not sys.stdout.isatty():
        table.box = None
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)
    facts({"report": result.html, "values": result.json})


def _doctor(checks: Any, given: Given) -> None:
    table(("check", "status", "value"), [(c.name, c.status, c.value) for c in checks])
    for check in checks:
        if check.advice:
            print(f"\n{check.name} ({check.status}): {check.advice}")  # a command that is wrapped cannot be copied
    if any(c.status == "problem" for c in checks):
        raise typer.Exit(1)


def _invert(result: Any, given: Given) -> None:
    rows = zip(result.names, result.psnr_db.tolist(), strict=True)
    table(("image", "PSNR dB"), [(name, f"{value:.2f}") for name, value in rows])
    cost = {"seconds": number(result.seconds), "calls per image": number(result.calls_per_image)}
    facts({"picture": result.picture, "codes": result.codes_file, "values": result.file, **cost})


def _edit(result: Any, given: Given) -> None:
    """The picture, and the vector, or the images and their noise."""
    vector, noise = getattr(result, "file", None), getattr(result, "noise", None)
    if vector is not None:
        return facts({"picture": result.picture, "vector": vector})
    more = {} if noise is None else {"noise": f"{noise:.3g} (standard deviation)"}
    film = {} if result.animation is None else {"animation": result.animation}
    facts({"picture": result.picture, **film, "images": _names(result.files), **more})


def _imagine(result: Any, given: Given) -> None:
    several = {"images": _names(result.files)} if len(result.files) > 1 else {}
    more = {"animation": result.animation, "mesh": result.mesh}
    facts({"picture": result.picture, **several, **{key: path for key, path in more.items() if path is not None}})


def _export(result: Any, given: Given) -> None:
    table(("file", "relative difference"), [(name, f"{value:.2g}") for name, value in result.parity.items()])
    facts({"folder": result.folder, "record": result.record})


def _upscale(result: Any, given: Given) -> None:
    facts({"picture": result.picture, "images": _names(result.files)})


def _names(files: list[Path]) -> str:
    return ", ".join(path.name for path in files)


def _traverse(result: Any, given: Given) -> None:
    names = [str(unit) for unit in result.units]
    if result.shares is not None:
        names = [f"{name} ({share:.1%} of variance)" for name, share in zip(names, result.shares, strict=True)]
    facts({"picture": result.picture, result.axes: ", ".join(names)})


def _map(result: Any, given: Given) -> None:
    files = {"map": result.picture, "coordinates": result.coordinates, "neighbours": result.neighbours}
    facts({**files, "projector": result.projector, "interactive": result.interactive})


def _compress(result: Any, given: Given) -> None:
    rows = [
        (r.name, r.counted, number(r.bytes), f"{r.within:.1%}", number(r.ratio), number(r.rmse), f"{r.psnr_db:.2f}")
        for r in result.rows
    ]
    table(("by", "counted", "bytes", "within", "ratio", "rmse", "psnr dB"), rows)
    if any(r.within < 1 for r in result.rows):
        budget = f"at most {number(result.bytes)} bytes"
        print(f"within: share of images in {budget}; for the others the smallest file is used")
    facts({"picture": result.picture, "values": result.file})


def _detect(result: Any, given: Given) -> None:
    rows = result.rows.items()
    cells = {name: (number(r["threshold"]), _estimate(r["false_alarm_rate"])) for name, r in rows}
    table(
        ("score", "what it is", "threshold", "false alarms (95% interval)", "chosen"),
        [(name, r["title"], *cells[name], "yes" if r["chosen"] else "") for name, r in rows],
    )
    if "against" in given:  # in two tables, that a line may hold them
        print()
        table(
            ("score", "AUROC (95% interval)", "AP (95% interval)", "flagged share (95% interval)"),
            [(name, *map(_estimate, (r["auroc"], r["average_precision"], _flagged(r)))) for name, r in rows],
        )
    width = min(80, get_terminal_size().columns)
    print("\n" + "\n".join(textwrap.fill(printable(sentence), width) for sentence in result.in_short) + "\n")
    facts({"page": result.report, "score": result.score, "flagged": f"{len(result.flagged):,}"})


def _augment(result: Any, given: Given) -> None:
    facts({"folder": result.folder, "grid": result.grid, "zip": result.archive})
    if result.verdict is not None:
        rows = [(name, _estimate(a), _estimate(d)) for name, a, d in result.verdict.rows]
        table(("trained on", "accuracy on real test images (95% interval)", "difference to real alone"), rows)
        say(result.verdict.text)


def _disentangle(result: Any, given: Given) -> None:
    table(("score", "value (95% interval)"), [(name, _estimate(score)) for name, score in result.scores.items()])
    for note in result.notes:
        say(note)
    facts({"picture": result.picture, "values": result.figures})


def _data_show(given: Given) -> None:
    """Notes on the data stand before the picture; they name the first of the skipped files, `data check` all."""
    reading = {name: given[name] for name in ("size", "channels", "seed", "frames") if name in given}
    data = trilemma.load_data(given["source"], **reading)
    keys = {name: given[name] for name in ("n", "seed", "out", "augment", "names") if name in given}
    picture = trilemma.show(data, **keys)
    for text in data.notes:
        say(text)
    if not keys.get("names"):
        return facts({"picture": picture})
    from trilemma.explore.show import table_of

    names = table_of(picture)
    with names.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    table(head, rows)
    return facts({"picture": picture, "names": names})


def _data_check(report: Any, given: Given) -> None:
    print(report)
    if not report.ok:
        raise typer.Exit(1)


def _estimate(value: "Estimate | None") -> str:
    """A value with its interval, or a dash for none."""
    return "-" if value is None else estimate(*value)


def _flagged(row: Mapping[str, Any]) -> "Estimate | None":
    """The share flagged of the images that were looked at, abnormal or unknown."""
    return row["detection_rate"] or row["flagged_share"]


OWN: Mapping[str, Callable[[Given], None]] = {
    "list": lambda given: show_models(given.get("pattern", "*")),
    "data show": _data_show,
    "quiz": self_test,
}
PRINT: Mapping[str, Callable[[Any, Given], None]] = {
    "train": _train,
    "sample": _sample,
    "again": _again,
    "evaluate": lambda result, _: print_evaluation(result),
    "compare": _compare,
    "studio": lambda result, _: None,
    "doctor": _doctor,
    "reconstruct": lambda result, _: facts(
        {"picture": result.picture, "errors": result.file, "rmse": number(result.rmse)}
    ),
    "interpolate": lambda result, _: facts({"picture": result.picture, "animation": result.animation}),
    "invert": _invert,
    "traverse": _traverse,
    "denoise": lambda result, _: facts({"picture": result.picture, "animation": result.animation}),
    "map": _map,
    "edit": _edit,
    "imagine": _imagine,
    "export": _export,
    "push": lambda result, _: facts(
        {"run": result.run, "page": result.page, "commit": result.commit, "deleted": ", ".join(result.deleted) or None}
    ),
    "upscale": _upscale,
    "compress": _compress,
    "detect": _detect,
    "augment": _augment,
    "disentangle": _disentangle,
    "figure": lambda picture, _: facts({"picture": picture}),
    "data list": lambda rows, _: _print_rows("list_sources", rows),
    "data check": _data_check,
}
