"""Draw images from a text, with a published checkpoint: single files and one picture of all, each with its receipt."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from trilemma.config import make
from trilemma.data.decoding.size import parse_size
from trilemma.errors import UserError
from trilemma.explore.axes import BAR, axis
from trilemma.explore.film import imagine_film
from trilemma.explore.imagination import Imagination, load_for, sheet, sheet_receipt, stacked
from trilemma.explore.prompted import (
    AXES,
    FILES,
    MOST,
    MOST_FRAMES,
    TEXTS,
    Request,
    draw_cells,
    full_mask,
    full_path,
    read_cells,
)
from trilemma.explore.solid import imagine_solid
from trilemma.files import read_plain, user_path
from trilemma.keys import AlongRow, DownColumn, Film, Seed
from trilemma.metrics.receipt import protocol_name
from trilemma.modes import own_modes
from trilemma.pictures.mesh import MeshFormat
from trilemma.pictures.png import save_png
from trilemma.pretrained.fetch import Place, locate
from trilemma.pretrained.kinds import FILMS
from trilemma.pretrained.pipeline import product_at
from trilemma.pretrained.solid import is_solid
from trilemma.pretrained.table import check_verb, defaults_of, takers
from trilemma.results import claim, place, with_keys
from trilemma.values import checked_call

LARGEST_TEXT = 2**20  # bytes of a file of prompts
LONGEST = 30  # letters of a prompt in the name of a file


@checked_call
@own_modes()
def imagine(
    prompt: Annotated[str | Path, Field(description="what the images show, or a .txt file of prompts, one a line")],
    *,
    model: Annotated[
        str | Path,
        Field(description=f"{', '.join(takers('imagine'))}, a repository of the hub as OWNER/NAME, or a folder"),
    ],
    n: Annotated[int, Field(ge=1, le=MOST, description="images of each prompt")] = 1,
    seed: Seed = 0,
    first: Annotated[
        int, Field(ge=0, description="number of the first image; image k of a seed is always the same")
    ] = 0,
    steps: Annotated[int | None, Field(ge=1, le=1000, description="of the scheduler (default: the model's)")] = None,
    guidance: Annotated[
        float | None, Field(ge=0, description="how closely to follow the prompt (default: the model's)")
    ] = None,
    negative: Annotated[str | None, Field(description="what the images are not to show")] = None,
    size: Annotated[
        int | str | tuple[int, int] | None,
        Field(description="px: 512, or height x width as 512x768 (default: the model's, or that of image)"),
    ] = None,
    scheduler: Annotated[
        str | None, Field(description="class of diffusers, as EulerDiscreteScheduler (default: the model's)")
    ] = None,
    image: Annotated[str | Path | None, Field(description="an image file to draw again")] = None,
    strength: Annotated[
        float | None, Field(gt=0, le=1, description="with image: how much to change it (default: the model's)")
    ] = None,
    mask: Annotated[
        str | None,
        Field(
            description="with image: where to draw: left,top,right,bottom px, outside:..., or a file, white there "
            "(transparent counts as black)"
        ),
    ] = None,
    lora: Annotated[str | Path | None, Field(description="a .safetensors file of LoRA weights; needs peft")] = None,
    x: AlongRow = None,
    y: DownColumn = None,
    frames: Annotated[
        int | None,
        Field(ge=2, le=MOST_FRAMES, description="draw a video (film) of so many frames, with a model that draws them"),
    ] = None,
    film: Annotated[
        Film | None,
        Field(description="format of an animation (default: gif); mp4 needs the extra video"),
    ] = None,
    fps: Annotated[
        int | None, Field(ge=1, le=60, description="with frames: images in a second (default: the model's, or 8)")
    ] = None,
    adapter: Annotated[
        str | Path | None,
        Field(description="with frames: a motion adapter of a Stable Diffusion, OWNER/NAME of the hub, or a folder"),
    ] = None,
    mesh: Annotated[
        MeshFormat | None, Field(description="with a model of objects: format of the surface (default: ply)")
    ] = None,
    out: Annotated[
        str | Path | None, Field(description="picture to write (default: imagine-PROMPT.png in this folder)")
    ] = None,
) -> Imagination:
    """Draw images from a text with a published checkpoint, and write them with how they were made.

    Args:
        model: it is downloaded at the first use, and then used without the network.
        size: px of the images (default: the model's, or that of image).
        out: the picture to write (default: imagine-PROMPT.png in this folder, with the keys in its name); where it
            shows several images, each lies beside it, as NAME-0.png; so do an animation, as NAME.gif,
            and a surface, as NAME.ply.
    Raises:
        UserError: the model is not found, cannot be downloaded, or holds what is not loaded; it does not take a key; a
            library is missing.
    """
    check_verb(str(model), "imagine")
    asked = {
        "n": n, "seed": seed, "first": first, "steps": steps, "guidance": guidance, "negative": negative,
        "size": parse_size(size), "scheduler": scheduler, "image": full_path(image), "strength": strength,
        "mask": full_mask(mask), "lora": full_path(lora), "x": x, "y": y, "frames": frames, "fps": fps,
        "adapter": full_path(adapter) if adapter and user_path(adapter).is_dir() else adapter and str(adapter),
    }  # fmt: skip
    asked |= {**_varied_files("x", x), **_varied_files("y", y)}
    given = {key: value for key, value in asked.items() if value is not None}
    request = make(Request, {**_defaults(str(model), given), **given, "prompts": prompts_of(prompt)})
    stem = with_keys(_stem(request), {"model": str(model), **given}, {"n": 1, "seed": 0, "first": 0})
    picture, within = place(out, Path(), f"{stem}.png")
    if request.frames is not None:
        _refuse_mesh(mesh)
        return imagine_film(request, str(model), picture, within, film)
    paths = _paths(picture, request)
    claim(dict.fromkeys([picture, *paths]), within=within)
    inputs, source = read_cells(request), locate(str(model))
    if is_solid(source):
        return imagine_solid(request, source, picture, within, film or "gif", mesh or "ply")
    _refuse_film(film, source)
    _refuse_mesh(mesh)
    pipeline = load_for(request, source)
    images = []
    for path, (drawn, receipt) in zip(paths, draw_cells(pipeline, request, inputs), strict=True):
        save_png(drawn, path, receipt)
        images.append(drawn)
    if len(paths) > 1:
        save_png(sheet(request, images), picture, sheet_receipt(pipeline, request, images))
    return Imagination(picture, paths, stacked(images))


def _refuse_film(film: Film | None, source: Place) -> None:
    """Raises UserError for the format of an animation that is not written."""
    if film is None:
        return
    product, advice = product_at(source), "add frames=, how many images it has"
    if product != FILMS:
        advice = f"{source.name} draws {product}: leave film= out"
    raise UserError(f"film={film} is the format of an animation; {advice}")


def _refuse_mesh(mesh: MeshFormat | None) -> None:
    """Raises UserError for the format of a surface that is not written."""
    if mesh is not None:
        raise UserError(f"mesh={mesh} is the format of a surface, and this model makes none; leave it out")


def prompts_of(prompt: str | Path) -> tuple[str, ...]:
    """The prompt, or those of a .txt file: its lines that are not empty.

    Raises:
        UserError: the file does not exist, is too large, or has no line.
    """
    text, path = str(prompt), user_path(prompt)
    if path.suffix.lower() != ".txt":
        return (text,)
    if not path.is_file():
        raise UserError(f"{path} not found; give a prompt, or a .txt file of prompts, one a line")
    try:
        lines = read_plain(path, LARGEST_TEXT).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text in UTF-8; save it as one") from None
    prompts = tuple(line.strip() for line in lines if line.strip())
    if not prompts:
        raise UserError(f"{path} is empty; write one prompt a line")
    return prompts


def _varied_files(name: str, text: str | None) -> dict[str, str]:
    """An axis whose files have their full paths, and the first of them as what is asked for; {} for one of no files.

    Raises:
        UserError: it has another form, or its key cannot vary.
    """
    key, values = axis(name, text, AXES, TEXTS) if text is not None else ("", [])
    if key not in FILES:
        return {}
    full = [full_mask(value) if key == "mask" else full_path(value) for value in values]
    axis_text = f"{key}:{BAR.join(value or 'none' for value in full)}{BAR}"
    return {name: axis_text, **({key: next(filter(None, full))} if any(full) else {})}


def _defaults(model: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that a checkpoint of the table is drawn with where nothing else is said."""
    varied = dict(axis(name, given[name], AXES, TEXTS) for name in ("x", "y") if name in given)
    asked = {**given, **varied}
    if "strength" in varied:
        fitting = [value for value in varied["strength"] if isinstance(value, int | float) and 0 < value <= 1]
        asked["strength"] = min(fitting, default=None)
    own = defaults_of(model, asked)
    return {key: value for key, value in own.items() if key not in varied}


def _stem(request: Request) -> str:
    prompt, *others = request.prompts
    more = f"-and-{len(others)}-more" if others else ""
    return f"imagine-{protocol_name(prompt)[:LONGEST]}{more}"


def _paths(picture: Path, request: Request) -> list[Path]:
    """The file of each image: the picture itself where there is one; NAME-K.png, or NAME-ROW-COLUMN.png in a grid, and
    NAME-PROMPT-K.png of several prompts."""
    cells = request.cells
    if len(cells) == 1:
        return [picture]
    columns = request.columns
    if columns is None:
        return [picture.with_name(f"{picture.stem}-{cell.first}.png") for cell in cells]
    start = request.first if request.x is None else 0
    names = [f"{picture.stem}-{k // columns}-{start + k % columns}.png" for k in range(len(cells))]
    return [picture.with_name(name) for name in names]
