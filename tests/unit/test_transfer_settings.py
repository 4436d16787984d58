# SPDX-License-Identifier: Apache-2.0
"""Settings of a transfer: refused at once if they make no sense; and destinations, filled in from the export."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chartmogul.api.exports import ACTIVITY_TYPES, ActivitiesExport
from airflow_provider_chartmogul.exceptions import DestinationError, TransferSettingsError
from airflow_provider_chartmogul.sources.activities_export import (
    FORMATS,
    ActivitiesExportSource,
    check_column_types,
)
from airflow_provider_chartmogul.sources.placeholders import EXPORT_PLACEHOLDERS, export_values
from airflow_provider_chartmogul.storage.delivery import Delivery
from airflow_provider_chartmogul.storage.destination import Destination
from airflow_provider_chartmogul.storage.object_storage import StoredObject
from tests.unit.values import EXPORT_ID, SIGNATURE, export_response


def delivery(
    destination: Any = "s3://b/k.zip", *, object_storage_conn_id: str | None = None, **settings: Any
) -> Delivery:
    return Delivery(
        Destination.parse(destination, EXPORT_PLACEHOLDERS, object_storage_conn_id), **{"formats": FORMATS, **settings}
    )


def fill(destination: Any, export: ActivitiesExport, **settings: Any) -> StoredObject:
    source = ActivitiesExportSource("cm", "https://api.chartmogul.com", export.request, export)
    return delivery(destination, **settings).destination.fill(export_values(source))


def refusal(destination: Any = "s3://b/k.zip", **settings: Any) -> str:
    with pytest.raises(TransferSettingsError) as raised:
        delivery(destination, **settings)
    assert raised.value.permanent
    assert isinstance(raised.value, ValueError)
    return str(raised.value)


def export(**params: str) -> ActivitiesExport:
    return ActivitiesExport.from_response(export_response(params={"params": params}))


FULL = export(activity_type="churn", start_date="2024-01-31T00:00:00Z", end_date="2024-02-01 00:00:00 +0000")
OPEN = export()


# Settings


@pytest.mark.parametrize("destination", ["", "  ", None, 7, ["s3://b/k.zip"]])
def test_empty_destination_is_refused(destination: Any) -> None:
    assert refusal(destination).startswith("destination is empty")


@pytest.mark.parametrize("value", ["overwrite", "reuse", "skip", "fail"])
def test_if_exists_is_accepted(value: str) -> None:
    assert delivery(if_exists=value).if_exists == value


@pytest.mark.parametrize("value", ["", "replace", "Overwrite", None, True])
def test_unknown_if_exists_is_refused_with_the_allowed_ones(value: object) -> None:
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
def test_format_is_the_suffix_or_output_format(destination: str, output_format: str | None) -> None:
    assert delivery(destination, output_format=output_format).format == "zip"


@pytest.mark.parametrize(
    "destination", ["s3://b/k", "s3://b/k.txt", "s3://b/zip", "s3://b/k.zip/x", "s3://b/k.zip.bak"]
)
def test_destination_without_format_is_refused(destination: str) -> None:
    text = refusal(destination)
    assert "has none of the suffixes .zip" in text
    assert "or give output_format" in text


@pytest.mark.parametrize("output_format", ["", "ZIP", ".zip", "xlsx"])
def test_unknown_format_is_refused(output_format: str) -> None:
    assert refusal(output_format=output_format).startswith(f"output_format cannot be {output_format!r}")


@pytest.mark.parametrize("output_format", ["zip", "csv", "csv.gz"])
def test_column_types_are_for_parquet_alone(output_format: str) -> None:
    with pytest.raises(TransferSettingsError, match=f"column_types .* has no meaning for {output_format}$"):
        check_column_types({"MRR": "int64"}, output_format)
    check_column_types({}, output_format)
    check_column_types(None, output_format)


@pytest.mark.parametrize("value", ["int64", ["int64"], 7])
def test_column_types_must_be_a_dictionary(value: Any) -> None:
    with pytest.raises(TransferSettingsError, match="column_types is a dictionary"):
        check_column_types(value, "parquet")


@pytest.mark.parametrize("value", ["ACL=private", ["ACL"], 7])
def test_upload_options_must_be_a_dictionary(value: object) -> None:
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
def test_unknown_placeholder_is_refused_with_the_known_ones(destination: str, unknown: str) -> None:
    text = refusal(destination)
    assert f"has the unknown placeholder {{{unknown}}}; the known ones are " in text
    assert all(f"{{{name}}}" in text for name in EXPORT_PLACEHOLDERS)


@pytest.mark.parametrize(
    "destination", ["s3://b/{export_id.zip", "s3://b/export_id}.zip", "s3://b/{.zip", "s3://b/{{}.zip"]
)
def test_unclosed_brace_is_refused(destination: str) -> None:
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
def test_destination_is_filled_in_from_the_export(destination: str, key: str) -> None:
    assert fill(destination, FULL) == StoredObject("s3", "b", key)


@pytest.mark.parametrize("name", ["interval_start", "interval_end"])
def test_time_without_format_contains_the_time_of_day(name: str) -> None:
    key = fill(f"s3://b/{{{name}}}.zip", FULL).key
    assert key.startswith({"interval_start": "20240131T000000Z", "interval_end": "20240201T000000Z"}[name])


def test_export_of_all_types_is_named_all() -> None:
    assert fill("s3://b/{activity_type}.zip", OPEN).key == "all.zip"


@pytest.mark.parametrize("name", ["interval_start", "interval_end"])
def test_placeholder_of_an_open_end_is_refused(name: str) -> None:
    with pytest.raises(TransferSettingsError, match=rf"has \{{{name}\}}, but {name} is None for this task"):
        fill(f"s3://b/{{{name}:%Y}}.zip", OPEN)


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
def test_format_that_does_not_fit_its_value_is_refused(destination: str) -> None:
    with pytest.raises(TransferSettingsError, match="destination 's3://b/"):
        fill(destination, FULL)


@pytest.mark.parametrize(
    ("settings", "conn_id"),
    [
        ({}, None),
        ({"object_storage_conn_id": "aws"}, "aws"),
        ({"destination": "s3://aws@b/k.zip"}, "aws"),
    ],
)
def test_connection_of_the_object_storage(settings: dict[str, Any], conn_id: str | None) -> None:
    assert fill(settings.pop("destination", "s3://b/k.zip"), FULL, **settings).conn_id == conn_id


def test_incomplete_object_name_is_refused() -> None:
    with pytest.raises(DestinationError, match="is not the full name of one object"):
        fill("folder/k.zip", FULL)


times = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@given(times, times, st.sampled_from(ACTIVITY_TYPES))
def test_different_windows_have_different_names(start: datetime, end: datetime, kind: str) -> None:
    drawn = export(activity_type=kind, start_date=start.isoformat(), end_date=end.isoformat())
    stored = fill(
        "file:///d/{activity_type}/{interval_start:%Y-%m-%dT%H%M%S.%f}--{interval_end:%Y-%m-%dT%H%M%S.%f}.zip", drawn
    )
    path = PurePosixPath(stored.key)
    assert (str(path.parent.parent), path.parent.name) == ("/d", kind)
    form = "%Y-%m-%dT%H%M%S.%f"
    assert [datetime.strptime(text, form).replace(tzinfo=UTC) for text in path.stem.split("--")] == [start, end]


@given(st.text(max_size=30) | st.text("{}:!.[]%Yexport_id", max_size=30))
def test_any_destination_is_parsed_or_refused(text: str) -> None:
    try:
        stored = fill(f"s3://b/{text}.zip", FULL)
    except (TransferSettingsError, DestinationError):
        return
    assert stored.key.endswith(".zip")
    assert SIGNATURE not in stored.key


@pytest.mark.parametrize(
    ("destination", "text"),
    [
        (Path("/data/{export_id}.zip"), f"file:///data/{EXPORT_ID}.zip"),
        (PurePosixPath("/data") / "x.zip", "file:///data/x.zip"),
    ],
)
def test_path_is_accepted_as_destination(destination: Any, text: str) -> None:
    assert fill(destination, FULL).uri == text


def test_object_storage_path_is_accepted_with_its_connection() -> None:
    destination = ObjectStoragePath("s3://aws_default@b") / "{interval_start:%Y}" / "x.zip"
    assert fill(destination, FULL) == StoredObject("s3", "b", "2024/x.zip", "aws_default")
