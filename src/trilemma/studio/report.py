"""How a report, which may be anybody's file, is shown: in an origin of its own, with no script but ours that sorts."""

import base64
import hashlib
from functools import cache
from pathlib import Path

SORT = Path(__file__).parents[1] / "comparison" / "templates" / "sort.js"


@cache
def report_policy() -> str:
    """A content policy in a sandbox: what the page does cannot reach the studio, nor anything else."""
    digest = base64.b64encode(hashlib.sha256(SORT.read_bytes()).digest()).decode("ascii")
    return (
        "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; frame-ancestors 'none'"
    )
