# SPDX-License-Identifier: Apache-2.0
"""``python -m bench NAME`` runs a benchmark; ``python -m bench NAME --help`` says what it can be told."""

from __future__ import annotations

import sys
from importlib import import_module

BENCHMARKS = ("transfer", "waiting", "tasks")


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in BENCHMARKS:
        print(f"usage: python -m bench {{{','.join(BENCHMARKS)}}} [--help]", file=sys.stderr)
        return 2
    return int(import_module(f"bench.{sys.argv[1]}").main(sys.argv[2:]))


if __name__ == "__main__":
    sys.exit(main())
