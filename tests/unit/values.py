# SPDX-License-Identifier: Apache-2.0
"""Values that unit tests share: an API key, a presigned URL, a recorded response; and another Python process."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

API_KEY = "7c3f0a91e5d24b6888aa1d2f3c4b5e6f"
EXPORT_ID = "17042239-3674-4a61-b838-b6b307f28506"
SIGNATURE = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
FILE_URL = (
    "https://customers.s3.eu-west-1.amazonaws.com/activities-acc-1.zip"
    f"?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=604800&X-Amz-Signature={SIGNATURE}"
)
NOW = datetime(2024, 1, 31, 12, 0, tzinfo=UTC)


def export_response(**changes: Any) -> dict[str, Any]:
    """Return a recorded response about a finished export, with some keys changed."""
    return {
        "id": EXPORT_ID,
        "status": "succeeded",
        "file_url": FILE_URL,
        "params": {
            "kind": "activities",
            "params": {
                "activity_type": "new_biz",
                "start_date": "2020-01-01 00:00:00 +0000",
                "end_date": "2020-12-31 00:00:00 +0000",
            },
        },
        "expires_at": "2021-07-16T14:37:43+00:00",
        "created_at": "2021-07-09T14:37:32+00:00",
        **changes,
    }


def run_python(program: str, *arguments: str, **environment: str) -> str:
    """Run a program in another Python process, with this repository's package; return its standard output."""
    path = os.pathsep.join([str(ROOT), *filter(None, [environment.pop("PYTHONPATH", "")])])
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        env={**os.environ, **environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout
