# SPDX-License-Identifier: Apache-2.0
"""
Metadata that is stored with an object, as one JSON value.

It has the keys of XCom ``object``, without the location, so that it also describes a copy of the object, and without
the columns, which the object itself contains.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: The name of the value, in the metadata of an object and in the footer of a Parquet file.
METADATA_KEY = "chartmogul"

#: S3's limit for all of an object's own metadata, in bytes; that of other stores is higher.
MAX_METADATA_BYTES = 2048

_LOCATION_KEYS = ("uri", "bucket", "key", "modified_at")


def encode_metadata(metadata: Mapping[str, Any]) -> str:
    """Encode the metadata to store with an object, as JSON in ASCII."""
    kept = {
        key: value
        for key, value in metadata.items()
        if value is not None and key not in _LOCATION_KEYS and key != "columns"
    }
    return json.dumps(kept, default=str, separators=(",", ":"))


def decode_metadata(text: str | bytes | None) -> dict[str, Any] | None:
    """Decode the metadata that is stored with an object; ``None`` if there is none, or it is not a JSON object."""
    try:
        metadata = json.loads(text or "null")
    except ValueError:
        return None
    return metadata if isinstance(metadata, dict) else None
