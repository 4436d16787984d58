# SPDX-License-Identifier: Apache-2.0
"""
What a transfer is told: refused at once where it makes no sense, and a destination filled in from the export itself.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chartmogul.api.exports import ACTIVITY_TYPES, ActivitiesExport
from airflow_provider_chartmogul.exceptions import DestinationError, TransferSettingsError
from airflow_provider_chartmogul.storage.delivery import PLACEHOLDERS, Transfer
from airflow_provider_chartmogul.storage.object_storage import StoredObject
from tests.unit.values import EXPORT_ID, SIGNATURE, export_answer


def transfer(destination: str = "s3://b/k.zip", **settings: Any) -> Transfer:
    return Transfer(**{"destination": destination, "chartmogul_conn_id": "cm", **settings})


def refusal(destination: str = "s3://b/k.zip", **settings: Any) -> str:
    with pytest.raises(TransferSettingsError) as raised:
        transfer(destination, **settings)
    assert raised.value.permanent
    assert isinstance(raised.value, ValueError)
    return str(raised.value)


def an_export(**params: str) -> ActivitiesExport:
    return ActivitiesExport.from_response(export_answer(params={"params": params}))


FULL = an_export(activity_type="churn", start_date="2024-01-31T00:00:00Z", end_date="2024-02-01 00:00:00 +0000")
OPEN = an_export()


# Settings


@pytest.mark.parametrize("destination", ["", "  ", None, 7, ["s3://b/k.zip"]])
def test_an_empty_destination(destination: Any) -> None:
    assert refusal(destination).startswith("destination is empty")


@pytest.mark.parametrize("value", ["overwrite", "reuse", "skip", "fail"])
def test_if_exists(value: str) -> None:
    assert transfer(if_exists=value).if_exists == value


@pytest.mark.parametrize("value", ["", "replace", "Overwrite", None, True])
def test_an_unknown_if_exists_is_named_with_the_allowed_ones(value: object) -> None:
    assert refusal(if_exists=value) == f"if_exists cannot be {value!r}: it is one of overwrite, reuse, skip, fail"


@pytest.mark.parametrize(
    ("destination", "output_format"),
    [
        ("s3://b/k.zip", None),
        ("s3://b/k.zip", "zip"),
        ("s3://b/k", "zip"),
        ("s3://b/{export_id}.zip", None),
        ("/data/{interval_start:%Y/%m/%d}/{activity_type}.zip", None),
    ],
)
def test_the_format_is_the_suffix_or_what_is_said(destination: str, output_format: str | None) -> None:
    assert transfer(destination, output_format=output_format).format == "zip"


@pytest.mark.parametrize(
    "destination", ["s3://b/k", "s3://b/k.txt", "s3://b/zip", "s3://b/k.zip/x", "s3://b/k.zip.bak"]
)
def test_no_format(destination: str) -> None:
    text = refusal(destination)
    assert "has none of the suffixes .zip" in text
    assert "or give output_format" in text


@pytest.mark.parametrize("output_format", ["", "ZIP", ".zip", "xlsx"])
def test_an_unknown_format(output_format: str) -> None:
    assert refusal(output_format=output_format).startswith(f"output_format cannot be {output_format!r}")


def test_a_zip_has_no_column_types() -> None:
    text = refusal(column_types={"MRR": "int64"})
    assert text.startswith("column_types ")
    assert "no meaning for" in text
    assert text.endswith("zip")
    assert transfer(column_types={}).column_types == {}


@pytest.mark.parametrize("value", ["ACL=private", ["ACL"], 7])
def test_upload_options_are_a_dictionary(value: object) -> None:
    assert refusal(upload_options=value).startswith("upload_options is a dictionary")


@pytest.mark.parametrize(
    ("destination", "unknown"),
    [
        ("s3://b/{ds}.zip", "ds"),
        ("s3://b/{}.zip", ""),
        ("s3://b/{0}.zip", "0"),
        ("s3://b/{file_url}.zip", "file_url"),
        ("s3://b/{export_id}-{logical_date:%Y}.zip", "logical_date"),
        ("s3://b/{interval_start.year}.zip", "interval_start.year"),
        ("s3://b/{interval_start.__class__}.zip", "interval_start.__class__"),
        ("s3://b/{export_id[0]}.zip", "export_id[0]"),
        ("s3://b/{ export_id }.zip", " export_id "),
    ],
)
def test_an_unknown_placeholder_is_named_with_the_known_ones(destination: str, unknown: str) -> None:
    text = refusal(destination)
    assert f"has the unknown placeholder {{{unknown}}}; there are " in text
    assert all(f"{{{name}}}" in text for name in PLACEHOLDERS)


@pytest.mark.parametrize(
    "destination", ["s3://b/{export_id.zip", "s3://b/export_id}.zip", "s3://b/{.zip", "s3://b/{{}.zip"]
)
def test_an_open_brace(destination: str) -> None:
    assert "has a brace that is not closed" in refusal(destination)


# Destinations, filled in


@pytest.mark.parametrize(
    ("destination", "key"),
    [
        ("s3://b/k.zip", "k.zip"),
        ("s3://b/{interval_start:%Y-%m-%d}.zip", "2024-01-31.zip"),
        ("s3://b/{interval_start:%Y/%m/%d}/{activity_type}.zip", "2024/01/31/churn.zip"),
        ("s3://b/{interval_start:%Y%m%d}-{interval_end:%Y%m%d}.zip", "20240131-20240201.zip"),
        ("s3://b/{chartmogul_conn_id}/{export_id}.zip", f"cm/{EXPORT_ID}.zip"),
        ("s3://b/{activity_type:>8}.zip", "   churn.zip"),
        ("s3://b/{{literal}}.zip", "{literal}.zip"),
        ("s3://b/{export_id}{export_id!s}.zip", f"{EXPORT_ID}{EXPORT_ID}.zip"),
    ],
)
def test_a_destination_is_filled_in_from_the_export(destination: str, key: str) -> None:
    assert transfer(destination).object_of(FULL) == StoredObject("s3", "b", key)


@pytest.mark.parametrize("name", ["interval_start", "interval_end"])
def test_a_bare_time_holds_the_time(name: str) -> None:
    key = transfer(f"s3://b/{{{name}}}.zip").object_of(FULL).key
    assert key.startswith({"interval_start": "20240131T000000Z", "interval_end": "20240201T000000Z"}[name])


def test_all_types_are_called_all() -> None:
    assert transfer("s3://b/{activity_type}.zip").object_of(OPEN).key == "all.zip"


@pytest.mark.parametrize("name", ["interval_start", "interval_end"])
def test_an_open_end_has_no_name(name: str) -> None:
    with pytest.raises(TransferSettingsError, match=rf"has \{{{name}\}}, but the export is open at that end"):
        transfer(f"s3://b/{{{name}:%Y}}.zip").object_of(OPEN)


@pytest.mark.parametrize(
    "destination",
    [
        "s3://b/{export_id:%Y}.zip",
        "s3://b/{activity_type:d}.zip",
        "s3://b/{activity_type!x}.zip",
        "s3://b/{interval_start:{ds}}.zip",
        "s3://b/{export_id:{}}.zip",
        "s3://b/{export_id:{export_id.nothing}}.zip",
        "s3://b/{export_id:{export_id[x]}}.zip",
    ],
)
def test_a_format_that_does_not_fit(destination: str) -> None:
    with pytest.raises(TransferSettingsError, match="destination 's3://b/"):
        transfer(destination).object_of(FULL)


@pytest.mark.parametrize(
    ("settings", "conn_id"),
    [
        ({}, None),
        ({"object_storage_conn_id": "aws"}, "aws"),
        ({"destination": "s3://aws@b/k.zip"}, "aws"),
    ],
)
def test_the_connection_of_the_object_storage(settings: dict[str, Any], conn_id: str | None) -> None:
    assert transfer(**settings).object_of(FULL).conn_id == conn_id


def test_what_is_not_the_full_name_of_an_object() -> None:
    with pytest.raises(DestinationError, match="is not the full name of one object"):
        transfer("folder/k.zip").object_of(FULL)


times = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@given(times, times, st.sampled_from(ACTIVITY_TYPES))
def test_exports_of_other_windows_have_other_names(start: datetime, end: datetime, kind: str) -> None:
    export = an_export(activity_type=kind, start_date=start.isoformat(), end_date=end.isoformat())
    stored = transfer(
        "file:///d/{activity_type}/{interval_start:%Y-%m-%dT%H%M%S.%f}--{interval_end:%Y-%m-%dT%H%M%S.%f}.zip"
    ).object_of(export)
    path = PurePosixPath(stored.key)
    assert (str(path.parent.parent), path.parent.name) == ("/d", kind)
    form = "%Y-%m-%dT%H%M%S.%f"
    assert [datetime.strptime(text, form).replace(tzinfo=UTC) for text in path.stem.split("--")] == [start, end]


@given(st.text(max_size=30) | st.text("{}:!.[]%Yexport_id", max_size=30))
def test_any_destination_is_an_object_or_refused(text: str) -> None:
    try:
        stored = transfer(f"s3://b/{text}.zip").object_of(FULL)
    except (TransferSettingsError, DestinationError):
        return
    assert stored.key.endswith(".zip")
    assert SIGNATURE not in stored.key
