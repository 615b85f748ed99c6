"""What the folder of a pipeline may hold. It is a stranger's: everything is checked before anything is loaded.

Nothing in it is run or unpickled: weights are safetensors, whose header is data; settings are JSON within bounds; no
file holds code, and no setting names any. Classes are those of diffusers and transformers, by name.
"""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trilemma.errors import UserError
from trilemma.files import read_json

INDEX, CONFIG = "model_index.json", "config.json"  # of a pipeline; of a network
LIBRARIES = ("diffusers", "transformers")
NOT_LOADED = ("safety_checker",)  # parts that are left out
CODE = {".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".sh", ".bat", ".exe", ".ipynb"}
PICKLES = {".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".h5", ".msgpack"}
WEIGHTS = ".safetensors"
RUNS_CODE = ("auto_map", "custom_pipelines", "trust_remote_code")  # settings that name code
ADAPTER = "adapter_config.json"  # with it, transformers loads the weights of another repository that it names
TOKENISER = "tokenizer_config.json"
LONGEST_TOKENS = 100  # bits: tokenisers say with the integer 1e30 that a text may have any length
NAMES_A_FILE = ("vocab_file", "merges_file", "tokenizer_file")  # settings that name a file beside them
MOST_ENTRIES = 1_000  # files and folders
LARGEST_SETTINGS = 64 << 20  # bytes of all JSON files; vocabularies are the largest


def check_folder(folder: Path, within: Path | None = None) -> dict[str, Any]:
    """The content of model_index.json, if everything in the folder is what a pipeline may hold.

    Args:
        within: where links may lead; default: the folder.
    Raises:
        UserError: with the first file or entry that may not be there, and what to do.
    """
    if not (folder / INDEX).is_file():
        raise UserError(f"{folder} is not a pipeline of diffusers: it has no {INDEX}; give the folder that holds one")
    files = list(_files(folder, (within or folder).resolve()))
    settings = _all_settings([path for path in files if path.suffix == ".json"])
    index = settings[folder / INDEX]
    for name in components(index, folder / INDEX):
        _check_component(folder / name, files, settings)
    for path in files:
        if path.suffix == WEIGHTS:
            _check_header(path)
    return index


def check_network(folder: Path, kind: str, within: Path | None = None) -> None:
    """Refuse the folder of a single network of diffusers that holds what it may not.

    Args:
        kind: the class that its settings are to name; within: as `check_folder`.
    Raises:
        UserError: as `check_folder`, or it is another network.
    """
    files = list(_files(folder, (within or folder).resolve()))
    settings = _all_settings([path for path in files if path.suffix == ".json"])
    own = settings.get(folder / CONFIG)
    if not isinstance(own, dict) or own.get("_class_name") != kind:
        raise UserError(f"{folder} is not a {kind}: it has no {CONFIG} that names this class; give the folder of one")
    _check_component(folder, files, settings)
    for path in files:
        if path.suffix == WEIGHTS:
            _check_header(path)


def components(index: Any, where: Path | str = INDEX) -> dict[str, tuple[str, str]]:
    """Library and class of each part of a pipeline that is loaded, by its name.

    Args:
        where: what the index is called in a message.
    Raises:
        UserError: an entry is something else, or a library is not one of those that are loaded.
    """
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise UserError(
            f"{where} names no pipeline of diffusers as _class_name; pipelines with their own code are refused"
        )
    parts = {name: _part(name, entry, where) for name, entry in index.items() if isinstance(entry, list)}
    parts = {name: part for name, part in parts.items() if part is not None and name not in NOT_LOADED}
    if not parts:
        raise UserError(f"{where} names no part of a pipeline; download it again")
    return parts


def _part(name: str, entry: list[Any], where: Path | str) -> tuple[str, str] | None:
    """Library and class of a part, None for one that is absent on purpose."""
    if entry == [None, None]:
        return None
    if len(entry) != 2 or not all(isinstance(word, str) and word.isidentifier() for word in entry):
        raise UserError(f"{where}: {name} is {entry!r:.80}; give a library and a class, of {' or '.join(LIBRARIES)}")
    if not name.isidentifier():
        raise UserError(f"{where}: {name!r:.80} is not the name of a part; parts are folders beside it")
    library, kind = entry
    if library not in LIBRARIES and not _is_pipeline_package(library):
        raise UserError(f"{where}: {name} is of the library {library:.80}; only {_both()} are loaded")
    return library, kind


def _is_pipeline_package(name: str) -> bool:
    """Whether diffusers has a package of pipelines of that name, which may have parts; it is not imported."""
    spec = find_spec("diffusers")
    places = list(spec.submodule_search_locations or ()) if spec else []
    return any(Path(place, "pipelines", name, "__init__.py").is_file() for place in places)


def _files(folder: Path, within: Path) -> Iterator[Path]:
    """All files below a folder.

    Raises:
        UserError: there are too many, one is code or not a plain file, or a link leads out.
    """
    count = 0
    for place, folders, names in os.walk(folder):
        count += len(folders) + len(names)
        if count > MOST_ENTRIES:
            raise UserError(f"{folder} holds more than {MOST_ENTRIES:,} files; give the folder of one pipeline")
        for path in (Path(place, name) for name in folders):
            if path.is_symlink():
                raise UserError(f"{path} is a link to a folder; replace it by a copy of the folder")
        for path in (Path(place, name) for name in names):
            _check_file(path, within)
            yield path


def _check_file(path: Path, within: Path) -> None:
    """Raises UserError for a file that is code or not a plain file, or a link that leads out."""
    if path.is_symlink() and not path.resolve().is_relative_to(within):
        raise UserError(f"{path} is a link that leads out of {within}; replace it by a copy of the file")
    if not path.is_file():
        raise UserError(f"{path} is not a plain file; delete it or replace it by a copy of the file")
    if path.suffix.lower() in CODE:
        raise UserError(f"{path} is code; nothing is loaded from a folder with code in it: remove it if it is yours")


def _all_settings(paths: list[Path]) -> dict[Path, Any]:
    """The content of JSON files.

    Raises:
        UserError: they are too large, one is not JSON within the bounds, or it names code or files elsewhere.
    """
    if sum(path.stat().st_size for path in paths) > LARGEST_SETTINGS:
        raise UserError(f"{paths[0].parent}: its settings have more than {LARGEST_SETTINGS:,} bytes; download it again")
    return {path: _settings(path) for path in paths}


def _settings(path: Path) -> Any:
    content = read_json(path, LARGEST_SETTINGS, bits=LONGEST_TOKENS if path.name == TOKENISER else 64)
    if path.name == ADAPTER:
        raise UserError(f"{path} names weights elsewhere; only pipelines whose weights are all there are loaded")
    if not isinstance(content, dict):
        return content
    for section in (content, *(part for key, part in content.items() if key.endswith("_config"))):
        if isinstance(section, dict) and (key := _names_code(section)):
            raise UserError(f"{path} names code of its own ({key}); only classes of {_both()} are loaded")
    for name in _named_files(content):
        if name is not None and (not isinstance(name, str) or Path(name).name != name.removeprefix("./")):
            raise UserError(f"{path} names the file {name!r:.80}; only files beside it may be named")
    return content


def _names_code(section: dict[str, Any]) -> str | None:
    """The setting that names code: a module, or a repository with an implementation."""
    kernels = [key for key, value in section.items() if key.endswith("_implementation") and "/" in str(value)]
    return next((key for key in [*RUNS_CODE, *kernels] if section.get(key)), None)


def _named_files(content: dict[str, Any]) -> list[Any]:
    """What settings of a tokeniser or of weights in several files name as files."""
    shards = content.get("weight_map")
    return [content.get(key) for key in NAMES_A_FILE] + (list(shards.values()) if isinstance(shards, dict) else [])


def _both() -> str:
    return " and ".join(LIBRARIES)


def _check_component(folder: Path, files: list[Path], settings: dict[Path, Any]) -> None:
    """Raises UserError for a part that is missing, or is a network without weights that may be read."""
    own = [path for path in files if path.parent == folder]
    if not own:
        raise UserError(f"{folder} not found, which {INDEX} names; download the pipeline again")
    if any(path.suffix == WEIGHTS for path in own):
        return
    if pickles := [path for path in own if path.suffix.lower() in PICKLES]:
        raise UserError(
            f"{pickles[0]} is not read, as it may hold code; only safetensors are loaded: get a version that has them"
        )
    config = settings.get(folder / CONFIG)
    if isinstance(config, dict) and {"_class_name", "architectures"} & config.keys():
        raise UserError(f"{folder} has no weights ({WEIGHTS}); download the pipeline again")


def _check_header(path: Path) -> None:
    """Raises UserError for weights that are not what their header says."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is not a safetensors file ({str(error)[:120]}); download it again") from None
