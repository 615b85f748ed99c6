"""An image enlarged by a diffusion model, beside the same by bicubic interpolation."""

from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from trilemma.data.load import Images
from trilemma.errors import check_finite
from trilemma.explore.by_pipeline import RedrawingKeys, keys_of, upscale_by_pipeline
from trilemma.explore.images import name_of, numbered_contents, numbered_paths, run_receipt
from trilemma.explore.naming import image_word, number_of, pick_image, read_whole
from trilemma.explore.upscaling import Upscaling, check_enlarged, upscaling_page
from trilemma.keys import Caption, Label, RunOrPipelinePicture, Seed
from trilemma.modes import own_modes
from trilemma.pretrained.table import pipeline_name
from trilemma.progress import OnStep, drawing_progress
from trilemma.results import Results, place
from trilemma.run.compute import one_algorithm
from trilemma.run.run import Run, RunOrPipeline, as_run, end_of
from trilemma.text import note
from trilemma.types import Upscales
from trilemma.values import checked_call


@checked_call
@own_modes()
def upscale(
    run: RunOrPipeline,
    image: Annotated[
        str | int | Path, Field(description="an image file, or the number of a held-out image, which is shrunk first")
    ],
    *,
    n: Annotated[int, Field(ge=1, le=64, description="images to draw")] = 1,
    seed: Seed = 0,
    first: Annotated[int, Field(ge=0, description="number of the first image, as for sample")] = 0,
    data: Images = None,
    label: Label = None,
    caption: Caption = None,
    out: RunOrPipelinePicture = None,
    **settings: Any,
) -> Upscaling:
    """Enlarge an image: a picture of it beside what is drawn, and a file for each image drawn.

    Args:
        run: or pipeline:NAME, a published checkpoint that enlarges; caption= is its prompt.
        image: a file is enlarged as it is, and tile by tile where it is larger than the small images of the training.
        n, seed, first: how many images are drawn, and the numbers of their noise.
        data: other images to count in than the run's own.
        label, caption: what the image shows, for a model that takes it.
        out: the picture to write (default: RUN/upscale-IMAGE.png); the images lie beside it, as NAME-0.png.
        settings: of the model's sampler.
    Raises:
        UserError: the model was not trained to enlarge images, the image is smaller than those of its training, or so
            large that its pixels would be more than LARGEST.
    """
    if (name := pipeline_name(run)) is not None:
        return upscale_by_pipeline(name, image, keys_of(RedrawingKeys, upscale, locals()))
    run = as_run(run)
    model = run.require("enlarge images", Upscales)
    keys = run.sampling(settings, upscale)
    end_of(first, n)
    picture, within = place(out, run.path, f"upscale-{image_word(image)}.png")
    paths = numbered_paths(picture, first, n)
    files = Results(picture, paths, verb="upscale", within=within)
    small, original = _small(run, image, data, model.factor)
    size, tile = [side * model.factor for side in small.shape[2:]], list(run.shape[1:])
    check_enlarged(image, size)
    if size != tile and all(side >= least for side, least in zip(size, tile, strict=True)):  # less is refused
        note(f"{image}: {small.shape[2]}x{small.shape[3]} px are enlarged in tiles of {tile[0]}x{tile[1]}")
    guides = run.guides(keys)
    condition = run.condition(label, n, classifier=guides.classifier, caption=caption, first=first).to(run.device)
    how = {"seed": seed, "keys": keys, "guides": guides}

    def draw_image(k: int, on_step: OnStep) -> Tensor:
        asked = condition.rows(slice(k, k + 1))
        return model.upscale(small, first=first + k, condition=asked, on_step=on_step, **how).float().cpu()

    with torch.no_grad(), one_algorithm(), drawing_progress(n) as on_steps_of:
        images = torch.cat([draw_image(k, on_steps_of(k)) for k in range(n)])
    check_finite(images, "images", "train again with a lower lr=")
    bicubic = F.interpolate(small, size=size, mode="bicubic").clamp(0, 1).cpu()
    asked: dict[str, Any] = {"n": n, "seed": seed, "first": first, "label": label, "caption": caption}
    asked |= {"settings": keys.given(), "data": name_of(data), "guide": run.guide_origin(keys)}
    receipt = run_receipt(run, "upscale", image=str(image), **asked)
    contents = numbered_contents(paths, images, receipt, first)
    files.write(upscaling_page(small.cpu(), bicubic, images, original, first), receipt, contents)
    return Upscaling(picture, paths, small.cpu(), bicubic, images, original)


def _small(run: Run, image: str | int | Path, data: Any, factor: int) -> tuple[Tensor, Tensor | None]:
    """The small image, and the large one that it was made of."""
    if number_of(image) is not None:
        original = pick_image(run, image, data).image
        return F.avg_pool2d(original, factor), original.cpu()
    return read_whole(Path(str(image)), run.shape[0]).to(run.device), None
