# SPDX-License-Identifier: Apache-2.0
"""Command line of the benchmarks: ``python -m bench NAME``; ``python -m bench NAME --help`` lists the options."""

from __future__ import annotations

import sys
from importlib import import_module

BENCHMARKS = ("transfer", "small", "waiting", "tasks", "walk", "subscriptions", "loads")


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in BENCHMARKS:
        print(f"usage: python -m bench {{{','.join(BENCHMARKS)}}} [--help]", file=sys.stderr)
        return 2
    return int(import_module(f"bench.{sys.argv[1]}").main(sys.argv[2:]))


if __name__ == "__main__":
    sys.exit(main())
