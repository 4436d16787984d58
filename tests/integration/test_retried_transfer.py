# SPDX-License-Identifier: Apache-2.0
"""Retries of a transfer with ``if_exists="fail"``: they accept the object that an earlier try wrote, and no other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_chartmogul.sandbox import Sandbox
from tests.integration.fake_s3 import FakeS3
from tests.integration.servers import Response
from tests.integration.transfers import create_export, transfer


def test_retry_accepts_its_own_object(sandbox: Sandbox, tmp_path: Path) -> None:
    export_id, destination = create_export(), f"file://{tmp_path}/x.csv.gz"
    first = transfer(export_id, destination, if_exists="fail")
    modified = (tmp_path / "x.csv.gz").stat().st_mtime_ns

    retry = transfer(export_id, destination, if_exists="fail", try_number=2)

    assert retry.value == first.value
    assert retry.xcoms == first.xcoms
    assert (tmp_path / "x.csv.gz").stat().st_mtime_ns == modified, "it was written again"


@pytest.mark.parametrize("change", [lambda b: b + b"x", lambda b: b[:-1] + bytes([b[-1] ^ 1])])
def test_retry_rejects_another_object(change: Callable[[bytes], bytes], sandbox: Sandbox, tmp_path: Path) -> None:
    export_id, destination = create_export(), f"file://{tmp_path}/x.zip"
    transfer(export_id, destination, if_exists="fail")
    other = change((tmp_path / "x.zip").read_bytes())
    (tmp_path / "x.zip").write_bytes(other)
    with pytest.raises(AirflowFailException, match="already exists"):
        transfer(export_id, destination, if_exists="fail", try_number=2)
    assert (tmp_path / "x.zip").read_bytes() == other


def test_first_try_fails_without_a_download(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"there")
    with pytest.raises(AirflowFailException, match="nothing was written"):
        transfer(create_export(), f"file://{tmp_path}/x.zip", if_exists="fail")
    assert [request for request in sandbox.requests if request.host == "download"] == []


@pytest.mark.parametrize("condition", ["<Condition>If-None-Match</Condition>", ""], ids=["S3", "another store"])
def test_lost_response_to_the_upload_is_not_a_failure(condition: str, sandbox: Sandbox, fake_s3: FakeS3) -> None:
    """The client gets no response, repeats the upload, and meets its own object."""
    fake_s3.failed_condition = condition
    responses = iter([Response(hang_up=True)])
    fake_s3.on_put = lambda: next(responses, Response(headers={"ETag": '"whole"'}))
    run = transfer(create_export(), fake_s3.destination, if_exists="fail")
    assert fake_s3.content is not None
    assert run.xcoms["object"]["sha256"] == hashlib.sha256(fake_s3.content).hexdigest()
    puts = [request for request in fake_s3.server.requests if request.method == "PUT"]
    # With older versions of aiohttp the client repeats it twice, once without a body, which is refused.
    assert len(puts) in (2, 3)
