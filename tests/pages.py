# SPDX-License-Identifier: Apache-2.0
"""What the README and the pages of ``docs/`` show: their blocks of code, and their tables."""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)]


def blocks(page: Path, language: str) -> list[str]:
    """Give the blocks of a language, as they stand there."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def block_with(page: Path, language: str, words: str) -> str:
    """Give the one block that has these words in it."""
    (block,) = [block for block in blocks(page, language) if words in block]
    return block


def run(*sources: str) -> dict[str, Any]:
    """Run blocks of Python one after the other, as one module; give its names."""
    module = types.ModuleType("shown")
    for source in sources:
        exec(compile(source, "shown", "exec"), module.__dict__)
    return module.__dict__


def tables(page: Path) -> list[list[dict[str, str]]]:
    """Give the tables: of each row the cells, by the names of their columns."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", page.read_text(), re.MULTILINE):
        header, _, *rows = ([cell.strip() for cell in line[1:-1].split(" |")] for line in table.splitlines())
        found.append([dict(zip(header, row, strict=True)) for row in rows])
    return found


def table_with(page: Path, column: str) -> list[dict[str, str]]:
    """Give the one table that has a column of this name."""
    (table,) = [table for table in tables(page) if column in table[0]]
    return table
