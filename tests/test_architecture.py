"""docs/architecture.md names files and packages that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`([\w/]+(?:\.py|/))`", TEXT)))


def test_names_are_read_from_the_page() -> None:
    assert len(NAMED) > 50
    assert {"types/", "nets/", "training/loop.py", "tests/test_contracts.py"} <= set(NAMED)


@pytest.mark.parametrize("name", NAMED)
def test_what_the_page_names_exists(name: str) -> None:
    path = ROOT / name if name.startswith("tests/") else ROOT / "src" / "trilemma" / name
    assert path.is_dir() if name.endswith("/") else path.is_file()


def test_the_page_names_every_package() -> None:
    packages = {f"{path.parent.name}/" for path in (ROOT / "src" / "trilemma").glob("*/__init__.py")}
    assert packages <= set(NAMED)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", TEXT))
def test_its_links_lead_somewhere(link: str) -> None:
    assert (ROOT / "docs" / link).is_file()
