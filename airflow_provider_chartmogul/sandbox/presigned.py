# SPDX-License-Identifier: Apache-2.0
"""Presigned URLs: AWS Signature Version 4 in the query string, made and checked as S3 does it.

The rules are those of 'Authenticating Requests: Using Query Parameters' in the S3 API reference: the
signature covers the method, the path, the whole query and the Host header, and the query says for how long
it is good. Only `GET` is ever signed here, as on the URLs ChartMogul gives out.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape

ACCESS_KEY_ID = "SANDBOXACCESSKEY"
REGION = "eu-west-1"

_TIME_FORMAT = "%Y%m%dT%H%M%SZ"
_ALGORITHM = "AWS4-HMAC-SHA256"


class Refused(Exception):
    """What S3 says to a request whose URL does not hold: an HTTP status, an error code and a message.

    :param details: further elements of the XML body, by name.
    """

    def __init__(self, status: int, code: str, message: str, details: dict[str, str] | None = None) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.details = details or {}

    def as_xml(self) -> bytes:
        """The body S3 answers."""
        elements = {"Code": self.code, "Message": self.message, **self.details}
        body = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in elements.items())
        # What is repeated from the request's headers may not have been UTF-8.
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{body}</Error>'.encode(errors="replace")


def sign(base: str, path: str, *, secret: str, signed_at: datetime, seconds: int) -> str:
    """A URL for one GET of `path`, good for a time.

    :param base: scheme, host and port, without a slash at the end.
    :param path: the object's path, beginning with a slash.
    :param secret: the secret key; `check` needs the same.
    :param signed_at: from when it is good; aware; fractions of a second are dropped, as the format has none.
    :param seconds: for how long. 0 makes a URL that has expired already.
    """
    stamp = signed_at.astimezone(UTC).strftime(_TIME_FORMAT)
    pairs = [
        ("X-Amz-Algorithm", _ALGORITHM),
        ("X-Amz-Credential", f"{ACCESS_KEY_ID}/{_scope(stamp)}"),
        ("X-Amz-Date", stamp),
        ("X-Amz-Expires", str(seconds)),
        ("X-Amz-SignedHeaders", "host"),
    ]
    host = base.partition("://")[2]
    signature = _signature(_canonical_request("GET", path, pairs, host), stamp, secret)
    return f"{base}{_quote_path(path)}?{_quote_pairs(pairs)}&X-Amz-Signature={signature}"


def check(method: str, target: str, host: str, *, secret: str, now: datetime) -> str:
    """Check a request as it came in; gives the path, decoded.

    :param method: the request's method.
    :param target: its target: path and query, percent-encoded as they were sent.
    :param host: its Host header.
    :param secret: the secret key the URL was signed with.
    :param now: the moment to judge expiry by; aware.
    :raises Refused: SignatureDoesNotMatch for a signature that is missing, wrong or for something else;
        AccessDenied for one that has expired.
    """
    # Bytes outside UTF-8 arrive as surrogates, which cannot be signed: whatever replaces them is wrong too.
    target, host = (text.encode(errors="replace").decode() for text in (target, host))
    raw_path, _, query = target.partition("?")
    path = unquote(raw_path)
    pairs = [
        (unquote(name), unquote(value)) for name, _, value in (part.partition("=") for part in query.split("&") if part)
    ]
    signed = [pair for pair in pairs if pair[0] != "X-Amz-Signature"]
    given = [value for name, value in pairs if name == "X-Amz-Signature"]
    fields = dict(signed)
    stamp = fields.get("X-Amz-Date", "")
    canonical = _canonical_request(method, path, signed, host)
    expected = _signature(canonical, stamp, secret)
    if len(given) != 1 or not hmac.compare_digest(given[0].encode(), expected.encode()):
        raise Refused(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method.",
            # S3 repeats the request in its answer: who prints the body of an error prints this as well.
            {
                "AWSAccessKeyId": ACCESS_KEY_ID,
                "SignatureProvided": ",".join(given),
                "CanonicalRequest": canonical,
            },
        )
    # The signature is ours, so what it covers has the format that sign() gave it.
    signed_at = datetime.strptime(stamp, _TIME_FORMAT).replace(tzinfo=UTC)
    expires = signed_at + timedelta(seconds=int(fields["X-Amz-Expires"]))
    if now >= expires:
        raise Refused(
            403,
            "AccessDenied",
            "Request has expired",
            {
                "X-Amz-Expires": fields["X-Amz-Expires"],
                "Expires": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "ServerTime": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
        )
    return path


def _scope(stamp: str) -> str:
    return f"{stamp[:8]}/{REGION}/s3/aws4_request"


def _quote_path(path: str) -> str:
    return quote(path, safe="/-_.~")


def _quote_pairs(pairs: list[tuple[str, str]]) -> str:
    return "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(pairs))


def _canonical_request(method: str, path: str, pairs: list[tuple[str, str]], host: str) -> str:
    return "\n".join((method, _quote_path(path), _quote_pairs(pairs), f"host:{host}", "", "host", "UNSIGNED-PAYLOAD"))


def _signature(canonical: str, stamp: str, secret: str) -> str:
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = "\n".join((_ALGORITHM, stamp, _scope(stamp), digest))
    key = f"AWS4{secret}".encode()
    for part in _scope(stamp).split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, to_sign.encode(), "sha256").hex()
