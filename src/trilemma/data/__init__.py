"""Data: from a source anyone has to batches of images."""

from trilemma.data.check import Report, check
from trilemma.data.image_texts import texts_of
from trilemma.data.load import list_sources, load_data
from trilemma.data.loader import Loader, batches
from trilemma.data.split import Data, Split

__all__ = [
    "Data",
    "Loader",
    "Report",
    "Split",
    "batches",
    "check",
    "list_sources",
    "load_data",
    "texts_of",
]
