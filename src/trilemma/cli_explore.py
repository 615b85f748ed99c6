"""The verbs that explore and use a trained model, as commands: parse, call the function of that name, print."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import trilemma
from trilemma.arguments import SETTING, parse_settings
from trilemma.cli_output import estimate, facts, number, say, table
from trilemma.text import printable

if TYPE_CHECKING:
    from trilemma.metrics.intervals import Estimate

app = typer.Typer()

Run = Annotated[Path, typer.Argument(metavar="RUN", help="a run folder, as `trilemma train` leaves it")]
Out = Annotated[Path | None, typer.Option(help="where to write; in the run's folder where not given")]
Seed = Annotated[int, typer.Option(help="of everything random")]
Images = Annotated[str | None, typer.Option("--data", help="other images than the run's own")]
Split = Annotated[str | None, typer.Option(help="images to take: train, valid or test; held out where not given")]
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
    """Show images above what the model makes of them, with the error of each."""
    result = trilemma.reconstruct(run, data=data, n=n, split=split, label=label, out=out)
    facts({"picture": result.picture, "errors": result.file, "rmse": number(result.rmse)})


@app.command()
def interpolate(
    run: Run,
    a: Annotated[
        str, typer.Argument(help="an image file, the number of a held-out image, or a code (1.5,-0.3,... or .npy)")
    ],
    b: Annotated[str, typer.Argument(help="the other end, in the same way")],
    frames: Annotated[int, typer.Option(help="images in a row, with both ends")] = 7,
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
        str | None, typer.Option(help="where to start, as for interpolate; the mean code where not given")
    ] = None,
    units: Annotated[
        str | None, typer.Option(help="numbers of the code to move: 0,4,7; the ten that vary most")
    ] = None,
    span: Annotated[float, typer.Option(help="how far to both sides, in standard deviations")] = 3.0,
    steps: Annotated[int | None, typer.Option(help="images in a row; 7, or 15 for a side of a plane")] = None,
    plane: Annotated[str | None, typer.Option(help="two numbers to move together: 0,1; false for none")] = None,
    spacing: Annotated[str, typer.Option(help="lines of a plane: quantiles or even")] = "quantiles",
    data: Images = None,
    label: Label = None,
    out: Out = None,
) -> None:
    """Move one number of a code at a time, or two over a plane, and look at the images."""
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
    thumbnails: Annotated[bool, typer.Option(help="small images where they have room")] = True,
    neighbours: Annotated[int, typer.Option(help="nearest neighbours to show of some images")] = 5,
    projector: Annotated[bool, typer.Option(help="write the files of the embedding projector, too")] = False,
    seed: Seed = 0,
    out: Out = None,
) -> None:
    """Draw the codes of images as a map, coloured by class."""
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
    away: Annotated[str | None, typer.Option(help="the other group; everything else where not given")] = None,
    strength: Annotated[float, typer.Option(help="of the last picture; 1 is the whole difference of the groups")] = 1.0,
    steps: Annotated[int, typer.Option(help="pictures")] = 7,
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
    """Measure codes as compression, beside PCA, JPEG and WebP."""
    result = trilemma.compress(run, data=data, n=n, out=out)
    rows = [
        (r.name, r.counted, number(r.bytes), f"{r.within:.1%}", number(r.ratio), number(r.rmse), f"{r.psnr_db:.2f}")
        for r in result.rows
    ]
    table(("by", "counted", "bytes", "within", "ratio", "rmse", "psnr dB"), rows)
    if any(r.within < 1 for r in result.rows):
        budget = f"at most {number(result.bytes)} bytes"
        print(f"within: share of images in {budget}; of the others the smallest file is taken")
    facts({"picture": result.picture, "figures": result.file})


@app.command()
def detect(
    run: Run,
    against: Annotated[
        str | None, typer.Option(help="images to look for abnormal ones in; the held-out where not given")
    ] = None,
    normal: Annotated[
        str | None, typer.Option(help="normal classes of `against`, commas between; none: all abnormal")
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
    """Flag abnormal images by a model that was trained on normal ones."""
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
    print("\n" + "\n".join(textwrap.fill(printable(sentence), 80) for sentence in result.in_short) + "\n")
    facts({"page": result.report, "score": result.score, "flagged": f"{len(result.flagged):,}"})


@app.command(epilog="A model's sampler has keys of its own: see `trilemma list MODEL`.")
def augment(
    run: Run,
    n: Annotated[int, typer.Option(help="number of images, the classes equally often")] = 5000,
    seed: Seed = 0,
    batch: Annotated[int, typer.Option(help="images drawn at a time")] = 256,
    out: Annotated[Path | None, typer.Option(help="the folder to write")] = None,
    archive: Annotated[bool, typer.Option(help="also as a zip")] = False,
    verdict: Annotated[bool, typer.Option(help="train classifiers to see whether the images help")] = True,
    seeds: Annotated[int, typer.Option(help="trainings of each kind")] = 3,
    steps: Annotated[int, typer.Option(help="of each of these trainings")] = 300,
    real: Annotated[int | None, typer.Option(help="training images that the classifiers learn from")] = None,
    classical: Annotated[str | None, typer.Option(help="classical augmentation to compare with: flip,shift")] = None,
    quiet: Annotated[bool, typer.Option(help="show no progress")] = False,
    setting: Settings = None,
) -> None:
    """Write labelled synthetic images, and say whether they help a classifier."""
    result = trilemma.augment(
        run, n=n, seed=seed, batch=batch, out=out, archive=archive, verdict=verdict, seeds=seeds, steps=steps,
        real=real, classical=classical, quiet=quiet, **parse_settings(setting),
    )  # fmt: skip
    facts({"folder": result.folder, "grid": result.grid, "zip": result.archive})
    if result.verdict is not None:
        rows = [(name, _estimate(a), _estimate(d)) for name, a, d in result.verdict.rows]
        table(("learnt from", "accuracy on real test images (95% interval)", "difference to real alone"), rows)
        say(result.verdict.text)


@app.command()
def disentangle(
    run: Run,
    data: Annotated[str, typer.Option(help="images with known factors")] = "shapes",
    n: Annotated[int, typer.Option(help="number of images")] = 5000,
    seed: Seed = 0,
    out: Out = None,
    quiet: Annotated[bool, typer.Option(help="show no progress")] = False,
) -> None:
    """Score how the numbers of a code follow the factors of images: MIG, DCI, SAP."""
    result = trilemma.disentangle(run, data=data, n=n, seed=seed, out=out, quiet=quiet)
    table(("score", "value (95% interval)"), [(name, _estimate(found)) for name, found in result.scores.items()])
    for note in result.notes:
        say(note)
    facts({"picture": result.picture, "figures": result.figures})


@app.command(epilog="A figure has keys of its own: `trilemma figure` lists them.")
def figure(
    name: Annotated[str | None, typer.Argument(help="a figure's name; all are listed where not given")] = None,
    runs: Annotated[list[Path] | None, typer.Argument(metavar="[RUN]...", help="the runs it is drawn from")] = None,
    out: Annotated[Path | None, typer.Option(help="the picture to write")] = None,
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
