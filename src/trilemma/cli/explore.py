"""The verbs that explore and use a trained model, as commands: parse, call the function of that name, print."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Any

import typer

import trilemma
from trilemma.arguments import SETTING, parse_settings
from trilemma.cli.output import estimate, facts, number, say, table
from trilemma.cli.words import Verbs, complete_data, complete_figure, complete_run
from trilemma.text import printable

if TYPE_CHECKING:
    from trilemma.metrics.intervals import Estimate

app = Verbs()

Run = Annotated[
    Path, typer.Argument(metavar="RUN", help="a run folder made by `trilemma train`", autocompletion=complete_run)
]
Out = Annotated[Path | None, typer.Option(help="output file or folder (default: inside the run folder)")]
Seed = Annotated[int, typer.Option(help="random seed")]
Images = Annotated[
    str | None,
    typer.Option("--data", help="images to use (default: the data of the run)", autocompletion=complete_data),
]
Split = Annotated[str | None, typer.Option(help="split to use: train, valid or test (default: held-out images)")]
Quiet = Annotated[bool, typer.Option(help="hide progress", show_default=False)]
Label = Annotated[str | None, typer.Option(help="class to decode, by name or number, for a conditional model")]
Settings = Annotated[list[str] | None, typer.Option(SETTING, hidden=True)]


@app.command()
def reconstruct(
    run: Run,
    data: Images = None,
    n: Annotated[int, typer.Option(help="number of images shown")] = 16,
    split: Split = None,
    label: Label = None,
    out: Out = None,
) -> None:
    """Show images above their reconstructions, with the error of each."""
    result = trilemma.reconstruct(run, data=data, n=n, split=split, label=label, out=out)
    facts({"picture": result.picture, "errors": result.file, "rmse": number(result.rmse)})


@app.command()
def interpolate(
    run: Run,
    a: Annotated[
        str, typer.Argument(help="an image file, the number of a held-out image, or a code (1.5,-0.3,... or .npy)")
    ],
    b: Annotated[str, typer.Argument(help="the other end, given in the same way")],
    frames: Annotated[int, typer.Option(help="images in a row, including both ends")] = 7,
    how: Annotated[str, typer.Option(help="linear, spherical or both")] = "both",
    data: Images = None,
    animate: Annotated[bool, typer.Option(help="also write an animation")] = True,
    label: Label = None,
    out: Out = None,
) -> None:
    """Go from one image to another through their codes."""
    result = trilemma.interpolate(
        run, a, b, frames=frames, how=how, data=data, animate=animate, label=label, out=out  # type: ignore[arg-type]
    )  # fmt: skip
    facts({"picture": result.picture, "animation": result.animation})


@app.command()
def traverse(
    run: Run,
    image: Annotated[
        str | None, typer.Option(help="where to start, given as for interpolate (default: the mean code)")
    ] = None,
    units: Annotated[
        str | None, typer.Option(help="latent dimensions to vary: 0,4,7 (default: the ten that vary most)")
    ] = None,
    span: Annotated[float, typer.Option(help="how far to both sides, in standard deviations")] = 3.0,
    steps: Annotated[
        int | None, typer.Option(help="images in a row (default: 7, or 15 along a side of a plane)")
    ] = None,
    plane: Annotated[
        str | None, typer.Option(help="two latent dimensions to vary together: 0,1; false: no plane")
    ] = None,
    spacing: Annotated[str, typer.Option(help="lines of a plane: quantiles or even")] = "quantiles",
    data: Images = None,
    label: Label = None,
    out: Out = None,
) -> None:
    """Vary one latent dimension at a time, or two over a plane, and decode the images."""
    result = trilemma.traverse(
        run, image=image, units=units, span=span, steps=steps, plane=False if plane == "false" else plane,
        spacing=spacing, data=data, label=label, out=out,  # type: ignore[arg-type]
    )  # fmt: skip
    facts({"picture": result.picture, "units": ", ".join(map(str, result.units))})


@app.command("map")
def map_(
    run: Run,
    how: Annotated[str, typer.Option(help="tsne or pca")] = "tsne",
    n: Annotated[int, typer.Option(help="images at most")] = 2000,
    perplexity: Annotated[
        float | None, typer.Option(help="of t-SNE: neighbours each point attends to (default: a quarter, at most 30)")
    ] = None,
    data: Images = None,
    split: Split = None,
    label: Label = None,
    thumbnails: Annotated[bool, typer.Option(help="draw small images where there is room")] = True,
    neighbours: Annotated[int, typer.Option(help="nearest neighbours to show for some images")] = 5,
    projector: Annotated[bool, typer.Option(help="also write files for the embedding projector")] = False,
    seed: Seed = 0,
    out: Out = None,
) -> None:
    """Draw a map of the codes of images, coloured by class."""
    result = trilemma.latent_map(
        run, how=how, n=n, perplexity=perplexity, data=data, split=split, label=label,  # type: ignore[arg-type]
        thumbnails=thumbnails, neighbours=neighbours, projector=projector, seed=seed, out=out,
    )  # fmt: skip
    files = {"map": result.picture, "coordinates": result.coordinates, "neighbours": result.neighbours}
    facts({**files, "projector": result.projector})


@app.command()
def edit(
    run: Run,
    image: Annotated[str, typer.Argument(help="an image file, the number of a held-out image, or a code")],
    towards: Annotated[str, typer.Option(help="a class, a folder of images, or a vector saved before (.npy)")],
    away: Annotated[str | None, typer.Option(help="the opposite group (default: all other images)")] = None,
    strength: Annotated[
        float, typer.Option(help="strength in the last picture; 1: the full difference between the groups")
    ] = 1.0,
    steps: Annotated[int, typer.Option(help="number of pictures")] = 7,
    data: Images = None,
    label: Label = None,
    out: Out = None,
) -> None:
    """Move an image towards a group of images, along the difference of mean codes."""
    result = trilemma.edit(
        run, image, towards=towards, away=away, strength=strength, steps=steps, data=data, label=label, out=out
    )
    facts({"picture": result.picture, "vector": result.file})


@app.command()
def compress(
    run: Run,
    data: Images = None,
    n: Annotated[int, typer.Option(help="number of images")] = 1000,
    out: Out = None,
) -> None:
    """Measure the codes as compression, next to PCA, JPEG and WebP."""
    result = trilemma.compress(run, data=data, n=n, out=out)
    rows = [
        (r.name, r.counted, number(r.bytes), f"{r.within:.1%}", number(r.ratio), number(r.rmse), f"{r.psnr_db:.2f}")
        for r in result.rows
    ]
    table(("by", "counted", "bytes", "within", "ratio", "rmse", "psnr dB"), rows)
    if any(r.within < 1 for r in result.rows):
        budget = f"at most {number(result.bytes)} bytes"
        print(f"within: share of images in {budget}; for the others the smallest file is used")
    facts({"picture": result.picture, "figures": result.file})


@app.command()
def detect(
    run: Run,
    against: Annotated[
        str | None,
        typer.Option(
            help="images to search for anomalies (default: the held-out images)", autocompletion=complete_data
        ),
    ] = None,
    normal: Annotated[
        str | None,
        typer.Option(
            help='classes in against= that count as normal, comma-separated; "none" if every image is abnormal'
        ),
    ] = None,
    data: Images = None,
    false_alarms: Annotated[
        float, typer.Option("--false_alarms", help="share of normal images that may be flagged")
    ] = 0.05,
    score: Annotated[
        str, typer.Option(help="auto, error, relative, elbo, code, pca, pca-relative or nearest")
    ] = "auto",
    n: Annotated[int, typer.Option(help="images of each kind, at most")] = 10_000,
    seed: Seed = 0,
    out: Out = None,
) -> None:
    """Flag anomalies with a model trained on normal images."""
    result = trilemma.detect(
        run, against=against, normal=normal, data=data, false_alarms=false_alarms, score=score, n=n, seed=seed, out=out
    )
    rows = result.rows.items()
    table(
        ("score", "what it is", "threshold", "false alarms (95% interval)", "chosen"),
        [(name, r["title"], number(r["threshold"]), _estimate(r["false_alarm_rate"]), _mark(r)) for name, r in rows],
    )
    if against is not None:  # in two tables, that a line may hold them
        print()
        table(
            ("score", "AUROC (95% interval)", "AP (95% interval)", "flagged share (95% interval)"),
            [(name, *map(_estimate, (r["auroc"], r["average_precision"], _flagged(r)))) for name, r in rows],
        )
    width = min(80, get_terminal_size().columns)
    print("\n" + "\n".join(textwrap.fill(printable(sentence), width) for sentence in result.in_short) + "\n")
    facts({"page": result.report, "score": result.score, "flagged": f"{len(result.flagged):,}"})


@app.command(epilog="A model's sampler has keys of its own: see `trilemma list MODEL`.")
def augment(
    run: Run,
    n: Annotated[int, typer.Option(help="number of images, the same for each class")] = 5000,
    seed: Seed = 0,
    batch: Annotated[int, typer.Option(help="images drawn at a time")] = 256,
    out: Annotated[Path | None, typer.Option(help="output folder (default: inside the run folder)")] = None,
    archive: Annotated[bool, typer.Option(help="also write a zip")] = False,
    verdict: Annotated[bool, typer.Option(help="train classifiers to see whether the images help")] = True,
    seeds: Annotated[int, typer.Option(help="trainings of each classifier")] = 3,
    steps: Annotated[int, typer.Option(help="steps of each of these trainings")] = 300,
    real: Annotated[int | None, typer.Option(help="number of real training images for the classifiers")] = None,
    classical: Annotated[str | None, typer.Option(help="classical augmentation to compare with: flip,shift")] = None,
    quiet: Quiet = False,
    setting: Settings = None,
) -> None:
    """Write labelled synthetic images, and test whether they help a classifier."""
    result = trilemma.augment(
        run, n=n, seed=seed, batch=batch, out=out, archive=archive, verdict=verdict, seeds=seeds, steps=steps,
        real=real, classical=classical, quiet=quiet, **parse_settings(setting),
    )  # fmt: skip
    facts({"folder": result.folder, "grid": result.grid, "zip": result.archive})
    if result.verdict is not None:
        rows = [(name, _estimate(a), _estimate(d)) for name, a, d in result.verdict.rows]
        table(("trained on", "accuracy on real test images (95% interval)", "difference to real alone"), rows)
        say(result.verdict.text)


@app.command()
def disentangle(
    run: Run,
    data: Annotated[str, typer.Option(help="images with known factors")] = "shapes",
    n: Annotated[int, typer.Option(help="number of images")] = 5000,
    seed: Seed = 0,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Score how the latent dimensions follow the factors of images: MIG, DCI, SAP."""
    result = trilemma.disentangle(run, data=data, n=n, seed=seed, out=out, quiet=quiet)
    table(("score", "value (95% interval)"), [(name, _estimate(found)) for name, found in result.scores.items()])
    for note in result.notes:
        say(note)
    facts({"picture": result.picture, "figures": result.figures})


@app.command(epilog="A figure has keys of its own: `trilemma figure` lists them.")
def figure(
    name: Annotated[
        str | None, typer.Argument(help="a figure (default: list them all)", autocompletion=complete_figure)
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="the runs it is drawn from", autocompletion=complete_run),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="output file (default: chosen for you and printed)")] = None,
    setting: Settings = None,
) -> None:
    """Draw a figure of the lessons in docs/."""
    if name is None:
        return table(("figure", "what", "needs"), trilemma.list_figures())
    facts({"picture": trilemma.figure(name, *(runs or ()), out=out, **parse_settings(setting))})


def _estimate(found: "Estimate | None") -> str:
    """A value with its interval, or a dash for none."""
    return "-" if found is None else estimate(*found)


def _flagged(row: Mapping[str, Any]) -> "Estimate | None":
    """The share flagged of the images that were looked at, abnormal or unknown."""
    return row["detection_rate"] or row["flagged_share"]


def _mark(row: Mapping[str, Any]) -> str:
    return "yes" if row["chosen"] else ""
