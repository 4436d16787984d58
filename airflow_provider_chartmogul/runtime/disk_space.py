# SPDX-License-Identifier: Apache-2.0
"""Check the room on local disk before something is written."""

from __future__ import annotations

import shutil
from pathlib import Path

from airflow_provider_chartmogul.exceptions import InsufficientDiskSpaceError


def require_disk_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InsufficientDiskSpaceError(
            f"{needed / 1e6:.1f} MB of local disk are needed in {folder.parent}, which has {free / 1e6:.1f} MB: make "
            "room, or name another folder as download_dir"
        )
