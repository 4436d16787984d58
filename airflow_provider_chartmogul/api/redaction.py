# SPDX-License-Identifier: Apache-2.0
"""Remove presigned URLs from text."""

from __future__ import annotations

import re

#: An error shows at most this many characters of the server's message.
MESSAGE_LIMIT = 500

#: The query of a URL, also where the URL is escaped, lacks its scheme or is truncated.
_QUERY = re.compile(r"\?[\w.~%-]+(?:=|%3D)[^\s\"'<>\\]*", re.IGNORECASE)

_SIGNED = re.compile(r"((?:signature|credential|security-token)(?:=|%3D))[^\s&\"'<>\\]+", re.IGNORECASE)


def redact_urls(text: str) -> str:
    """Replace the queries of all URLs in a text: a presigned URL has its signature there."""
    return _SIGNED.sub(r"\1...", _QUERY.sub("?...", text))
