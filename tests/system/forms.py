# SPDX-License-Identifier: Apache-2.0
"""The two forms of the system tests: long by default, and short with ``make test-system FORM=short``."""

from __future__ import annotations

import os
from typing import Literal

#: ``short`` if the tests run without make.
FORM: Literal["short", "long"] = "long" if os.environ.get("SYSTEM_TESTS_FORM") == "long" else "short"
