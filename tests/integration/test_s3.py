# SPDX-License-Identifier: Apache-2.0
"""What only S3 has: options that must reach both kinds of upload, least rights, and answers about regions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_provider_chartmogul.exceptions import ObjectStorageError
from tests.integration.servers import RecordedRequest, Response
from tests.integration.transfers import serve_export, transfer
from tests.storage_cases import large_archive
from tests.stores import S3, Servers

SINGLE = {("PUT",)}
IN_PARTS = {("POST", "uploads"), ("PUT", "partNumber", "uploadId"), ("POST", "uploadId")}


@pytest.fixture
def s3(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3:
    store = servers.open("s3", tmp_path, monkeypatch)
    assert isinstance(store, S3)
    return store


@pytest.fixture(params=["small", "large"])
def publish(request: pytest.FixtureRequest, archive: bytes, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Move an archive that goes up with one request, or in parts."""
    content = archive if request.param == "small" else large_archive()

    def publish(destination: str, **told: Any) -> None:
        with serve_export(lambda request: Response(200, content), monkeypatch):
            transfer("e-1", destination, **told)

    return publish


def kind(request: RecordedRequest) -> tuple[str, ...]:
    """A request's method and the names of its parameters, by which S3 tells what right it takes."""
    return request.method, *sorted(parse_qs(urlsplit(request.path).query, keep_blank_values=True).keys() - {"x-id"})


def test_to_overwrite_takes_the_right_to_put_and_no_other(publish: Callable[..., None], s3: S3) -> None:
    publish(f"{s3.base}/x.zip")
    assert {kind(request) for request in s3.proxy.requests} in (SINGLE, IN_PARTS)


@pytest.mark.parametrize("if_exists", ["reuse", "skip", "fail"])
def test_to_look_first_takes_those_to_get_and_to_list(if_exists: str, publish: Callable[..., None], s3: S3) -> None:
    publish(f"{s3.base}/x.zip", if_exists=if_exists)
    request = {kind(request) for request in s3.proxy.requests}
    looks = {which for which in request if which[0] in ("GET", "HEAD")}
    assert ("HEAD",) in looks
    assert all(which == ("HEAD",) or "list-type" in which for which in looks)
    assert request - looks in (SINGLE, IN_PARTS)


def test_the_upload_options_reach_one_request_and_many(publish: Callable[..., None], s3: S3) -> None:
    options = {
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": "alias/exports",
        "StorageClass": "STANDARD_IA",
        "ACL": "public-read",
        "Tagging": "kind=raw&team=data",
        "Metadata": {"team": "data"},
    }
    publish(f"{s3.base}/x.zip", upload_options=options)
    where = {"Bucket": s3.bucket, "Key": "x.zip"}
    head = s3.client.head_object(**where)
    assert head["ServerSideEncryption"] == "aws:kms"
    assert head["SSEKMSKeyId"].endswith("alias/exports")
    assert head["StorageClass"] == "STANDARD_IA"
    assert head["Metadata"] == {"team": "data"}
    assert head["ContentType"] == "application/zip"
    tags = {tag["Key"]: tag["Value"] for tag in s3.client.get_object_tagging(**where)["TagSet"]}
    assert tags == {"kind": "raw", "team": "data"}
    grants = s3.client.get_object_acl(**where)["Grants"]
    assert any(grant["Grantee"].get("URI", "").endswith("AllUsers") for grant in grants)


@pytest.mark.parametrize(
    ("status", "code", "words", "rest"),
    [
        (
            301,
            "PermanentRedirect",
            "The bucket you are attempting to access must be addressed using the specified endpoint",
            "<Endpoint>x.s3.eu-west-1.amazonaws.com</Endpoint>",
        ),
        (
            400,
            "AuthorizationHeaderMalformed",
            "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'",
            "<Region>eu-west-1</Region>",
        ),
        (400, "IllegalLocationConstraintException", "The eu-west-1 location constraint is incompatible", ""),
        (403, "SignatureDoesNotMatch", "The request signature we calculated does not match", ""),
        (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records", ""),
        (400, "ExpiredToken", "The provided token has expired", ""),
    ],
)
def test_a_wrong_region_or_key_is_told_in_the_store_s_words(
    status: int, code: str, words: str, rest: str, publish: Callable[..., None], s3: S3
) -> None:
    said = f"<Error><Code>{code}</Code><Message>{words}</Message>{rest}</Error>".encode()
    headers = {"Content-Type": "application/xml", "x-amz-bucket-region": "eu-west-1"}
    s3.proxy.instead = lambda request: Response(status, said, headers)
    with pytest.raises(ObjectStorageError) as raised:
        publish(f"{s3.base}/x.zip")
    assert str(raised.value).startswith(f"could not write {s3.plain}/x.zip (connection lake): ")
    assert words in str(raised.value)
