"""The process that measures a training before it begins: python -m trilemma.studio.pacer FOLDER MODEL DATA KEY=VALUE...

It works in the studio's folder, writes into FOLDER, and answers with a line in JSON: {"paces": [...]}, of its parts
and its own, or {"error": TEXT}.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trilemma.errors import UserError
from trilemma.studio.forms import values_of
from trilemma.studio.processes import answers
from trilemma.verbs import find


def main(words: Sequence[str]) -> dict[str, Any]:
    """The answer to the words of a training."""
    from trilemma.training.pace import measure_pace

    folder, model, data, *pairs = words
    try:
        paces = measure_pace(model, data, values_of(find("train"), pairs), Path(folder))
        return {"paces": [asdict(pace) for pace in paces]}
    except UserError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    with answers() as file:
        file.write(json.dumps(main(sys.argv[1:])).encode() + b"\n")
