"""Every public verb once: its name, its function and its help; its keys are those of the function's signature.

A key is declared in the signature: `n: Annotated[int, Field(ge=1, description="number of images")] = 64`. Reading the
signatures loads torch, so `make words` writes what they say into words.json as JSON schemas (signatures.py), which a
test compares with the code. The command line, its help, `trilemma help VERB --json` and docs/commands.md are made from
them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, Literal

from trilemma import vocabulary
from trilemma.arguments import parse_rate, parse_value, word

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SAMPLER_KEYS = "A model's sampler has keys of its own (steps, sampler, eta ...): see `trilemma list MODEL`."
WORDS = {"string": "str", "array": "list", "object": "float", "integer": "int", "number": "float", "boolean": "bool"}
BOUNDS = {"minimum": "ge", "exclusiveMinimum": "gt", "maximum": "le", "exclusiveMaximum": "lt"}
GROUPS = {"data": "List, show and check data."}


@dataclass(frozen=True)
class Verb:
    """A verb, as words of the command line (a group before it, as in "data show") and as a function of `trilemma`.

    about, more: help in a line, and what follows it; see: where keys are shown that are not in the signature;
    fields: "module:name" of fields that describe keys which the signature does not; lists: the function that answers
    where no argument is given; doing: what a terminal says of silent work; light: it answers without torch; divided:
    processes that torchrun has started divide its work.
    """

    name: str
    function: str
    about: str
    more: str = ""
    see: str = ""
    fields: str = ""
    lists: str = ""
    doing: str = ""
    light: bool = False
    divided: bool = False

    @cached_property
    def schema(self) -> Mapping[str, Any]:
        """Its keys as a JSON schema, from words.json."""
        return vocabulary.verb_schema(self.name)

    @property
    def keys(self) -> Mapping[str, Mapping[str, Any]]:
        """The schema of each key and argument."""
        return self.schema["properties"]

    @property
    def places(self) -> Sequence[str]:
        """The arguments, which may be given without their name."""
        return self.schema["positional"]

    @property
    def gathers(self) -> bool:
        """Whether the last argument takes any number of words."""
        return self.schema["variadic"]

    @property
    def required(self) -> Sequence[str]:
        """The arguments and keys that must be given."""
        return [] if self.lists else self.schema.get("required", [])

    @property
    def open(self) -> bool:
        """Whether it takes keys that are not in its signature, such as those of a model."""
        return self.schema["additionalProperties"]

    @property
    def usage(self) -> str:
        """As it is typed.

        >>> find("edit").usage
        'trilemma edit RUN IMAGE'
        """
        words = [name.upper() for name in self.places]
        words += [f"{name}=..." for name in self.required if name not in self.places]
        return " ".join(["trilemma", self.name, *words])


VERBS = (
    Verb(
        "train",
        "train",
        "Train a model on images. The same command again resumes the run.",
        see="More keys are given in the same way: those of the training (optimizer, lr_schedule, clip, monitor ...) "
        "and those of the model. `trilemma list MODEL` shows them with their defaults.",
        fields="trilemma.training.request:FIELDS",
        divided=True,
    ),
    Verb(
        "sample",
        "sample",
        "Draw new images from a run: a grid and single files.",
        see=SAMPLER_KEYS,
        doing="drawing images",
        divided=True,
    ),
    Verb(
        "again",
        "again",
        "Draw a picture again, and compare the two.",
        "The PNG records how it was made. The run is searched for where it was, around the picture, and in runs/. "
        "The exit code is 1 if a pixel differs.",
        doing="drawing the image",
    ),
    Verb(
        "evaluate",
        "evaluate",
        "Measure generated images against real ones.",
        see=SAMPLER_KEYS,
        doing="drawing and measuring images",
        divided=True,
    ),
    Verb(
        "compare",
        "compare",
        "Train a model per family, measure them, and say which to use.",
        "Each training gets the same time. The same command again resumes a comparison that was interrupted. "
        "Given RUNS (or folders or zips of images), nothing is trained: these are compared.",
    ),
    Verb("studio", "open_studio", "Open a page in the browser for all of this: train, watch, sample, compare.",
         "It runs on this machine, for this machine alone. Ctrl-C closes it; jobs that run go on, or stop with "
         "jobs=stop. It needs the extra studio.", light=True),
    Verb("list", "list_models", "List the models, or show one with its keys.", light=True),
    Verb("doctor", "doctor", "Check the machine and the installation.", "Does not use the network. The exit code is 1 "
         "if there is a problem."),
    Verb("reconstruct", "reconstruct", "Show images above their reconstructions, with the error of each.",
         doing="reconstructing images"),
    Verb("interpolate", "interpolate", "Go from one image to another through their codes.", doing="decoding images"),
    Verb("invert", "invert", "Search for the codes that images are drawn from, for a model without an encoder.",
         doing="searching for codes"),
    Verb("traverse", "traverse", "Vary one latent dimension at a time, or two over a plane, and decode the images.",
         doing="decoding images"),
    Verb("denoise", "denoise", "Show how an image comes out of noise, step by step, as a picture and an animation.",
         see=SAMPLER_KEYS, doing="denoising"),
    Verb("map", "latent_map", "Draw a map of the codes of images, coloured by class.",
         doing="placing the codes of images"),
    Verb("edit", "edit", "Change an image: towards a group by its code, or drawn again, whole or under a mask.",
         see=SAMPLER_KEYS, doing="changing images"),
    Verb("imagine", "imagine", "Draw images from a text with a published checkpoint, through diffusers.",
         "Needs the extra pretrained. The checkpoint is downloaded at its first use, with its licence said; nothing in "
         "it is run or unpickled.", doing="drawing images"),
    Verb("upscale", "upscale", "Enlarge an image with a model that was trained to (diffusion-upscale).",
         "A large image is enlarged in tiles that overlap.", see=SAMPLER_KEYS, doing="enlarging the image"),
    Verb("compress", "compress", "Measure the codes as compression, next to PCA, JPEG and WebP.",
         doing="compressing images"),
    Verb("detect", "detect", "Flag anomalies with a model trained on normal images.", doing="scoring images"),
    Verb("augment", "augment", "Write labelled synthetic images, and test whether they help a classifier.",
         see=SAMPLER_KEYS),
    Verb("disentangle", "disentangle", "Score how the latent dimensions follow the factors of images: MIG, DCI, SAP."),
    Verb("export", "export", "Write a trained model as files for other programs: ONNX or diffusers.",
         "What is written is compared with the model, and the difference is recorded beside it. to=onnx needs the "
         "extra export, to=diffusers the extra pretrained.",
         doing="converting the model"),
    Verb("push", "push", "Upload a finished run to the Hugging Face hub, with its model card.",
         "Anyone opens it by hf:OWNER/NAME in place of a run. No training image is uploaded, and nothing that says "
         "where on this machine the run lies. Needs a token (hf auth login).", doing="uploading the run"),
    Verb("figure", "figure", "Draw a figure of the lessons in docs/.",
         see="A figure has keys of its own: `trilemma figure` lists them.", lists="list_figures",
         doing="drawing the figure"),
    Verb("quiz", "quiz", "Ask ten questions about autoencoders and VAEs, or check an exercise of the course.",
         "In a terminal the questions are asked one by one; elsewhere they are printed, and answers= marks answers to "
         "them. `trilemma quiz check` lists the exercises of docs/course, `trilemma quiz check NAME ANSWER` checks an "
         "answer; the exit code is 1 if it is not right.", light=True),
    Verb("data list", "list_sources", "List the built-in data sets.",
         "Your own folder, archive or array file is given by its path."),
    Verb("data show", "show", "Show images as a network sees them.", doing="reading the images"),
    Verb(
        "data check", "check",
        "Find bad files, silent changes, duplicates and training images that are also in another split.",
        "The exit code is 1 if a file cannot be read, a training image is also in another split, or metadata name no "
        "file.", doing="reading the images",
    ),
)  # fmt: skip


def find(name: str) -> Verb:
    """The verb of that name."""
    return next(verb for verb in VERBS if verb.name == name)


def function_of(name: str) -> Callable[..., Any]:
    """A public function, which loads what it needs."""
    return getattr(import_module("trilemma"), name)


def kinds(schema: Mapping[str, Any]) -> set[str]:
    """The types that a schema of JSON allows.

    >>> sorted(kinds({"anyOf": [{"type": "integer"}, {"type": ["string", "null"]}]}))
    ['integer', 'null', 'string']
    """
    types = [part.get("type", ()) for part in schema.get("anyOf", [schema])]
    return {name for kind in types for name in ([kind] if isinstance(kind, str) else kind)}


def kind_of(schema: Mapping[str, Any]) -> str:
    """What is typed for a key, in a word.

    >>> kind_of({"type": ["integer", "null"]}), kind_of({"enum": ["tsne", "pca"]}), kind_of({"format": "path"})
    ('int', 'tsne|pca', 'path')
    """
    if "enum" in schema:
        return "|".join(str(choice) for choice in schema["enum"] if choice is not None)
    if "format" in schema:
        return schema["format"]
    types = kinds(schema)
    return next((word for name, word in WORDS.items() if name in types), "str")


def default_of(verb: Verb, key: str) -> str:
    """The default of a key as it is typed; empty for none, which its description explains."""
    default = verb.keys[key].get("default")
    return "required" if key in verb.required else "" if default in (None, []) else word(default)


def document(verb: Verb) -> dict[str, Any]:
    """A verb's keys as a self-contained JSON schema."""
    own = {key: value for key, value in verb.schema.items() if key not in ("positional", "variadic")}
    return {"$schema": DIALECT, "title": f"trilemma {verb.name}", "description": verb.about, **own}


def parse(text: str, schema: Mapping[str, Any]) -> Any:
    """The value that a text stands for, where a key takes what its schema says.

    >>> parse("3", {"type": "number"}), parse("7", {"type": "string"}), parse("0,4", {"type": ["array", "null"]})
    (3.0, '7', (0, 4))
    >>> [parse(text, {"anyOf": [{"type": "number"}, {"const": "auto", "type": "string"}]}) for text in ("1", "auto")]
    [1.0, 'auto']
    """
    takes, parts = kinds(schema), schema.get("anyOf", [schema])
    named = "number" in takes and all("const" in part for part in parts if "string" in kinds(part))
    if ("string" in takes and not named) or "string" in kinds(schema.get("items", {})):  # a list of words: made later
        return text
    if "object" in takes:
        return parse_rate(text)
    value = parse_value(text)
    return float(value) if type(value) is int and "number" in takes and "integer" not in takes else value


def check_value(key: str, text: str, schema: Mapping[str, Any]) -> None:
    """Raises UserError for a text that is not a number within the bounds of a key, or not one of its choices."""
    kind = {"integer": int, "number": float}.get(next(iter(kinds(schema) - {"null"}), ""))
    choices = tuple(choice for choice in schema.get("enum", ()) if choice is not None)
    value = parse_value(text) if kind and not choices else text
    if "anyOf" in schema or not (kind or choices) or (value is None and "null" in kinds(schema)):
        return
    if text not in choices if choices else not _fits(value, kind is int, schema):
        from pydantic import Field

        from trilemma.values import refusal

        bounds = {BOUNDS[name]: end for name, end in schema.items() if name in BOUNDS}
        raise refusal(key, value, Literal[choices] if choices else kind, [Field(**bounds)])


def _fits(value: Any, whole: bool, schema: Mapping[str, Any]) -> bool:
    """Whether a value is a finite number, whole where it has to be, within bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    above, below = schema.get("exclusiveMinimum", -math.inf), schema.get("exclusiveMaximum", math.inf)
    return low <= value <= high and above < value < below and (not whole or value == int(value))
