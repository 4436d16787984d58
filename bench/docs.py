# SPDX-License-Identifier: Apache-2.0
"""Writes the benchmarks' tables to ``docs/costs.md``, and reports exceeded limits."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

COSTS = Path(__file__).resolve().parent.parent / "docs" / "costs.md"


class BenchError(Exception):
    """The benchmark cannot continue, or its variants cannot be compared."""


def write_docs(name: str, table: str) -> None:
    """
    Replace a benchmark's table in ``docs/costs.md``.

    :param name: the benchmark's name, which is in the markers before and after its table
    :raises BenchError: if the page does not have each marker exactly once
    """
    COSTS.write_text(replace_table(COSTS.read_text(), name, table))


def replace_table(page: str, name: str, table: str) -> str:
    """
    Return the page with the benchmark's new table.

    :raises BenchError: if the page does not have each marker exactly once, in order
    """
    begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end) or page.count(begin) != 1 or page.count(end) != 1:
        raise BenchError(f"{COSTS.name} needs {begin} and {end}, each once and in this order")
    return f"{before}{begin}\n{table}\n{end}{after}"


def report_missed_limits(missed: Sequence[str]) -> int:
    """Print a message for each limit that is exceeded, and return the exit status of the benchmark."""
    for message in missed:
        print(f"LIMIT EXCEEDED: {message}", file=sys.stderr)
    return 1 if missed else 0


def paragraph(text: str) -> str:
    """Return the text with line breaks, as on the other pages."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns are aligned."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (header, *rows)
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
