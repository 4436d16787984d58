# SPDX-License-Identifier: Apache-2.0
"""What only S3 has: options that must reach both kinds of upload, permissions, and errors about regions."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from airflow.providers.common.compat.sdk import io as airflow_io

from airflow_provider_chartmogul.exceptions import ObjectStorageError
from tests.integration.servers import RecordedRequest, Response, closed_port
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
    """Transfer an archive that is uploaded by one request, or in parts."""
    content = archive if request.param == "small" else large_archive()

    def publish(destination: str, **parameters: Any) -> None:
        with serve_export(lambda request: Response(200, content), monkeypatch):
            transfer("e-1", destination, **parameters)

    return publish


def kind(request: RecordedRequest) -> tuple[str, ...]:
    """Return a request's method and the names of its parameters, which decide what permission it needs."""
    return request.method, *sorted(parse_qs(urlsplit(request.path).query, keep_blank_values=True).keys() - {"x-id"})


def test_overwrite_needs_permission_to_put_only(publish: Callable[..., None], s3: S3) -> None:
    publish(f"{s3.base}/x.zip")
    assert {kind(request) for request in s3.proxy.requests} in (SINGLE, IN_PARTS)


@pytest.mark.parametrize("if_exists", ["reuse", "skip", "fail"])
def test_other_if_exists_need_permission_to_get_and_list(if_exists: str, publish: Callable[..., None], s3: S3) -> None:
    publish(f"{s3.base}/x.zip", if_exists=if_exists)
    requests = {kind(request) for request in s3.proxy.requests}
    reads = {which for which in requests if which[0] in ("GET", "HEAD")}
    assert ("HEAD",) in reads
    assert all(which == ("HEAD",) or "list-type" in which for which in reads)
    assert requests - reads in (SINGLE, IN_PARTS)


def test_upload_options_reach_both_kinds_of_upload(publish: Callable[..., None], s3: S3) -> None:
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
    assert head["Metadata"].keys() == {"team", "chartmogul"}
    assert head["Metadata"]["team"] == "data"
    assert json.loads(head["Metadata"]["chartmogul"])["export_id"] == "e-1"
    assert head["ContentType"] == "application/zip"
    tags = {tag["Key"]: tag["Value"] for tag in s3.client.get_object_tagging(**where)["TagSet"]}
    assert tags == {"kind": "raw", "team": "data"}
    grants = s3.client.get_object_acl(**where)["Grants"]
    assert any(grant["Grantee"].get("URI", "").endswith("AllUsers") for grant in grants)


@pytest.mark.parametrize(
    ("status", "code", "message", "rest"),
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
def test_wrong_region_or_key_is_reported_with_the_store_s_message(
    status: int, code: str, message: str, rest: str, publish: Callable[..., None], s3: S3
) -> None:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message>{rest}</Error>".encode()
    headers = {"Content-Type": "application/xml", "x-amz-bucket-region": "eu-west-1"}
    s3.proxy.instead = lambda request: Response(status, body, headers)
    with pytest.raises(ObjectStorageError) as raised:
        publish(f"{s3.base}/x.zip")
    assert str(raised.value).startswith(f"could not write {s3.plain}/x.zip (connection lake): ")
    assert message in str(raised.value)


def test_metadata_of_more_than_two_kilobytes_is_left_out(
    publish: Callable[..., None], s3: S3, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    publish(f"{s3.base}/x.zip", upload_options={"Metadata": {"notes": "x" * 1900}})
    head = s3.client.head_object(Bucket=s3.bucket, Key="x.zip")
    assert head["Metadata"] == {"notes": "x" * 1900}
    assert "is stored without metadata" in capfd.readouterr().out + caplog.text


def test_customers_key_is_sent_with_every_part(publish: Callable[..., None], s3: S3) -> None:
    """S3 refuses parts without the key that the upload was begun with."""
    options = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}
    publish(f"{s3.base}/x.zip", upload_options=options)
    uploads = [
        request for request in s3.proxy.requests if kind(request) in {*SINGLE, *IN_PARTS} - {("POST", "uploadId")}
    ]
    headers = [{name: value for name, value in request.headers.items() if "customer" in name} for request in uploads]
    assert all(
        set(sent) == {f"x-amz-server-side-encryption-customer-{name}" for name in ("algorithm", "key", "key-md5")}
        for sent in headers
    )


@pytest.mark.parametrize(
    ("option", "header"),
    [
        ({"ChecksumAlgorithm": "SHA256"}, ("x-amz-sdk-checksum-algorithm", "SHA256")),
        ({"RequestPayer": "requester"}, ("x-amz-request-payer", "requester")),
        ({"ExpectedBucketOwner": "123456789012"}, ("x-amz-expected-bucket-owner", "123456789012")),
    ],
)
def test_options_about_requests_are_sent_with_every_part(
    option: dict[str, str], header: tuple[str, str], publish: Callable[..., None], s3: S3
) -> None:
    publish(f"{s3.base}/x.zip", upload_options=option)
    parts = [request for request in s3.proxy.requests if request.method == "PUT"]
    assert parts
    assert {request.headers.get(header[0]) for request in parts} == {header[1]}


def test_options_of_one_upload_are_not_used_for_another(publish: Callable[..., None], s3: S3) -> None:
    publish(f"{s3.base}/x.zip", upload_options={"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32})
    s3.proxy.requests.clear()
    publish(f"{s3.base}/y.zip")
    assert not [name for request in s3.proxy.requests for name in request.headers if "customer" in name]


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match"),
        (400, "InvalidArgument", "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, or a valid sha256 value"),
        (501, "NotImplemented", "A header you provided implies functionality that is not implemented"),
        (400, "InvalidRequest", "Unsupported header 'x-amz-sdk-checksum-algorithm'"),
        (411, "MissingContentLength", "aws-chunked encoding is not supported"),
    ],
)
def test_refused_checksum_names_the_setting(
    status: int, code: str, message: str, publish: Callable[..., None], s3: S3
) -> None:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    s3.proxy.instead = lambda request: Response(status, body, {"Content-Type": "application/xml"})
    with pytest.raises(ObjectStorageError) as raised:
        publish(f"{s3.base}/x.zip")
    assert message in str(raised.value)
    assert 'config_kwargs in the connection\'s extra to {"request_checksum_calculation": "when_required"}' in str(
        raised.value
    )


def test_setting_turns_checksums_off(publish: Callable[..., None], s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = s3.connection(s3.proxy.url)
    connection["extra"]["config_kwargs"] = {"request_checksum_calculation": "when_required"}
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(connection))
    publish(f"{s3.base}/x.zip")
    assert not [
        name for request in s3.proxy.requests for name in request.headers if "checksum" in name or "trailer" in name
    ]
    assert s3.list() == ["x.zip"]


def test_missing_connection_is_named_in_errors(
    publish: Callable[..., None], s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closed_port() as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(ObjectStorageError) as raised:
            publish(f"{s3.plain}/x.zip")
    prefix = f"could not write {s3.plain}/x.zip (without a connection, so with the environment's credentials): "
    assert str(raised.value).startswith(prefix)


def test_changed_connection_is_used_by_the_next_transfer(
    publish: Callable[..., None], s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow's own cache would keep the first file system, whose credentials may have expired."""
    publish(f"{s3.base}/x.zip")
    with closed_port() as port:
        connection = s3.connection(f"http://127.0.0.1:{port}")
        connection["extra"]["config_kwargs"] = {"retries": {"max_attempts": 0}}
        monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(connection))
        with pytest.raises(ObjectStorageError, match="could not write"):
            publish(f"{s3.base}/x.zip")


def test_file_system_that_was_used_before_a_fork(publish: Callable[..., None], s3: S3, archive: bytes) -> None:
    """As on Airflow 2.11, where a DAG file may use a file system before its task runs in a forked process."""
    store = import_module(f"{airflow_io.__name__}.store")
    file_system = store.attach("s3", s3.conn_id).fs
    assert file_system.ls(s3.bucket) == []
    child = os.fork()
    if child == 0:
        try:
            with (
                pytest.MonkeyPatch.context() as monkeypatch,
                serve_export(lambda request: Response(200, archive), monkeypatch),
            ):
                transfer("e-1", f"{s3.base}/x.zip")
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert s3.list() == ["x.zip"]
