# SPDX-License-Identifier: Apache-2.0
"""Identifiers and arbitrary choices that depend on names alone, so that they are the same in every process."""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Sequence
from typing import TypeVar

_NAMESPACE = uuid.UUID("5f0d0c0e-6c6f-5c5a-9a54-0c1d6f2b7a11")

T = TypeVar("T")


def entity_uuid(*names: object) -> str:
    """Return the UUID of the entity with these names, such as the company, the customer and the number of a contact."""
    return str(uuid.uuid5(_NAMESPACE, "/".join(map(str, names))))


def pick(limit: int, *names: object) -> int:
    """Return an arbitrary whole number of at least 0 and below the limit, always the same for the same names."""
    # The multiplication spreads CRC-32's low bits, which are similar for similar names.
    spread = zlib.crc32("/".join(map(str, names)).encode()) * 2_654_435_761 % 2**32
    return (spread >> 4) % limit


def choose(options: Sequence[T], *names: object) -> T:
    """Return one of the options, always the same for the same names."""
    return options[pick(len(options), *names)]
