# SPDX-License-Identifier: Apache-2.0
"""Write values of the API's JSON as text again: compact, and always as valid JSON in UTF-8."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Sequence
from typing import Any

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_encode_ascii = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode

#: Text that no value contains.
_BOUNDARY = secrets.token_hex(16)


def dump_json(value: Any) -> str:
    """
    Return a value as compact JSON text.

    Two kinds of values that Python's parser accepts need another form: half of a surrogate pair stays an escape
    sequence, since UTF-8 cannot encode it, and a number beyond the range of a float, such as ``1e400``, becomes the
    text ``"Infinity"``.
    """
    try:
        text = _encode(value)
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:
        return _encode_ascii(value)
    except ValueError:
        return dump_json(_replace_infinities(value))
    return text


def dump_json_values(values: Sequence[Any]) -> list[str]:
    """
    Return each of several values as ``dump_json`` does.

    They are encoded in one call, with a boundary between them, since starting the encoder costs more than what it
    does for a small value.
    """
    mixed = [_BOUNDARY] * (2 * len(values) - 1)
    mixed[::2] = values
    try:
        text = _encode(mixed)
        if not text.isascii():
            text.encode()
        texts = text[1:-1].split(f',"{_BOUNDARY}",')
    except ValueError:
        texts = []
    return texts if len(texts) == len(values) else [dump_json(value) for value in values]


def _replace_infinities(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _replace_infinities(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace_infinities(item) for item in value]
    return value
