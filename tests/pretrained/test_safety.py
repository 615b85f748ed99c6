"""Malformed and hostile folders are refused in one sentence, before anything is loaded; good ones pass."""

import json
import os
import pickle
import struct
import sys

import pytest
import torch
from pretrained.folders import change_json, make_folder, write_json
from safetensors.torch import save_file

from trilemma.errors import UserError
from trilemma.pretrained import safety
from trilemma.pretrained.safety import check_folder, components

UNET = "unet/diffusion_pytorch_model.safetensors"


class Canary:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def canary(folder):
    return pickle.dumps(Canary(folder.parent / "unpickled"))


def write(name, content=b"x"):
    def change(folder):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(folder) if callable(content) else content)

    return change


def index(**changes):
    return lambda folder: change_json(folder / "model_index.json", **changes)


def settings(name, **changes):
    return lambda folder: change_json(folder / name, **changes)


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def both(*changes):
    return lambda folder: [change(folder) for change in changes]


def remove_part(name):
    def change(folder):
        for path in (folder / name).iterdir():
            path.unlink()
        (folder / name).rmdir()

    return change


def pickles_only(name, weights="diffusion_pytorch_model.bin"):
    return both(remove(UNET), write(f"{name}/{weights}", canary))


def link(name, to, *, directory=False):
    def change(folder):
        outside = folder.parent / to
        outside.mkdir() if directory else outside.write_bytes(b"{}")
        path = folder / name
        path.unlink(missing_ok=True)
        path.symlink_to(outside, target_is_directory=directory)

    return change


def header(content, length=None, data=b"\0" * 24):
    """A file of weights with this header."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return write(UNET, struct.pack("<Q", len(text) if length is None else length) + text + data)


def fifo(name):
    return lambda folder: os.mkfifo(folder / name)


def many(folder):
    for k in range(1001):
        (folder / f"{k}.txt").touch()


def deep(folder):
    place = folder
    for _ in range(1001 // 40):
        for k in range(40):
            (place / f"{k}").mkdir()
        place = place / "0"
    many(folder)


TENSOR = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
HOSTILE = {
    "no index": (remove("model_index.json"), "has no model_index.json"),
    "index is a folder": (both(remove("model_index.json"), write("model_index.json/a.txt")), "has no model_index.json"),
    "index is a list": (write("model_index.json", b"[1, 2]"), "names no pipeline"),
    "index is no JSON": (write("model_index.json", b"{"), "not valid JSON"),
    "index is binary": (write("model_index.json", b"\xff\xfe\0"), "not valid JSON"),
    "index is empty": (write("model_index.json", b""), "not valid JSON"),
    "no class": (index(_class_name=None), "names no pipeline"),
    "class of its own": (index(_class_name=["pipeline", "Mine"]), "with their own code are refused"),
    "library os": (index(unet=["os", "system"]), "only diffusers and transformers are loaded"),
    "library sys": (index(unet=["sys", "exit"]), "only diffusers and transformers are loaded"),
    "module of diffusers": (index(unet=["pipeline_utils", "DiffusionPipeline"]), "only diffusers and transformers"),
    "library with a point": (index(unet=["diffusers.utils", "A"]), "give a library and a class"),
    "class with a point": (index(unet=["diffusers", "utils.A"]), "give a library and a class"),
    "entry of three": (index(unet=["diffusers", "A", "B"]), "give a library and a class"),
    "entry of numbers": (index(unet=[1, 2]), "give a library and a class"),
    "entry half empty": (index(unet=["diffusers", None]), "give a library and a class"),
    "name with slashes": (index(**{"../unet": ["diffusers", "A"]}), "not the name of a part"),
    "no part": (write("model_index.json", b'{"_class_name": "A"}'), "names no part"),
    "part missing": (remove_part("unet"), "unet not found"),
    "part without weights": (remove(UNET), "has no weights"),
    "new part missing": (index(extra=["diffusers", "A"]), "extra not found"),
    "pickle": (pickles_only("unet"), "only safetensors are loaded"),
    "pickle of torch": (pickles_only("unet", "pytorch_model.PT"), "only safetensors are loaded"),
    "checkpoint": (pickles_only("unet", "model.ckpt"), "only safetensors are loaded"),
    "pickle renamed": (write(UNET, canary), "not a safetensors file"),
    "pickle renamed elsewhere": (write("extra/model.safetensors", canary), "not a safetensors file"),
    "code": (write("pipeline.py"), "is code"),
    "code in a part": (write("unet/unet.py"), "is code"),
    "code in capitals": (write("unet/HUBCONF.PY"), "is code"),
    "compiled code": (write("unet/a.pyc"), "is code"),
    "library": (write("unet/a.so"), "is code"),
    "notebook": (write("notes/a.ipynb"), "is code"),
    "auto_map": (settings("unet/config.json", auto_map={"AutoModel": "a.B"}), r"names code of its own \(auto_map\)"),
    "auto_map within": (settings("unet/config.json", text_config={"auto_map": {"A": "b.C"}}), "names code of its own"),
    "tokeniser of its own": (settings("tokenizer/tokenizer_config.json", auto_map={"A": "b.C"}), "names code"),
    "kernels": (settings("unet/config.json", _attn_implementation="owner/kernels"), "names code"),
    "adapter": (write("unet/adapter_config.json", b"{}"), "names weights elsewhere"),
    "vocabulary elsewhere": (settings("tokenizer/tokenizer_config.json", vocab_file="/etc/passwd"), "names the file"),
    "vocabulary above": (settings("tokenizer/tokenizer_config.json", vocab_file="../vocab.json"), "names the file"),
    "shards elsewhere": (
        write("unet/a.safetensors.index.json", b'{"weight_map": {"w": "../../a.safetensors"}}'), "names the file",
    ),
    "link out": (link("unet/config.json", "outside.json"), "leads out of"),
    "link to nothing": (lambda f: (f / "a.txt").symlink_to(f / "absent"), "not a plain file"),
    "link to a folder": (link("extra", "outside", directory=True), "link to a folder"),
    "pipe": (fifo("unet/pipe"), "not a plain file"),
    "pipe as settings": (both(remove("unet/config.json"), fifo("unet/config.json")), "not a plain file"),
    "too many files": (many, "more than 1,000 files"),
    "too many folders": (deep, "more than 1,000 files"),
    "deep settings": (write("unet/config.json", b"[" * 100 + b"]" * 100), "nested more than"),
    "bottomless settings": (write("unet/config.json", b"[" * 10**6), "nested more than|not valid"),
    "long number": (write("unet/config.json", b"1" * 5000), "not valid"),
    "empty weights": (write(UNET, b""), "not a safetensors file"),
    "short weights": (write(UNET, b"1234"), "not a safetensors file"),
    "huge header": (header(b"{}", length=2**40), "not a safetensors file"),
    "endless header": (header(b"{}", length=2**64 - 1), "not a safetensors file"),
    "header is no JSON": (header(b"{" * 8), "not a safetensors file"),
    "header of another size": (header({"w": {**TENSOR, "shape": [2, 4]}}), "not a safetensors file"),
    "header beyond the file": (header({"w": TENSOR}, data=b"\0" * 8), "not a safetensors file"),
    "header with a gap": (header({"w": {**TENSOR, "data_offsets": [8, 32]}}, data=b"\0" * 32), "not a safetensors"),
    "header of a huge shape": (header({"w": {**TENSOR, "shape": [2**62, 2**62]}}), "not a safetensors file"),
    "header of an unknown type": (header({"w": {**TENSOR, "dtype": "X32"}}), "not a safetensors file"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_in_one_sentence(name, tmp_path):
    change, words = HOSTILE[name]
    folder = make_folder(tmp_path / "pipeline")
    change(folder)
    before = set(sys.modules)
    with pytest.raises(UserError, match=words) as caught:
        check_folder(folder)
    text = str(caught.value)
    assert str(folder) in text and "\n" not in text and len(text) < len(str(folder)) * 2 + 250
    assert not (tmp_path / "unpickled").exists()
    assert not {"diffusers", "transformers"} & (set(sys.modules) - before)


def test_settings_beyond_the_bound_are_not_read(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "pipeline")
    total = sum(path.stat().st_size for path in folder.rglob("*.json"))
    monkeypatch.setattr(safety, "LARGEST_SETTINGS", total)
    check_folder(folder)
    monkeypatch.setattr(safety, "LARGEST_SETTINGS", total - 1)
    with pytest.raises(UserError, match="its settings have more than"):
        check_folder(folder)


def test_a_good_folder_passes(tmp_path):
    folder = make_folder(tmp_path / "pipeline")
    assert check_folder(folder)["_class_name"] == "StableDiffusionPipeline"


def test_what_is_loaded_is_what_the_index_names():
    entries = {"_class_name": "P", "a": ["diffusers", "A"], "b": ["shap_e", "B"], "c": [None, None], "flag": True}
    assert components({**entries, "safety_checker": ["stable_diffusion", "S"]}) == {
        "a": ("diffusers", "A"),
        "b": ("shap_e", "B"),
    }


def test_pickles_beside_safetensors_and_pictures_are_left_alone(tmp_path):
    folder = make_folder(tmp_path / "pipeline")
    write("unet/diffusion_pytorch_model.bin", canary)(folder)
    write("README.md", b"a card")(folder)
    shards = {"weight_map": {"weight": "diffusion_pytorch_model.safetensors"}}
    write_json(folder / "unet/diffusion_pytorch_model.safetensors.index.json", shards)
    check_folder(folder)
    assert not (tmp_path / "unpickled").exists()


def test_links_may_lead_into_the_store_of_the_hub(tmp_path):
    folder = make_folder(tmp_path / "model" / "snapshots" / "commit")
    blob = tmp_path / "model" / "blobs" / "1"
    blob.parent.mkdir()
    save_file({"weight": torch.ones(2)}, blob)
    (folder / UNET).unlink()
    (folder / UNET).symlink_to(blob)
    check_folder(folder, within=folder.parents[1])
    with pytest.raises(UserError, match="leads out of"):
        check_folder(folder)


def test_a_tokeniser_may_say_that_a_text_has_any_length(tmp_path):
    """Published ones do, by an integer that no other setting may have."""
    folder = make_folder(tmp_path / "p")
    change_json(folder / "tokenizer/tokenizer_config.json", model_max_length=int(1e30))
    check_folder(folder)
    change_json(folder / "unet/config.json", sample_size=int(1e30))
    with pytest.raises(UserError, match="more than 64 bits"):
        check_folder(folder)
