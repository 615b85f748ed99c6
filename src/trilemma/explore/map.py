"""A map of the codes of a model: each image a point in the plane, near those that the model takes to be alike.

pca     the projection on the two directions of largest variance: Z V_2 of the centred codes Z = U S V^T
tsne    van der Maaten & Hinton (2008), "Visualizing data using t-SNE": places whose Student-t neighbourhoods are
        like the Gaussian ones of the codes; only who is near whom carries meaning, distances and sizes do not
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from trilemma import rng
from trilemma.data.load import Images
from trilemma.errors import UserError
from trilemma.explore.codes import ASKED, condition_for, note_search
from trilemma.explore.images import name_of, part_of, pick_images, rows_of, run_receipt, source_of
from trilemma.explore.map_files import MAP_FILES, map_files
from trilemma.explore.map_plot import draw_map
from trilemma.explore.projector import PROJECTOR, projector_files
from trilemma.keys import Caption, Label, Picture, Seed, SplitOf
from trilemma.metrics.neighbours import distances
from trilemma.pictures.png import save_png
from trilemma.pictures.table import table
from trilemma.results import Results, place
from trilemma.run.run import RunLike, as_run
from trilemma.text import csv_text
from trilemma.types import Batch, Encodes
from trilemma.values import checked_call

if TYPE_CHECKING:
    from PIL import Image

MOST, MOST_SEARCHED = 2000, 200  # images, by default: of a model that encodes, and of one whose codes are searched
QUERIES = 8  # images whose neighbours are shown, at most
MOST_PERPLEXITY = 30.0
How = Literal["pca", "tsne"]


@dataclass(frozen=True)
class LatentMap:
    """The files of a map, and its points.

    picture, coordinates, neighbours: the map, its table (.csv), and the nearest neighbours of some images.
    projector: the folder for the embedding projector, or None.
    interactive: the folder for the studio's page, or None.
    points: (n, 2); index: the positions of the images in their split, (n,).
    nearest: for each image in the picture of the neighbours, itself and its neighbours as rows of `points`.
    """

    picture: Path
    coordinates: Path
    neighbours: Path
    projector: Path | None
    interactive: Path | None
    points: Tensor
    index: Tensor
    nearest: Tensor


@checked_call
def latent_map(
    run: RunLike,
    *,
    how: Annotated[How, Field(description="method that places the codes")] = "tsne",
    n: Annotated[
        int | None, Field(ge=1, description="images at most (default: 2000; 200 for a model without an encoder)")
    ] = None,
    perplexity: Annotated[
        float | None,
        Field(description="of t-SNE: neighbours each point attends to (default: a quarter of the images, at most 30)"),
    ] = None,
    data: Images = None,
    split: SplitOf = None,
    thumbnails: Annotated[bool, Field(description="draw small images where there is room")] = True,
    neighbours: Annotated[int, Field(ge=1, description="nearest neighbours to show for some images")] = 5,
    projector: Annotated[bool, Field(description="also write files for the embedding projector")] = False,
    interactive: Annotated[bool, Field(description="also write the files of the studio's map")] = False,
    label: Label = None,
    caption: Caption = None,
    seed: Seed = 0,
    out: Picture = None,
) -> LatentMap:
    """Draw the codes of images as points in the plane, coloured by class, with thumbnails that do not overlap.

    Beside the picture OUT.png lie OUT.csv with the coordinates, OUT-neighbours.png with some images and those of the
    nearest codes, and with `projector` the folder OUT-projector, for https://projector.tensorflow.org or TensorBoard.
    With `interactive` the folder OUT-interactive holds what the page of the studio draws: every point, its neighbours
    and its thumbnail. The codes of a model without an encoder are searched, as `invert` does, which takes long.

    Args:
        n: images at most; if there are more, the seed chooses. Default: 2000, or 200 where codes are searched.
        perplexity: default: see `perplexity_for`.
        data: other images than the run's own; they are brought to the size it was trained on.
        split: "train", "valid" or "test"; default: the run's held-out split, or all images of other data.
        label: the class to encode all of them with, for a conditional model; default: each image's own.
        caption: what they show, for a model that reads captions; default: each image's own, of a model that was never
            without, else none.
        seed: of the choice of the images and of t-SNE.
        out: the picture to write; default: RUN/map-HOW.png.
    Raises:
        UserError: the model neither encodes nor inverts images, the images are too few for the map, all have one code,
            or lack the class that the model needs.
    """
    run = as_run(run)
    run.coder("encode images", Encodes)
    note_search(run)
    picture, within = place(out, run.path, f"map-{how}.png")
    coordinates, beside = picture.with_suffix(".csv"), picture.with_name(f"{picture.stem}-neighbours.png")
    folder = picture.with_name(f"{picture.stem}-projector") if projector else None
    page_folder = picture.with_name(f"{picture.stem}-interactive") if interactive else None
    more = [folder / name for name in PROJECTOR] if folder else []
    more += [page_folder / name for name in MAP_FILES] if page_folder else []
    files = Results(picture, [coordinates, *more], verb="map", within=within, pictures=[beside])
    source = source_of(run, data)
    n = (MOST if isinstance(run.model, Encodes) else MOST_SEARCHED) if n is None else n
    batch = pick_images(run, source, n, split, seed=seed)
    codes = run.encode(batch.image, condition=condition_for(run, batch, label, caption, advise=ASKED))
    perplexity = perplexity_for(len(codes)) if perplexity is None else perplexity
    points = project(codes, how, perplexity=perplexity, seed=seed)
    part = part_of(run, source, split)
    receipt = run_receipt(
        run,
        "map",
        how=how,
        n=len(points),
        perplexity=perplexity,
        data=name_of(data),
        split=part.name,
        label=label,
        caption=caption,
        seed=seed,
    )
    rows = rows_of(batch, source, part)
    page = draw_map(run, points, batch, source, thumbnails, _titles(codes, how, perplexity))
    contents: dict[Path, bytes | str] = {coordinates: _table(rows, points)}
    if folder is not None:
        contents |= {folder / name: text for name, text in projector_files(codes, batch.image, rows).items()}
    if page_folder is not None:
        own = data is None and split is None  # the numbers of the images are then those that other verbs take
        about = {"how": how, "weights": receipt["weights"], "split": part.name, "own": own}
        parts = map_files(points, codes, batch, rows, source, about)
        contents |= {page_folder / name: content for name, content in parts.items()}
    files.write(page, receipt, contents)
    nearest = _nearest(codes, _queries(batch.condition.label, len(codes)), neighbours)
    save_png(_neighbours_page(batch, codes, nearest, rows), beside, {**receipt, "neighbours": neighbours})
    assert batch.index is not None
    return LatentMap(picture, coordinates, beside, folder, page_folder, points, batch.index.cpu(), nearest)


def perplexity_for(images: int) -> float:
    """The perplexity of t-SNE that fits so many images: a quarter of them, from 1 to 30."""
    return min(MOST_PERPLEXITY, max(1.0, images / 4))


def project(codes: Tensor, how: How = "tsne", *, perplexity: float | None = None, seed: int = 0) -> Tensor:
    """Codes (N, Z) to points in the plane (N, 2), float32; perplexity: default `perplexity_for` their number.

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
        raise UserError(f"all {n} images have the same code: the encoder has collapsed, and one point cannot be mapped")
    values = codes.double().numpy()
    if values.shape[1] == 1:
        values = torch.cat([codes, torch.zeros(n, 1)], 1).double().numpy()  # a line is a plane's
    state = rng.seed_of(seed, "map") % 2**32
    if how == "pca":
        return torch.from_numpy(PCA(2, svd_solver="full", random_state=state).fit_transform(values)).float()
    return torch.from_numpy(
        TSNE(2, perplexity=perplexity, init="pca", random_state=state).fit_transform(values)
    ).float()


def _table(rows: Sequence[dict[str, Any]], points: Tensor) -> str:
    """CSV: a line for each point: x, y and what is known of its image."""
    lines = ([*point, *row.values()] for point, row in zip(points.tolist(), rows, strict=True))
    return csv_text([["x", "y", *rows[0]], *lines])


def _queries(labels: Tensor | None, n: int) -> list[int]:
    """Images whose neighbours are shown: the first of each class, or some spread evenly."""
    if labels is None:
        return torch.linspace(0, n - 1, min(QUERIES, n)).long().tolist()
    classes = labels.tolist()
    return [classes.index(label) for label in sorted(set(classes))][:QUERIES]


def _nearest(codes: Tensor, queries: Sequence[int], count: int) -> Tensor:
    """Each query and the `count` codes nearest to it by Euclidean distance: rows of `codes`, (queries, 1 + count)."""
    count = min(count, len(codes) - 1)
    distance = distances(codes[list(queries)].double(), codes.double())
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


def _titles(codes: Tensor, how: str, perplexity: float) -> tuple[str, str, str]:
    """The end of the map's title, and the names of both axes."""
    if how == "tsne":
        return f"t-SNE of {len(codes):,} codes, perplexity {perplexity:g}", "", ""
    variance = torch.linalg.svdvals((codes - codes.mean(0)).double()).square()
    shares = [*(variance / variance.sum()).tolist(), 0.0][:2]
    first, second = (f"component {k}: {share:.0%} of the variance" for k, share in enumerate(shares, start=1))
    return f"PCA of {len(codes):,} codes", first, second
