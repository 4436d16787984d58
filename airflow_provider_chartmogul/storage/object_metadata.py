# SPDX-License-Identifier: Apache-2.0
"""
Metadata that objects carry themselves: one JSON value, in the object's own metadata where the store has such.

It has the keys of XCom ``object``, except those of the object's location, so that a copy of the object is described as
well, and the columns, which the object has itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: The name of the value, in the metadata of an object and in the footer of a Parquet file.
METADATA_KEY = "chartmogul"

#: S3's limit for all of an object's own metadata, in bytes; that of other stores is higher.
MAX_METADATA_BYTES = 2048

_OF_LOCATION = ("uri", "bucket", "key", "modified_at")


def encode_metadata(metadata: Mapping[str, Any]) -> str:
    """Return what an object carries of its metadata, as JSON in ASCII."""
    kept = {
        key: value
        for key, value in metadata.items()
        if value is not None and key not in _OF_LOCATION and key != "columns"
    }
    return json.dumps(kept, default=str, separators=(",", ":"))


def decode_metadata(text: str | bytes | None) -> dict[str, Any] | None:
    """Return the metadata that an object carries; ``None`` if it carries none, or something else under that name."""
    try:
        metadata = json.loads(text or "null")
    except ValueError:
        return None
    return metadata if isinstance(metadata, dict) else None
