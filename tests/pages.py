# SPDX-License-Identifier: Apache-2.0
"""Read the code blocks and tables of the README and of the pages in ``docs/``."""

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
    """Return the page's code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def block_with(page: Path, language: str, text: str) -> str:
    """Return the page's only code block that contains a text."""
    (block,) = [block for block in blocks(page, language) if text in block]
    return block


def commands(page: Path) -> list[str]:
    """Return the lines of the page's shell blocks, with continued lines joined."""
    return [line for block in blocks(page, "sh") for line in block.replace("\\\n", "").splitlines() if line]


def run(*sources: str) -> dict[str, Any]:
    """Run blocks of Python one after the other as one module, and return its names."""
    module = types.ModuleType("page")
    for source in sources:
        exec(compile(source, "page", "exec"), module.__dict__)
    return module.__dict__


def tables(page: Path) -> list[list[dict[str, str]]]:
    """Return the page's tables, each as a list of rows: dictionaries of cells by column name."""
    parsed = []
    for table in re.findall(r"(?:^\|.*\n)+", page.read_text(), re.MULTILINE):
        header, _, *rows = ([cell.strip() for cell in line[1:-1].split(" |")] for line in table.splitlines())
        parsed.append([dict(zip(header, row, strict=True)) for row in rows])
    return parsed


def table_with(page: Path, column: str) -> list[dict[str, str]]:
    """Return the page's only table with a column of this name."""
    (table,) = [table for table in tables(page) if column in table[0]]
    return table
