"""Images in a folder for each class: names that every file system takes, labels for others, the whole as a zip."""

import io
import json
import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from trilemma.data.decoding.pixels import SUFFIXES
from trilemma.errors import UserError
from trilemma.text import csv_cell, csv_text


def files_by_class(folder: Path, counts: Mapping[str, int]) -> dict[str, list[Path]]:
    """The file of each image by class, numbered as the images are."""
    files, first = {}, 0
    for (name, count), own in zip(counts.items(), folder_names(list(counts)), strict=True):
        files[name] = [folder / own / f"{k:05d}.png" for k in range(first, first + count)]
        first += count
    return files


def folder_names(classes: Sequence[str]) -> list[str]:
    """The name of each class as the name of a folder of its own.

    >>> folder_names(["T-shirt/top", "A", "a", "a-2", "猫"])
    ['T-shirt-top', 'A-1', 'a-2-', 'a-2', '猫']
    """
    names = [re.sub(r'[<>:"/\\|?*\x00-\x1f]', "-", name).strip(" .") or "class" for name in classes]
    count = Counter(map(_alike, names))
    in_use, folders = {name for name, times in count.items() if times == 1}, []
    for k, name in enumerate(names):
        folder = name if count[_alike(name)] == 1 else f"{name}-{k}"
        while folder != name and _alike(folder) in in_use:
            folder += "-"
        in_use.add(_alike(folder))
        folders.append(folder)
    return folders


def _alike(name: str) -> str:
    """What a name is to a file system that takes A for a, and one way to write a letter for another."""
    return unicodedata.normalize("NFC", name).casefold()


def refuse_other_images(folder: Path, ours: Sequence[Path]) -> None:
    """Images of another call among these would be taken for them."""
    others = [p for p in sorted({*folder.rglob("*")} - {*ours}) if p.suffix.lower() in SUFFIXES]
    if others:
        raise UserError(f"{folder} holds other images, such as {others[0]}; choose another out= or remove them")


def label_files(folder: Path, files: Mapping[str, list[Path]]) -> dict[Path, str]:
    """metadata.csv with the classes if one cannot be the name of a folder (T-shirt/top); metadata.jsonl if a
    spreadsheet would compute a name."""
    if all(paths[0].parent.name == name for name, paths in files.items()):
        return {}
    rows = [(p.relative_to(folder).as_posix(), name) for name, paths in files.items() for p in paths]
    if all(csv_cell(cell) == cell for row in rows for cell in row):
        return {folder / "metadata.csv": csv_text([("file_name", "label"), *rows])}
    lines = (json.dumps({"file_name": file, "label": label}) for file, label in rows)
    return {folder / "metadata.jsonl": "".join(f"{line}\n" for line in lines)}


def zip_of(folder: Path, ours: Sequence[Path]) -> bytes:
    """The files of ours in a folder, as a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in ours:
            archive.write(path, path.relative_to(folder))
    return buffer.getvalue()
