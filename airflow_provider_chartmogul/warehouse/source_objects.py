# SPDX-License-Identifier: Apache-2.0
"""
Parse the ``source`` of a load into objects with their metadata.

``source`` is what a transfer pushed to XCom, in any of its forms, or the URI of objects that carry the same metadata
themselves. ``parse_source`` turns either into batches, in the order in which they are loaded.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from typing import Any

from airflow_provider_chartmogul.api.resources import RESOURCES
from airflow_provider_chartmogul.exceptions import SourceError
from airflow_provider_chartmogul.runtime.task_log import TaskLog
from airflow_provider_chartmogul.storage.object_storage import StoredObject

ACTIVITIES = "activities"

_EXPECTED = (
    "source is the XCom 'object' or 'objects' of a transfer of this provider, a list of these, JSON text of either, or "
    "the URI of an object or of a prefix that ends in '/'"
)

#: The suffixes of the objects that transfers write.
_SUFFIXES = (".zip", ".csv", ".csv.gz", ".parquet", ".jsonl", ".jsonl.gz")

_NO_METADATA = (
    "From this version on, transfers store it in the footer of Parquet files, and with objects in S3, Google Cloud "
    "Storage and Azure. Give the XCom 'object' of the transfer instead, transfer the object again, or move it "
    "elsewhere"
)

#: How to fix transfers that share a destination.
DESTINATION_HINT = (
    "Give each transfer its own destination, such as one with {interval_start}, and clear the transfers and their loads"
)

_PARALLEL_REQUESTS = 8

#: Keys of the time by which objects are ordered; the first one that an object has is used.
_AS_OF_KEYS = ("exported_at", "extracted_at", "modified_at")

#: A window's start, inclusive, and its end, exclusive, in UTC; ``None`` for an open end.
Window = tuple[datetime | None, datetime | None]


@dataclass(frozen=True)
class SourceObject:
    """
    An object in object storage, with its metadata.

    :param uri: its URI, without a connection
    :param metadata: the keys of XCom ``object``
    :param object_storage_conn_id: the Airflow connection to read it with; ``None`` for the environment's credentials
    :raises SourceError: if the metadata lacks a key that a load needs, or has an invalid value
    """

    uri: str
    metadata: Mapping[str, Any] = field(repr=False)
    object_storage_conn_id: str | None = None

    def __post_init__(self) -> None:
        # Check everything now, so that a mistake in the last object does not fail a load at its end.
        if self.resource != ACTIVITIES and self.resource not in RESOURCES:
            raise SourceError(
                f"{self.uri} is from the resource {self.resource!r}, which this version does not know; it knows "
                f"{ACTIVITIES}, {', '.join(RESOURCES)}"
            )
        known_tables = [ACTIVITIES] if self.resource == ACTIVITIES else _table_names(self.resource)
        if self.table not in known_tables:
            raise SourceError(
                f"{self.uri} holds the table {self.table!r}, but {self.resource} has only {', '.join(known_tables)}"
            )
        _ = self.as_of, self.window, self.query_params, self.format

    @cached_property
    def resource(self) -> str:
        """The resource in the catalogue; ``activities`` for an export."""
        return self._text("resource")

    @cached_property
    def table(self) -> str:
        """The table in the catalogue, such as ``invoice_line_items``; ``activities`` for an export."""
        return self._text("table")

    @cached_property
    def format(self) -> str:
        """``csv``, ``csv.gz``, ``zip``, ``parquet``, ``jsonl`` or ``jsonl.gz``."""
        return self._text("format")

    @cached_property
    def as_of(self) -> datetime:
        """
        The time whose state the object shows, in UTC; of two objects, the one with the later time is newer.

        It is when ChartMogul created the export, or when the walk began. For an object that existed before its
        transfer, it is when the store last wrote it.
        """
        for key in _AS_OF_KEYS:
            if (moment := self._time(key)) is not None:
                return moment
        raise SourceError(f"the metadata of {self.uri} has none of {', '.join(_AS_OF_KEYS)}, so its age is unknown")

    @cached_property
    def window(self) -> Window | None:
        """
        The window of an export or of metrics; ``None`` for a snapshot.

        Metrics have dates without a time zone. Their window starts and ends at midnight in UTC, whatever the time zone
        of the days, so that it can be compared with a row's ``date``.
        """
        if self.resource != ACTIVITIES and not RESOURCES[self.resource].has_window:
            return None
        first, last = self._date("start_date"), self._date("end_date")
        if first is not None and last is not None:
            return _midnight(first), _midnight(last + timedelta(days=1))
        return self._time("interval_start"), self._time("interval_end")

    @cached_property
    def query_params(self) -> dict[str, Any]:
        """The query parameters that the transfer was given; empty for none."""
        value = self.metadata.get("query_params") or {}
        if not isinstance(value, Mapping):
            raise self._malformed("query_params", value, "a dictionary")
        return dict(value)

    @property
    def conn_id(self) -> str | None:
        """The Airflow connection of the ChartMogul account."""
        return self.metadata.get("chartmogul_conn_id")

    @property
    def activity_type(self) -> str | None:
        """The type of an export's activities; ``None`` for all, and for a resource."""
        return self.metadata.get("activity_type")

    @property
    def export_id(self) -> str | None:
        """ChartMogul's ID of the export; ``None`` if it is not known, and for a resource."""
        return self.metadata.get("export_id")

    @property
    def bytes(self) -> int | None:
        """The size of the object that the transfer wrote; ``None`` if it is not known."""
        return self.metadata.get("bytes")

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the object that the transfer wrote, as hexadecimal digits; ``None`` if it is not known."""
        return self.metadata.get("sha256")

    @property
    def rows(self) -> int | None:
        """The number of rows; ``None`` if it is not known."""
        return self.metadata.get("rows")

    @property
    def columns(self) -> tuple[str, ...] | None:
        """The names of the columns; ``None`` if they are not known."""
        columns = self.metadata.get("columns")
        return None if columns is None else tuple(columns)

    @property
    def stored(self) -> StoredObject:
        """The object in its store."""
        return StoredObject.parse(self.uri, self.object_storage_conn_id)

    def difference_to(self, other: SourceObject) -> str | None:
        """Return how the metadata of another object with the same URI contradicts this one's; ``None`` if not."""
        for name in ("resource", "table", "window", "activity_type", "query_params", "conn_id"):
            if (ours := getattr(self, name)) != (theirs := getattr(other, name)):
                key = "chartmogul_conn_id" if name == "conn_id" else name
                return f"{key} is {_show(ours)} for one of them, and {_show(theirs)} for another"
        return None

    def _text(self, key: str) -> str:
        value = self.metadata.get(key)
        if not isinstance(value, str) or not value:
            raise self._malformed(key, value, "text")
        return value

    def _time(self, key: str) -> datetime | None:
        value = self.metadata.get(key)
        if value is None or isinstance(value, datetime):
            moment = value
        else:
            try:
                moment = datetime.fromisoformat(value)
            except (TypeError, ValueError):
                raise self._malformed(key, value, "a time in ISO 8601") from None
        if moment is None:
            return None
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)

    def _date(self, key: str) -> date | None:
        value = self.metadata.get(key)
        try:
            return None if value is None else date.fromisoformat(value)
        except (TypeError, ValueError):
            raise self._malformed(key, value, "a date in ISO 8601") from None

    def _malformed(self, key: str, value: object, expected: str) -> SourceError:
        return SourceError(
            f"the metadata of {self.uri} has {value!r} as {key}, which is not {expected}. A load needs the metadata "
            "that a transfer of this provider pushes as XCom 'object'"
        )


@dataclass(frozen=True)
class SourceBatch:
    """
    The objects of one export or of one walk, which are loaded in one transaction; one object a table.

    :param objects: the objects, the main table's first
    """

    objects: tuple[SourceObject, ...]

    @property
    def resource(self) -> str:
        """The resource that all of the objects are from."""
        return self.objects[0].resource

    @property
    def as_of(self) -> datetime:
        """The time whose state the objects show; for objects that existed before, that of the one written last."""
        return max(one.as_of for one in self.objects)


def parse_source(source: object, *, object_storage_conn_id: str | None, log: TaskLog) -> list[SourceBatch]:
    """
    Return the objects of a load, batch by batch in the order of their age, the oldest first.

    :param source: what an operator was given:

        * XCom ``object``: a dictionary
        * XCom ``objects``: a dictionary of these by table
        * any sequence of these, such as the outputs of mapped tasks; ``None`` in it is a task that was skipped
        * JSON text of any of these
        * ``scheme://[connection@]bucket/key``, or an absolute local path: one object, which carries its metadata
        * the same, ending in ``/``: all objects below this prefix
        * ``None`` or empty: nothing
    :param object_storage_conn_id: the Airflow connection to read the objects with, unless a URI contains it
    :raises SourceError: for anything else, for an object without the metadata of a transfer, and for contradictions
    :raises ObjectStorageError: if objects are to be listed, or their metadata read, and the store refuses
    """
    batches: list[list[SourceObject]] = []
    batches_by_key: dict[object, list[list[SourceObject]]] = {}
    seen: dict[str, list[SourceObject]] = {}
    for number, group in enumerate(_read(source, object_storage_conn_id, log)):
        for one in group:
            if _is_repeated(one, seen.setdefault(one.uri, [])):
                continue
            seen[one.uri].append(one)
            of_key = batches_by_key.setdefault(_batch_key(one, number), [])
            for batch in of_key:
                # The same export may have been written in two formats: two loads.
                if one.table not in {other.table for other in batch}:
                    batch.append(one)
                    break
            else:
                of_key.append([one])
                batches.append(of_key[-1])
    parsed = [SourceBatch(tuple(sorted(batch, key=_table_position))) for batch in batches]
    return sorted(parsed, key=lambda batch: batch.as_of)


def _is_repeated(one: SourceObject, others: Sequence[SourceObject]) -> bool:
    """
    Return whether an object was given before.

    :param others: the objects with the same URI that were given before
    :raises SourceError: if they contradict each other. Only the content of the last transfer to a URI remains, so a
        load of the others would empty their windows
    """
    for other in others:
        if (difference := one.difference_to(other)) is not None:
            raise SourceError(
                f"several transfers have {one.uri} as their object, so that only the last one's content is left: "
                f"{difference}. {DESTINATION_HINT}"
            )
    return any((other.as_of, other.sha256) == (one.as_of, one.sha256) for other in others)


def _read(source: object, conn_id: str | None, log: TaskLog) -> Iterator[list[SourceObject]]:
    """Yield groups of objects that were given together."""
    if source is None:
        return
    if isinstance(source, str):
        yield from _read_text(source.strip(), conn_id, log)
    elif isinstance(source, Mapping):
        if isinstance(source.get("uri"), str):
            yield [SourceObject(source["uri"], source, conn_id)]
        elif all(isinstance(value, Mapping) and "uri" in value for value in source.values()):
            yield [SourceObject(value["uri"], value, conn_id) for value in source.values()]
        else:
            raise SourceError(f"{_EXPECTED}; not a dictionary with the keys {', '.join(map(repr, source))}")
    elif isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray)):
        for item in source:
            yield from _read(item, conn_id, log)
    elif hasattr(source, "joinpath"):
        yield from _read_text(str(source), conn_id, log)
    else:
        raise SourceError(f"{_EXPECTED}; not {source!r}")


def _read_text(text: str, conn_id: str | None, log: TaskLog) -> Iterator[list[SourceObject]]:
    if not text:
        return
    if text[0] in "{[" or text in ("null", "None"):
        yield from _read(_parse_text(text), conn_id, log)
    elif "://" in text or text.startswith("/"):
        if not text.endswith("/"):
            yield [_describe(StoredObject.parse(text, conn_id))]
            return
        found = StoredObject.find(text, conn_id)
        if not found:
            log.warning("There are no objects below %s", text)
        yield from ([one] for one in _describe_all(found, log))
    else:
        raise SourceError(f"{_EXPECTED}; not {text[:100]!r}")


def _describe_all(found: Sequence[StoredObject], log: TaskLog) -> Iterator[SourceObject]:
    """
    Read the metadata of objects below a prefix.

    :raises SourceError: for an object without metadata whose name has a suffix that transfers write, since its data
        may belong in the table. Other objects are left out with a warning
    """
    missing, others = [], []
    with ThreadPoolExecutor(_PARALLEL_REQUESTS, "chartmogul-metadata") as threads:
        for stored, metadata in zip(found, threads.map(StoredObject.read_metadata, found), strict=True):
            if metadata is not None:
                yield SourceObject(stored.uri, _complete(metadata, stored), stored.conn_id)
            elif stored.name.lower().endswith(_SUFFIXES):
                missing.append(stored.uri)
            else:
                others.append(stored.uri)
    if others:
        log.warning("Left out %d objects that no transfer has written, such as %s", len(others), others[0])
    if missing:
        raise SourceError(f"{len(missing)} objects carry no metadata, such as {missing[0]}. {_NO_METADATA}")


def _describe(stored: StoredObject) -> SourceObject:
    if (metadata := stored.read_metadata()) is None:
        raise SourceError(f"{stored.uri} carries no metadata. {_NO_METADATA}")
    return SourceObject(stored.uri, _complete(metadata, stored), stored.conn_id)


def _complete(metadata: Mapping[str, Any], stored: StoredObject) -> dict[str, Any]:
    return {"uri": stored.uri, "bucket": stored.bucket, "key": stored.key, **metadata}


def _parse_text(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        # A template without the filter `tojson` renders Python's own notation.
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise SourceError(f"{_EXPECTED}; {text[:100]!r} looks like JSON, but is not") from None


def _batch_key(one: SourceObject, number: int) -> object:
    """Return a key that the objects of one export or walk have in common."""
    moments = tuple(one.metadata.get(key) for key in ("exported_at", "extracted_at"))
    if not any(moments):
        # Objects that existed before their transfer are from one walk if they were given together.
        return number
    query = json.dumps(one.query_params, sort_keys=True, default=str)
    return (one.resource, one.conn_id, query, one.window, one.activity_type, one.export_id, *moments)


def _table_names(resource: str) -> list[str]:
    return [table.name for table in RESOURCES[resource].tables]


def _table_position(one: SourceObject) -> int:
    return 0 if one.resource == ACTIVITIES else _table_names(one.resource).index(one.table)


def _show(value: object) -> str:
    return " to ".join(str(bound or "open") for bound in value) if isinstance(value, tuple) else repr(value)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
