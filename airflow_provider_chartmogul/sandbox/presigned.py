# SPDX-License-Identifier: Apache-2.0
"""Presigned URLs: AWS Signature Version 4 in the query string, created and verified as S3 does.

The rules are those of 'Authenticating Requests: Using Query Parameters' in the S3 API reference: the signature covers
the method, the path, the whole query and the Host header, and the query says how long it is valid. Only `GET` is
signed, as in ChartMogul's URLs.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

from airflow_provider_chartmogul.sandbox.error_responses import S3ErrorResponse

ACCESS_KEY_ID = "SANDBOXACCESSKEY"
REGION = "eu-west-1"

_TIME_FORMAT = "%Y%m%dT%H%M%SZ"
_ALGORITHM = "AWS4-HMAC-SHA256"


def sign(base: str, path: str, *, secret: str, signed_at: datetime, seconds: int) -> str:
    """Return a URL that is valid for a GET of one object.

    :param base: scheme, host and port, without a trailing slash.
    :param path: the object's path, with a leading slash.
    :param secret: the secret key, also needed by `verify`.
    :param signed_at: when the URL's validity starts, with a time zone; fractions of a second are dropped.
    :param seconds: how long the URL is valid. 0 gives a URL that has expired already.
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


def verify(method: str, target: str, host: str, *, secret: str, now: datetime) -> str:
    """Verify a request's signature and expiry, and return its decoded path.

    :param method: the request's method.
    :param target: the request's path and query, percent-encoded as they were sent.
    :param host: the request's Host header.
    :param secret: the secret key with which the URL was signed.
    :param now: the current time, with a time zone.
    :raises S3ErrorResponse: SignatureDoesNotMatch for a signature that is missing, wrong or for another request;
        AccessDenied for an expired URL.
    """
    # Bytes outside UTF-8 arrive as surrogates, which cannot be signed. Any replacement gives a wrong signature too.
    target, host = (text.encode(errors="replace").decode() for text in (target, host))
    raw_path, _, query = target.partition("?")
    path = unquote(raw_path)
    pairs = [
        (unquote(name), unquote(value)) for name, _, value in (part.partition("=") for part in query.split("&") if part)
    ]
    signed = [pair for pair in pairs if pair[0] != "X-Amz-Signature"]
    signatures = [value for name, value in pairs if name == "X-Amz-Signature"]
    fields = dict(signed)
    stamp = fields.get("X-Amz-Date", "")
    canonical = _canonical_request(method, path, signed, host)
    expected = _signature(canonical, stamp, secret)
    if len(signatures) != 1 or not hmac.compare_digest(signatures[0].encode(), expected.encode()):
        raise S3ErrorResponse(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method.",
            # S3 repeats the request with its signature, so that logging the error's body leaks it.
            {
                "AWSAccessKeyId": ACCESS_KEY_ID,
                "SignatureProvided": ",".join(signatures),
                "CanonicalRequest": canonical,
            },
        )
    # The signature is valid, so these values were written by sign().
    signed_at = datetime.strptime(stamp, _TIME_FORMAT).replace(tzinfo=UTC)
    expires_at = signed_at + timedelta(seconds=int(fields["X-Amz-Expires"]))
    if now >= expires_at:
        raise S3ErrorResponse(
            403,
            "AccessDenied",
            "Request has expired",
            {
                "X-Amz-Expires": fields["X-Amz-Expires"],
                "Expires": expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
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
