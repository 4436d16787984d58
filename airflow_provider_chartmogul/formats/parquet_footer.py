# SPDX-License-Identifier: Apache-2.0
"""Read the metadata in the footer of a Parquet file. pyarrow is imported inside the function only."""

from __future__ import annotations

from typing import IO


def read_footer(file: IO[bytes], key: str) -> bytes | None:
    """
    Return a value of the footer's metadata.

    :param file: a seekable file; only its end is read
    :param key: the name of the value
    :return: ``None`` if there is no such value, if it is not a Parquet file, and if pyarrow is not installed
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return None
    try:
        metadata = pq.read_metadata(file).metadata or {}
    except pa.ArrowInvalid:
        return None
    value: bytes | None = metadata.get(key.encode())
    return value
