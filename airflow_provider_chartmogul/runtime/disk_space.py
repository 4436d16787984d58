# SPDX-License-Identifier: Apache-2.0
"""Check for free disk space before a file is written."""

from __future__ import annotations

import shutil
from pathlib import Path

from airflow_provider_chartmogul.exceptions import InsufficientDiskSpaceError


def require_disk_space(folder: Path, needed: int) -> None:
    """
    Fail if the disk of a temporary folder has too little free space.

    :param folder: the temporary folder; the error names its parent, which is what the user chooses
    :param needed: bytes
    :raises InsufficientDiskSpaceError: if there is less
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InsufficientDiskSpaceError(
            f"{folder.parent} has {free / 1e6:.1f} MB of free disk space, and {needed / 1e6:.1f} MB are needed: free "
            "some, or set download_dir to another folder"
        )
