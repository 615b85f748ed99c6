"""Values as they are typed: of a text the value, and of a value the text."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from trilemma.errors import UserError

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
CONSTANTS = {"true": True, "false": False, "none": None}


def parse_value(text: str | None) -> Any:
    """The value a text stands for: a number, true, false, none, several of these with commas between, or the text.

    >>> [parse_value(text) for text in ("3", "1e-3", "True", "none", "heun", "32,48", "a,")]
    [3, 0.001, True, None, 'heun', (32, 48), ('a',)]
    """
    if text is None or text.lower() in CONSTANTS:
        return CONSTANTS[text.lower()] if text else None
    if "," in text:
        return tuple(parse_value(part.strip()) for part in text.split(",") if part.strip())
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def word(value: Any) -> str:
    """A value as it is typed, of which `parse_value` and `parse_rate` make the value again.

    >>> word({"critic": 5e-4, "generator": 0.001}), word((128, 64)), word(10.0), word(True)
    ('critic:0.0005,generator:0.001', '128,64', '10', 'true')
    """
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{word(part)}" for key, part in value.items())
    if isinstance(value, tuple | list):
        return ",".join(map(word, value))
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def typed(values: Mapping[str, Any]) -> list[str]:
    """Words `key=value`.

    >>> typed({"lr": 0.001, "hidden": (256, 128)})
    ['lr=0.001', 'hidden=256,128']
    """
    return [f"{key}={word(value)}" for key, value in values.items()]


def parse_settings(words: Sequence[str] | None, texts: Collection[str] = ()) -> dict[str, Any]:
    """Keywords from `key=value` words.

    Args:
        texts: keys whose values are texts, which stay as they are typed.

    >>> parse_settings(["beta=4", "hidden=256,128", "autoencoder.lr=encoder:1e-3,decoder:2e-3"])
    {'beta': 4, 'hidden': (256, 128), 'autoencoder.lr': {'encoder': 0.001, 'decoder': 0.002}}
    >>> parse_settings(["negative=1999", "steps=2"], ["negative"])
    {'negative': '1999', 'steps': 2}
    """
    pairs = (word.partition("=") for word in words or ())
    return {key: value if key in texts else _parse_setting(key, value) for key, _, value in pairs}


def _parse_setting(key: str, text: str) -> Any:
    return parse_rate(text) if key.endswith(".lr") else parse_value(text)


def parse_rate(text: str | None) -> Any:
    """A learning rate, or one for each player.

    >>> parse_rate("0.002"), parse_rate("critic:5e-4,generator:1e-3")
    (0.002, {'critic': 0.0005, 'generator': 0.001})

    Raises:
        UserError: if it is neither.
    """
    if text is None:
        return None
    try:
        if ":" not in text:
            return float(text)
        return {player: float(rate) for player, rate in (part.split(":") for part in text.split(","))}
    except ValueError:
        raise UserError(
            f'lr="{text}" is not a learning rate; give a number, as lr=0.001, or lr=PLAYER:NUMBER,PLAYER:NUMBER'
        ) from None
