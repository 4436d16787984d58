# SPDX-License-Identifier: Apache-2.0
"""The company's time: whole seconds since 1970, from its founding to the end of what is computed."""

from __future__ import annotations

from datetime import UTC, datetime

FOUNDED = datetime(2018, 1, 1, tzinfo=UTC)
"""The company's founding: it has no activities before."""

HORIZON = datetime(2040, 1, 1, tzinfo=UTC)
"""The end of the company's computed history, exclusive."""

DAY = 86_400
"""Seconds of a day."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_seconds(moment: datetime) -> int:
    """Return the first whole second at or after a moment, counted from 1970. One without a time zone is UTC."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    elapsed = aware - _EPOCH
    return elapsed.days * DAY + elapsed.seconds + (1 if elapsed.microseconds else 0)
