"""What the forms send, for /openapi.json: the fields that the pages have, from the schemas of the verbs."""

from collections.abc import Iterable, Mapping
from typing import Any

from trilemma import vocabulary
from trilemma.studio.forms import IMAGE_KEYS, is_offered
from trilemma.studio.sections import Tool
from trilemma.verbs import Verb, find

Schema = Mapping[str, Any]
FILE: Schema = {"type": "string", "format": "binary"}
ACTIONS = {  # of /jobs/{ident}/{action} and /runs/{ident}/{action}
    "jobs": "Move a job (first, up, down), start it (now, start), stop it (cancel), or run it again (again)",
    "runs": "Give a run a star or take it (star), a title (rename), or put it into the bin (remove)",
}


def text(about: str, *choices: str) -> Schema:
    """A field of text, or one of some choices."""
    return {"type": "string", "description": about, **({"enum": [*choices]} if choices else {})}


def several(about: str) -> Schema:
    """A field that may be there more than once."""
    return {"type": "array", "items": {"type": "string"}, "description": about}


RUN = text("id of a run, as in the address of its page")
SOURCE = text("id of data in the folder, or a word of `trilemma data list`")
IMAGE_IS = (
    "number of a held-out image, or image: and the id of one that was brought; a seed or a code where one is taken"
)
IMAGES_ARE = "numbers of held-out images, or image: and ids of those that were brought, with commas between them"


def form(
    fields: Mapping[str, Schema], required: Iterable[str] = (), *, more: bool = False, files: bool = False
) -> dict[str, Any]:
    """What a route takes as a form, for `openapi_extra`.

    Args:
        more: whether it takes other fields, too; files: whether some of its fields are files.
    """
    return _body([_object(fields, required, more=more)], files=files)


def training() -> dict[str, Any]:
    """The form of a training, without the keys that a model has of its own."""
    model = text("name of a model; keys of its own are further fields", *vocabulary.models())
    return form({"model": model, "data": SOURCE, **keys_of(find("train"))}, ["model", "data"], more=True)


def families() -> dict[str, Any]:
    """The form of a comparison that trains a model of each family."""
    return form({"data": SOURCE, **keys_of(find("compare"))}, ["data"])


def tool_form(tool: Tool) -> dict[str, Any]:
    """The forms of a page of verbs, one for each verb."""
    return _body([_verb(find(name)) for name in tool.verbs])


def keys_of(verb: Verb) -> dict[str, Schema]:
    """The keys of a verb that its form has."""
    return {key: schema for key, schema in verb.keys.items() if is_offered(verb, key)}


def _verb(verb: Verb) -> Schema:
    """The form of a verb for a run."""
    fields: dict[str, Schema] = {"run": RUN, "verb": text(verb.about, verb.name)}
    fields |= {key: text(IMAGES_ARE if verb.gathers else IMAGE_IS) for key in IMAGE_KEYS.get(verb.name, ())}
    if "mask" in verb.keys:
        fields["mask_png"] = text("a mask as a data URL of a PNG, white where pixels are drawn")
    fields |= {f"{key}_id": SOURCE for key in ("data", "against") if key in verb.keys}
    fields |= keys_of(verb)
    required = ["run", *(key for key in verb.required if key in fields)]
    return {"title": f"trilemma {verb.name}", **_object(fields, dict.fromkeys(required), more=verb.open)}


def _object(fields: Mapping[str, Schema], required: Iterable[str], *, more: bool) -> Schema:
    return {"type": "object", "properties": {**fields}, "required": [*required], "additionalProperties": more}


def _body(schemas: list[Schema], *, files: bool = False) -> dict[str, Any]:
    kind = "multipart/form-data" if files else "application/x-www-form-urlencoded"
    schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema}}}}
