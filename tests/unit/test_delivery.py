# SPDX-License-Identifier: Apache-2.0
"""Delivery of a local file: ``if_exists``, publishing, and the metadata of the object. ``tests/storage`` has stores."""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_chartmogul.exceptions import DestinationError, ObjectExistsError, TaskCancelledError
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.storage.delivery import CONTENT_TYPES, IF_EXISTS, Delivery, LocalFile, TransferResult
from airflow_provider_chartmogul.storage.destination import Destination
from airflow_provider_chartmogul.storage.object_storage import StoredObject

CONTENT = b"uuid,date\n1,2024-01-01\n"
FORMATS = {".csv": "csv", ".zip": "zip"}
LOG = logging.getLogger(__name__)


@pytest.fixture
def file(tmp_path: Path) -> LocalFile:
    """The file to publish."""
    path = tmp_path / "downloaded.csv"
    path.write_bytes(CONTENT)
    return LocalFile(path, hashlib.sha256(CONTENT).hexdigest(), rows=1, columns=("uuid", "date"))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "bucket" / "x.csv"


def new_delivery(target: Path, **settings: Any) -> Delivery:
    return Delivery(Destination(f"file://{target}", ()), FORMATS, **settings)


def stored_at(target: Path) -> StoredObject:
    return StoredObject.parse(f"file://{target}")


def publish(file: LocalFile, target: Path, **settings: Any) -> None:
    new_delivery(target, **settings).publish(file, stored_at(target), log=LOG, cancellation=Cancellation())


# An object that exists already


@pytest.mark.parametrize("if_exists", IF_EXISTS)
@pytest.mark.parametrize("is_retry", [False, True])
def test_missing_object_ends_no_task(if_exists: str, is_retry: bool, target: Path) -> None:
    assert not new_delivery(target, if_exists=if_exists).find_existing(stored_at(target), is_retry=is_retry)


@pytest.mark.parametrize(
    ("if_exists", "is_retry", "expected"),
    [
        ("overwrite", False, False),
        ("overwrite", True, False),
        ("reuse", False, True),
        ("reuse", True, True),
        ("skip", False, True),
        ("skip", True, True),
        ("fail", True, False),
    ],
)
def test_existing_object_ends_the_task(if_exists: str, is_retry: bool, expected: bool, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"there")
    delivery = new_delivery(target, if_exists=if_exists)
    assert delivery.find_existing(stored_at(target), is_retry=is_retry) is expected


def test_existing_object_fails_the_first_try_with_fail(target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"there")
    with pytest.raises(ObjectExistsError, match="already exists, and if_exists is 'fail'; nothing was written"):
        new_delivery(target, if_exists="fail").find_existing(stored_at(target), is_retry=False)


# Publishing


@pytest.mark.parametrize("if_exists", IF_EXISTS)
def test_file_is_published(if_exists: str, file: LocalFile, target: Path) -> None:
    publish(file, target, if_exists=if_exists)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["x.csv"]
    assert file.path.exists(), "the source removes its temporary files itself"


@pytest.mark.parametrize("if_exists", ["overwrite", "reuse", "skip"])
def test_publishing_replaces_an_object(if_exists: str, file: LocalFile, target: Path) -> None:
    publish(file, target)
    target.write_bytes(b"there")
    publish(file, target, if_exists=if_exists)
    assert target.read_bytes() == CONTENT


def test_fail_accepts_an_identical_object(file: LocalFile, target: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    publish(file, target)
    modified = target.stat().st_mtime_ns
    publish(file, target, if_exists="fail")
    assert target.stat().st_mtime_ns == modified
    assert "already exists with the same size and checksum: an earlier attempt wrote it" in caplog.text


@pytest.mark.parametrize("other", [CONTENT[:-1], CONTENT[:-1] + b"x", CONTENT + b"x", b""])
def test_fail_rejects_another_object(other: bytes, file: LocalFile, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(other)
    with pytest.raises(ObjectExistsError):
        publish(file, target, if_exists="fail")
    assert target.read_bytes() == other


def test_cancelled_task_publishes_nothing(file: LocalFile, target: Path) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(TaskCancelledError):
        new_delivery(target).publish(file, stored_at(target), log=LOG, cancellation=cancellation)
    assert not target.exists()


@pytest.mark.parametrize(("rows", "size"), [(2, "2 rows, 23 bytes"), (1, "1 row, 23 bytes"), (None, "23 bytes")])
def test_log_has_size_and_rows(
    rows: int | None, size: str, file: LocalFile, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    publish(LocalFile(file.path, file.sha256, rows), target)
    assert [record.getMessage() for record in caplog.records] == [f"Wrote {size} to file://{target}"]


def test_every_format_has_a_content_type() -> None:
    from airflow_provider_chartmogul.sources.activities_export import FORMATS as EXPORT_FORMATS

    assert set(EXPORT_FORMATS.values()) <= set(CONTENT_TYPES)


def test_prepare_names_the_missing_file_system() -> None:
    with pytest.raises(DestinationError, match="no file system for nostore://"):
        Delivery(Destination("nostore://b/x.csv", ()), FORMATS).prepare()


# Metadata


def test_metadata_of_a_published_object(file: LocalFile, target: Path) -> None:
    assert new_delivery(target).describe(stored_at(target), file) == {
        "uri": f"file://{target}",
        "bucket": "",
        "key": str(target),
        "bytes": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "format": "csv",
        "rows": 1,
        "columns": ["uuid", "date"],
        "modified_at": None,
    }


def test_metadata_of_a_result_is_plain_json() -> None:
    """Airflow serialises it after the task has published the object."""

    class Text(str):
        __slots__ = ()

    metadata = {"uri": Text("s3://b/x"), "query_params": {"day": date(2024, 1, 1), "names": ("a", Text("b"))}}
    result = TransferResult(metadata, "chartmogul://api.chartmogul.com/customers")
    assert result.metadata == {"uri": "s3://b/x", "query_params": {"day": "2024-01-01", "names": ["a", "b"]}}
    assert type(result.uri) is type(result.metadata["query_params"]["names"][1]) is str


def test_metadata_of_a_result_has_only_characters_that_a_database_stores() -> None:
    metadata = {"columns": ["d\0a\0t\0e\0", "caf\u00e9"], "query_params": {"a\0": "\ud800", "b": [1, None]}}
    result = TransferResult(metadata, "chartmogul://api.chartmogul.com/customers")
    assert result.metadata == {
        "columns": ["d\ufffda\ufffdt\ufffde\ufffd", "caf\u00e9"],
        "query_params": {"a\ufffd": "?", "b": [1, None]},
    }


def test_metadata_of_an_existing_object_has_its_time_and_size(target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"there")
    modified = datetime.fromtimestamp(target.stat().st_mtime, UTC)
    metadata = new_delivery(target).describe(stored_at(target), None)
    assert metadata["bytes"] == 5
    assert datetime.fromisoformat(metadata["modified_at"]) == modified
    assert [metadata[name] for name in ("sha256", "rows", "columns")] == [None, None, None]
