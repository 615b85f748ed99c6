"""Keys that several verbs share: each has its type, bounds and description here, and its default in the signature."""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field

T = TypeVar("T")

SplitName = Literal["train", "valid", "test"]

OneOrMore = Annotated[tuple[T, ...], Field(min_length=1)]  # values with commas between

Seed = Annotated[int, Field(description="random seed")]
Count = Annotated[int, Field(ge=1, description="number of images")]
BatchSize = Annotated[int, Field(ge=1, description="images drawn at a time; changes speed and memory, not the images")]
Inverted = Annotated[
    int,
    Field(
        ge=0,
        description="number of images to reconstruct, by searching for their codes where a model has no encoder "
        "(default: 0, only models with an encoder)",
    ),
]
Quiet = Annotated[bool, Field(description="hide progress")]
Out = Annotated[str | Path | None, Field(description="output file or folder (default: chosen for you and printed)")]
Picture = Annotated[str | Path | None, Field(description="picture to write (default: inside the run folder)")]
RunOrPipelinePicture = Annotated[
    str | Path | None,
    Field(description="picture to write (default: inside the run folder; of a pipeline, in this folder)"),
]
Label = Annotated[str | int | None, Field(description="class, by name or number, for a conditional model")]
Caption = Annotated[
    str | None, Field(description="what the images show, for a model that reads captions; several with | between them")
]
Prompt = Annotated[
    str | None,
    Field(
        description="of a pipeline: what its images show, {} for the caption or class of each real image (default: the "
        "captions, or a photo of {})"
    ),
]
AlongRow = Annotated[
    str | None, Field(description="a key that varies along a row, as steps:1,2,4; | between values with commas")
]
DownColumn = Annotated[str | None, Field(description="a key that varies down a column, as guidance:0,3")]
Film = Literal["gif", "webp", "mp4"]
FilmFormat = Annotated[Film, Field(description="of the animation; mp4 needs the extra video")]
SplitOf = Annotated[SplitName | None, Field(description="split to use (default: held-out images)")]
Channels = Annotated[
    int | None, Field(description="1: convert images to grey, 3: to colour (default: inferred from the images)")
]
Frames = Annotated[
    str | None,
    Field(description='"all": each frame or page of a file is an image (default: "first", only the first of each)'),
]
Resize = Annotated[
    int | str | tuple[int, int] | None,
    Field(description="resize images to this, px: 32, or 48x64 (height x width)"),
]
