# SPDX-License-Identifier: Apache-2.0
"""What the demo prints: titles, fields and tables, in colour on a terminal."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import TextIO


class Screen:
    """Prints the demo's output: aligned lines, in colour on a terminal."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._colour = out.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self.width = min(shutil.get_terminal_size((100, 24)).columns, 140)

    def line(self, text: str = "") -> None:
        print(text.rstrip(), file=self._out, flush=True)

    def title(self, text: str) -> None:
        self.line()
        self.line(self.bold(text))
        self.line()

    def field(self, name: str, text: str) -> None:
        self.line(f"  {name:<10} {text}")

    def table(self, rows: Sequence[Sequence[str]], *, text_columns: int = 1, has_total: bool = False) -> None:
        """
        Print rows, of which the first is the header, as a table.

        :param text_columns: how many of the first columns are text; the others are numbers, and aligned to the right
        :param has_total: whether the last row is the total of the others
        """
        widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
        rule = self.dim("  " + "  ".join("─" * width for width in widths))
        for number, row in enumerate(rows):
            if number == 1 or (has_total and number == len(rows) - 1):
                self.line(rule)
            cells = [
                cell.ljust(width) if index < text_columns else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            self.line("  " + "  ".join(cells))

    def bold(self, text: str) -> str:
        return self._styled("1", text)

    def dim(self, text: str) -> str:
        return self._styled("2", text)

    def state(self, state: str, text: str) -> str:
        code = {"success": "32", "failed": "31", "up_for_retry": "33", "deferred": "36"}.get(state)
        return self._styled(code, text) if code else text

    def _styled(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is 1."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
