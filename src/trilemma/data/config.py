"""How a source is read and divided into splits: the keys of the data, common to every training."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field

from trilemma.config import Config, make
from trilemma.data.split import Data


class DataConfig(Config):
    """How images are read. None: as the source has them, or as `load_data` decides."""

    model_config = ConfigDict(allow_inf_nan=False)

    size: tuple[int, int] | None = Field(None, description="height and width to resize images to, px")
    channels: Literal[1, 3] | None = Field(None, description="1: convert images to grey, 3: to colour")
    valid: float | None = Field(None, gt=0, lt=1, description="fraction of the images held out for validation")
    split_seed: int | None = Field(
        None, description="seed for the validation split and for generated data such as shapes (default: 0)"
    )
    split_rule: Literal["enough", "tenth"] | None = Field(
        None, description="how many images are held out if valid is not given (default: enough)"
    )
    frames: Literal["first", "all"] | None = Field(
        None, description="which of several frames or pages of a file (default: first)"
    )


NAMES = {"split_seed": "seed", "split_rule": "rule"}  # that `load_data` has for a key, where it has another


def load_keys(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the data as keywords of `load_data`."""
    return {NAMES.get(key, key): keys.get(key) for key in DataConfig.model_fields}


def config_of_data(data: Data) -> DataConfig:
    """How data were read: words that read them again."""
    return make(DataConfig, {key: getattr(data.options, NAMES.get(key, key)) for key in DataConfig.model_fields})
