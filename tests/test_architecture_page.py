"""The page about the architecture: every file, test and line of code that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
FILES = sorted(
    set(re.findall(r"\.\./([\w/.]+)\)", PAGE)) | set(re.findall(r"`((?:tests|benchmarks)/[\w/]+\.py)`", PAGE))
)
LINES = re.findall(r"\| `(.+?)` \| `([\w/]+\.py)` \|$", PAGE, re.MULTILINE)


def test_the_page_names_something() -> None:
    assert len(TESTS) > 45 and len(FILES) > 12 and len(LINES) == 17


@pytest.mark.parametrize(("file", "name"), TESTS, ids=[name for _, name in TESTS])
def test_every_test_that_is_named_exists(file: str, name: str) -> None:
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("file", FILES)
def test_every_file_that_is_named_exists(file: str) -> None:
    assert (ROOT / file).exists()


@pytest.mark.parametrize(("line", "file"), LINES)
def test_every_line_of_code_that_is_quoted_is_there(line: str, file: str) -> None:
    quoted = line.replace("\\|", "|")
    assert any(row.strip().startswith(quoted) for row in (ROOT / file).read_text().splitlines())
