# SPDX-License-Identifier: Apache-2.0
"""The system tests' two forms: ``make test-system`` is the long one, ``FORM=short`` is the one that ``.ci/run`` has."""

from __future__ import annotations

import os
from typing import Literal

#: ``short`` where nothing is said: pytest without make.
FORM: Literal["short", "long"] = "long" if os.environ.get("SYSTEM_TESTS_FORM") == "long" else "short"
