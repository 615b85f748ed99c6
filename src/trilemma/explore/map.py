"""A map of the codes of a model: each image a point in the plane, near those that the model takes to be alike.

    pca     the projection on the two directions of largest variance: Z V_2 of the centred codes Z = U S V^T
    tsne    van der Maaten & Hinton (2008), "Visualizing data using t-SNE": places whose Student-t neighbourhoods are
            like the Gaussian ones of the codes; only who is near whom carries meaning, distances and sizes do not

Classes differ in colour, beyond ten in the marker, too. Thumbnails are put one after the other on their points where
they stay clear of those before.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from trilemma import rng
from trilemma.data import Data
from trilemma.errors import UserError
from trilemma.explore.codes import condition_for, encode, require
from trilemma.explore.images import Source, class_name, part_of, pick_images, rows_of, run_receipt, source_of
from trilemma.files import json_text
from trilemma.keys import Label, Picture, Seed, SplitOf
from trilemma.pictures import plots
from trilemma.pictures.grid import enlarged, tile_scale, to_image
from trilemma.pictures.levels import to_uint8
from trilemma.pictures.png import png_content, receipt_for, save_png
from trilemma.pictures.table import table
from trilemma.results import Results, place
from trilemma.run.run import Run, RunLike, as_run
from trilemma.text import csv_cell, csv_text, printable
from trilemma.types import Batch, Encodes
from trilemma.values import checked_call

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

LEGEND = 40  # classes; more are not listed
SIDE_IN, DPI = 8.0, 150  # of the map
FRAME = 2  # px around a thumbnail
THUMBNAIL = 44  # px: images are enlarged or reduced towards this side
CLEAR = 0.5  # of a thumbnail's side that is left free around it, so that the points between stay visible
QUERIES = 8
MOST_PERPLEXITY = 30.0
LEAST_SIDE = 0.8  # of the longer side of the map, so that a title fits over it
TITLE = 60  # letters in a line of the title
SPRITE = 8192  # px: the largest side that the projector shows
PROJECTOR = ("vectors.tsv", "metadata.tsv", "sprite.png", "projector_config.json", "projector_config.pbtxt")
PBTXT = """embeddings {{
  tensor_name: "codes"
  tensor_path: "vectors.tsv"
  metadata_path: "metadata.tsv"
  sprite {{
    image_path: "sprite.png"
    single_image_dim: {side}
    single_image_dim: {side}
  }}
}}
"""

How = Literal["pca", "tsne"]


@dataclass(frozen=True)
class LatentMap:
    """The files of a map, and its points.

    picture, coordinates, neighbours: the map, its table (.csv), and the nearest neighbours of some images.
    projector: the folder for the embedding projector; None where not asked for.
    points: (n, 2); index: the positions of the images in their split, (n,).
    nearest: for each image in the picture of the neighbours, itself and its neighbours as rows of `points`.
    """

    picture: Path
    coordinates: Path
    neighbours: Path
    projector: Path | None
    points: Tensor
    index: Tensor
    nearest: Tensor


@checked_call
def latent_map(
    run: RunLike,
    *,
    how: Annotated[How, Field(description="method that places the codes")] = "tsne",
    n: Annotated[int, Field(ge=1, description="images at most")] = 2000,
    perplexity: Annotated[
        float | None,
        Field(description="of t-SNE: neighbours each point attends to (default: a quarter of the images, at most 30)"),
    ] = None,
    data: Source = None,
    split: SplitOf = None,
    thumbnails: Annotated[bool, Field(description="draw small images where there is room")] = True,
    neighbours: Annotated[int, Field(ge=1, description="nearest neighbours to show for some images")] = 5,
    projector: Annotated[bool, Field(description="also write files for the embedding projector")] = False,
    label: Label = None,
    seed: Seed = 0,
    out: Picture = None,
) -> LatentMap:
    """Draw the codes of images as points in the plane, coloured by class, with thumbnails that do not overlap.

    Beside the picture OUT.png lie OUT.csv with the coordinates, OUT-neighbours.png with some images and those of the
    nearest codes, and with `projector` the folder OUT-projector, for https://projector.tensorflow.org or TensorBoard.

    Args:
        how: "tsne", or "pca".
        n: images at most, drawn by the seed where there are more.
        perplexity: of t-SNE: about how many neighbours each point attends to; a quarter of the images where None, from
            1 to 30.
        data: other images than the run's own; they are brought to the size it was trained on.
        split: "train", "valid" or "test"; where None, the run's held-out split, or all images of other data.
        neighbours: how many to show of each image.
        projector: write codes, classes and thumbnails for the embedding projector.
        label: the class to encode all of them with, for a conditional model; where None, that of each image.
        seed: of the choice of the images and of t-SNE.
        out: the picture to write; RUN/map-HOW.png where None.
    Raises:
        UserError: the model does not encode, the images are too few for the map, all have one code, or lack the class
            that the model needs.
    """
    run = as_run(run)
    require(run, "encode images", Encodes)
    picture, within = place(out, run.path, f"map-{how}.png")
    coordinates, beside = picture.with_suffix(".csv"), picture.with_name(f"{picture.stem}-neighbours.png")
    folder = picture.with_name(f"{picture.stem}-projector") if projector else None
    more = [folder / name for name in PROJECTOR] if folder else []
    files = Results(picture, [coordinates, *more], verb="map", within=within, pictures=[beside])
    source = source_of(run, data)
    batch = pick_images(run, source, n, split, seed=seed)
    codes = encode(run, batch.image, condition_for(run, batch, label, advise=True))
    perplexity = perplexity_for(len(codes)) if perplexity is None else perplexity
    points = project(codes, how, perplexity=perplexity, seed=seed)
    part = part_of(run, source, split)
    receipt = run_receipt(
        run, "map", how=how, n=len(points), perplexity=perplexity, split=part.name, label=label, seed=seed
    )
    rows = rows_of(batch, source, part)
    page = _draw(run, points, batch, source, thumbnails, _axes_names(codes, how, perplexity))
    contents: dict[Path, bytes | str] = {coordinates: _table(rows, points)}
    if folder is not None:
        contents |= {folder / name: text for name, text in projector_files(codes, batch.image, rows).items()}
    files.write(page, receipt, contents)
    nearest = _nearest(codes, _queries(batch.condition.label, len(codes)), neighbours)
    save_png(_neighbours_page(batch, codes, nearest, rows), beside, {**receipt, "neighbours": neighbours})
    assert batch.index is not None
    return LatentMap(picture, coordinates, beside, folder, points, batch.index.cpu(), nearest)


def perplexity_for(images: int) -> float:
    """The perplexity of t-SNE that fits so many images: a quarter of them, from 1 to 30."""
    return min(MOST_PERPLEXITY, max(1.0, images / 4))


def project(codes: Tensor, how: How = "tsne", *, perplexity: float | None = None, seed: int = 0) -> Tensor:
    """Codes (N, Z) to points in the plane (N, 2), float32; perplexity: `perplexity_for` their number where None.

    Raises:
        UserError: too few codes, or all are equal.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    n = len(codes)
    if n < 3:
        raise UserError(f"a map of {n} images shows nothing; give at least 3")
    perplexity = perplexity_for(n) if perplexity is None else perplexity
    if how == "tsne" and not 0 < perplexity < n:
        raise UserError(
            f"perplexity={perplexity:g} with {n} images: it must be above 0 and below the number of images; "
            "give more images, a smaller perplexity, or how=pca"
        )
    if (codes == codes[0]).all():
        raise UserError(
            f"all {n} images have the same code: the encoder has collapsed, and there is no map of one point"
        )
    values = codes.double().numpy()
    if values.shape[1] == 1:
        values = torch.cat([codes, torch.zeros(n, 1)], 1).double().numpy()  # a line is a plane's
    state = rng.seed_of(seed, "map") % 2**32
    if how == "pca":
        return torch.from_numpy(PCA(2, svd_solver="full", random_state=state).fit_transform(values)).float()
    found = TSNE(2, perplexity=perplexity, init="pca", random_state=state).fit_transform(values)
    return torch.from_numpy(found).float()


def clear_places(centres: Tensor, size: tuple[float, float]) -> list[int]:
    """Which rectangles of one size (width, height) to draw around the centres (N, 2), so that no two overlap.

    Each is taken in turn if it stays clear of all taken before: |dx| >= width or |dy| >= height.
    """
    taken: list[int] = []
    extent = torch.tensor(size)
    for k, centre in enumerate(centres):
        apart = (centres[taken] - centre).abs() >= extent  # (taken, 2)
        if apart.any(1).all():
            taken.append(k)
    return taken


def projector_files(codes: Tensor, images: Tensor, rows: Sequence[dict[str, Any]]) -> dict[str, bytes | str]:
    """Codes, a line of metadata each and a sheet of thumbnails in the format of the embedding projector.

    Smilkov et al. (2016), "Embedding projector: interactive visualization and interpretation of embeddings". Tabs
    between the values; a header only where the metadata have several columns; thumbnails row by row on a square.
    projector_config.json is for the page (its paths become addresses), projector_config.pbtxt for TensorBoard.
    """
    sheet, side = sprite(images)
    vectors = "\n".join("\t".join(f"{value:.7g}" for value in code) for code in codes.tolist())
    columns = list(rows[0])
    header = ["\t".join(columns)] if len(columns) > 1 else []
    lines = ["\t".join(str(csv_cell(" ".join(str(row[name]).split()))) for name in columns) for row in rows]
    receipt = receipt_for("map", shows="its thumbnails")
    entry = {
        "tensorName": "codes",
        "tensorShape": list(codes.shape),
        "tensorPath": "vectors.tsv",
        "metadataPath": "metadata.tsv",
        "sprite": {"imagePath": "sprite.png", "singleImageDim": [side, side]},
    }
    contents = (
        vectors + "\n",
        "\n".join([*header, *lines]) + "\n",
        png_content(sheet, receipt),
        json_text({"embeddings": [entry]}),
        PBTXT.format(side=side),
    )
    return dict(zip(PROJECTOR, contents, strict=True))


def sprite(images: Tensor) -> tuple["Image.Image", int]:
    """Images (N, C, H, W) in as many rows as columns, each in the middle of a square; and the side of that in px."""
    from PIL import Image

    columns = int((len(images) - 1) ** 0.5) + 1  # least whole number whose square is at least N
    side = min(max(images.shape[2:]), SPRITE // columns)
    sheet = Image.new("L" if images.shape[1] == 1 else "RGB", (columns * side, columns * side), "white")
    for k, image in enumerate(to_uint8(images).cpu()):
        tile = _within(to_image(image), side)
        x, y = (k % columns) * side, (k // columns) * side
        sheet.paste(tile, (x + (side - tile.width) // 2, y + (side - tile.height) // 2))
    return sheet, side


def _within(image: "Image.Image", side: int) -> "Image.Image":
    """An image whose longer side is at most `side` px."""
    from PIL import Image

    factor = side / max(image.size)
    if factor >= 1:
        return image
    width, height = (max(1, round(length * factor)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _table(rows: Sequence[dict[str, Any]], points: Tensor) -> str:
    """CSV: a line for each point: x, y and what is known of its image."""
    lines = ([*point, *row.values()] for point, row in zip(points.tolist(), rows, strict=True))
    return csv_text([["x", "y", *rows[0]], *lines])


def _queries(labels: Tensor | None, n: int) -> list[int]:
    """Images whose neighbours are shown: the first of each class, or some spread evenly."""
    if labels is None:
        return torch.linspace(0, n - 1, min(QUERIES, n)).long().tolist()
    found = labels.tolist()
    return [found.index(label) for label in sorted(set(found))][:QUERIES]


def _nearest(codes: Tensor, queries: Sequence[int], count: int) -> Tensor:
    """Each query and the `count` codes nearest to it by Euclidean distance: rows of `codes`, (queries, 1 + count)."""
    count = min(count, len(codes) - 1)
    distance = torch.cdist(codes[list(queries)].double(), codes.double(), compute_mode="donot_use_mm_for_euclid_dist")
    distance[torch.arange(len(queries)), list(queries)] = -1.0  # itself first, even where another has its code
    return distance.argsort(dim=1, stable=True)[:, : 1 + count]


def _neighbours_page(batch: Batch, codes: Tensor, nearest: Tensor, rows: Sequence[dict[str, Any]]) -> "Image.Image":
    """A row for each query: itself, then its neighbours with their class and distance."""
    own, flat = nearest[:, :1].expand_as(nearest).flatten(), nearest.flatten()
    distances = (codes[flat].double() - codes[own].double()).norm(dim=1).tolist()
    texts = [
        f"{rows[k].get('class', '')} {'' if k == query else f'({distance:.2f})'}"
        for k, query, distance in zip(flat.tolist(), own.tolist(), distances, strict=True)
    ]
    names = [f"image {rows[k]['index']}" for k in nearest[:, 0].tolist()]
    heads = ["image", *(f"nearest {k}" if k == 1 else str(k) for k in range(1, nearest.shape[1]))]
    return table(batch.image[flat.to(batch.image.device)].cpu(), names, heads, texts)


def _axes_names(codes: Tensor, how: str, perplexity: float) -> tuple[str, str, str]:
    """The title's last words, and the names of both axes."""
    if how == "tsne":
        return f"t-SNE of {len(codes):,} codes, perplexity {perplexity:g}", "", ""
    variance = torch.linalg.svdvals((codes - codes.mean(0)).double()).square()
    shares = [*(variance / variance.sum()).tolist(), 0.0][:2]
    first, second = (f"component {k}: {share:.0%} of the variance" for k, share in enumerate(shares, start=1))
    return f"PCA of {len(codes):,} codes", first, second


def _draw(
    run: Run, points: Tensor, batch: Batch, source: Data, thumbnails: bool, words: tuple[str, str, str]
) -> "Image.Image":
    """The map as a picture."""
    from matplotlib.figure import Figure

    labels = (
        torch.zeros(len(points), dtype=torch.int64) if batch.condition.label is None else batch.condition.label.cpu()
    )
    kinds = sorted(set(labels.tolist()))
    figure = Figure(figsize=(SIDE_IN, SIDE_IN), dpi=DPI)
    ax = figure.add_subplot()
    middle, half = (points.amax(0) + points.amin(0)) / 2, (points.amax(0) - points.amin(0)) / 2
    half = 1.06 * half.clamp_min(float(half.max()) * LEAST_SIDE)
    (left, low), (right, high) = (middle - half).tolist(), (middle + half).tolist()
    ax.set(xlim=(left, right), ylim=(low, high), aspect="equal")
    title = textwrap.fill(f"{printable(run.name)}: {words[0]}", TITLE)
    if batch.condition.label is None:
        title += "\nThe images have no classes, so there is one colour."
    ax.set_title(title, fontsize=11, loc="left", parse_math=False)
    ax.set_xlabel(words[1], fontsize=9)
    ax.set_ylabel(words[2], fontsize=9)
    ax.tick_params(labelsize=8)
    if not words[1]:  # the values on the axes of t-SNE carry no meaning
        ax.set_xticks([])
        ax.set_yticks([])
    for kind in kinds:
        place, (colour, marker) = points[labels == kind].T.numpy(), plots.class_look(kind)
        ax.scatter(*place, s=9, marker=marker, color=colour, linewidths=0, label=printable(class_name(source, kind)))
    if 1 < len(kinds) <= LEGEND:
        beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "ncols": 1 + (len(kinds) - 1) // 25}
        ax.legend(**beside, markerscale=2.5, fontsize=9, frameon=False, handletextpad=0.3, borderaxespad=0.3)
    if thumbnails:
        figure.draw_without_rendering()  # settles the limits, from which the places in pixels follow
        _put_thumbnails(ax, points, batch.image, labels)
    return plots.pixels(figure, DPI, margin=0.15)


def _put_thumbnails(ax: "Axes", points: Tensor, images: Tensor, labels: Tensor) -> None:
    """Images on their points, framed in the colour of their class, where they do not overlap."""
    import numpy as np
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage
    from PIL import ImageOps

    height, width = (length + 2 * FRAME for length in _thumbnail(images[0]).size[::-1])
    pixels = torch.from_numpy(ax.transData.transform(points.numpy()))
    order = rng.permutation(len(points), 0, "thumbnails")  # in data sorted by class, the first would take the room
    for k in order[clear_places(pixels[order], ((1 + CLEAR) * width, (1 + CLEAR) * height))].tolist():
        picture = ImageOps.expand(_thumbnail(images[k]).convert("RGB"), FRAME, plots.class_look(int(labels[k]))[0])
        tile = OffsetImage(np.asarray(picture), zoom=72 / DPI, interpolation="nearest")
        ax.add_artist(AnnotationBbox(tile, tuple(points[k].tolist()), frameon=False, pad=0))


def _thumbnail(image: Tensor) -> "Image.Image":
    """An image (C, H, W) enlarged by a whole factor, or reduced, to a longer side of about THUMBNAIL."""
    large = enlarged(to_uint8(image).cpu(), tile_scale(*image.shape[1:], side=THUMBNAIL))
    return _within(to_image(large), THUMBNAIL)
