"""Originals over their reconstructions, with the error of each: sqrt(mean((x_hat - x)**2)) over the pixels of x."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from trilemma.data.load import Images
from trilemma.explore.codes import ASKED, condition_for, note_search
from trilemma.explore.images import name_of, part_of, pick_images, rows_of, run_receipt, source_of
from trilemma.files import json_text
from trilemma.keys import Caption, Count, Label, Picture, SplitOf
from trilemma.pictures.pairs import pairs
from trilemma.results import Results, place
from trilemma.run.run import RunLike, as_run
from trilemma.types import Reconstructs
from trilemma.values import checked_call

TITLE = "RMSE: root mean squared error over the pixels, which lie in [0, 1]"


@dataclass(frozen=True)
class Reconstruction:
    """The picture, and the root of the mean squared error over all pixels, in pixel units of [0, 1].

    errors: root mean squared error of each image, (n,); images: what the model made of each, (n, C, H, W) in [0, 1].
    file: JSON beside the picture: of each image its position in the split, its class and file if any, and its rmse.
    """

    picture: Path
    rmse: float
    errors: Tensor
    images: Tensor
    file: Path


@checked_call
def reconstruct(
    run: RunLike,
    *,
    data: Images = None,
    n: Count = 16,
    split: SplitOf = None,
    label: Label = None,
    caption: Caption = None,
    out: Picture = None,
) -> Reconstruction:
    """Pass `n` images through a model that was not trained on them; lay the results below, with the error of each.

    Args:
        data: other images than the run's own; they are brought to the size it was trained on.
        split: "train", "valid" or "test"; default: the run's held-out split, or all images of other data.
        label: the class of all of them, for a conditional model; default: each image's own.
        caption: what they show, for a model that reads captions; default: each image's own, of a model that was never
            without, else none.
        out: the picture to write, with the errors as JSON beside it; default: RUN/reconstructions.png.
    Raises:
        UserError: if the model does not reconstruct, or is conditional and the images have no classes of its own.
    """
    run = as_run(run)
    run.coder("reconstruct", Reconstructs)
    picture, within = place(out, run.path, "reconstructions.png")
    file = picture.with_suffix(".json")
    files = Results(picture, [file], verb="reconstruct", within=within)
    source = source_of(run, data)
    batch = pick_images(run, source, n, split)
    images = batch.image.cpu()
    note_search(run)
    results = run.reconstruct(batch.image, condition=condition_for(run, batch, label, caption, advise=ASKED))
    squared = (results - images).square().flatten(1).mean(1)
    rmse, errors = float(squared.mean().sqrt()), squared.sqrt()
    texts = [f"{error:.3f}" for error in errors.tolist()]
    sheet = pairs(images, results, texts, ("image", "reconstruction", "RMSE"), TITLE)
    asked = {"n": len(images), "data": name_of(data), "split": split, "label": label, "caption": caption}
    receipt = run_receipt(run, "reconstruct", **asked, rmse=rmse)
    part = part_of(run, source, split)
    rows = [row | {"rmse": error} for row, error in zip(rows_of(batch, source, part), errors.tolist(), strict=True)]
    values = json_text(receipt | {"split": part.name, "images": rows})
    files.write(sheet, receipt, {file: values})
    return Reconstruction(picture, rmse, errors, results, file)
