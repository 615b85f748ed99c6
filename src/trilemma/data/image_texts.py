"""What is known of an image in words."""

from pathlib import Path

from trilemma.data.split import Data
from trilemma.types import Batch


def texts_of(batch: Batch, data: Data) -> list[str] | None:
    """What to write under each image: its caption, else its class, else its file's name; None if it has none.

    The batch is one of the training split.
    """
    if batch.condition.caption is not None:
        return list(batch.condition.caption)
    if batch.condition.label is not None and data.classes:
        return [data.classes[k] for k in batch.condition.label.tolist()]
    if batch.index is not None and data.train.names is not None:
        return [Path(data.train.names[k]).name for k in batch.index.tolist()]
    return None
