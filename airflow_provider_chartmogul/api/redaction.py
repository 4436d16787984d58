# SPDX-License-Identifier: Apache-2.0
"""Take presigned URLs and keys out of text."""

from __future__ import annotations

import re

#: An error shows at most this many characters of what the server said.
MESSAGE_LIMIT = 500


#: A URL's query, wherever it stands in a text: escaped, without a scheme, cut at its end.
_QUERY = re.compile(r"\?[\w.~%-]+(?:=|%3D)[^\s\"'<>\\]*", re.IGNORECASE)


_SIGNED = re.compile(r"((?:signature|credential|security-token)(?:=|%3D))[^\s&\"'<>\\]+", re.IGNORECASE)


def redact_urls(text: str) -> str:
    """Take the queries of URLs out of a text: that is where a presigned URL holds its signature."""
    return _SIGNED.sub(r"\1...", _QUERY.sub("?...", text))
