# SPDX-License-Identifier: Apache-2.0
"""
Walk a list from its first page to its last, without sending anything.

A page says ``has_more`` and ``cursor``. Only ``has_more`` ends a walk: most last pages carry a cursor, too, and asking
with it gives empty pages for ever.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from airflow_provider_chartmogul.api.requests import ApiRequest
from airflow_provider_chartmogul.api.resources import Resource
from airflow_provider_chartmogul.api.responses import ApiResponse, parse_json_object
from airflow_provider_chartmogul.exceptions import NotFoundError, PaginationError

#: Rows per page: ChartMogul's default and maximum.
PAGE_SIZE = 200

#: A page of 200 invoices with many line items is well over 1 MB.
MAX_PAGE_BYTES = 128_000_000

#: Number of pages in a row that a walk tolerates although they are empty or repeat the page before.
MAX_STALLED_PAGES = 10

#: Stands for the rows of a page where the rest of it is read.
_MARK = "rows of the page"

_decoder = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class Page:
    """
    A page of a list.

    :param rows: the rows; those under a parent have its key in front
    :param raw_rows: each row as the bytes of the response, on one line, with the same key in front; empty unless the
        walk includes raw rows
    :param has_more: whether there is a page after this one
    :param cursor: what to request the next page with
    :param summary: the summary of the rows, which metrics have
    """

    rows: list[dict[str, Any]]
    raw_rows: list[bytes]
    has_more: bool = False
    cursor: str | None = None
    summary: dict[str, Any] | None = None


def walk(
    resource: Resource, query: Mapping[str, str], parent_uuid: str | None = None, *, include_raw_rows: bool = False
) -> Generator[ApiRequest[Page], Page, None]:
    """
    Yield the requests for all pages of a resource; each page is sent into the generator.

    :param query: the query without paging, as ``Resource.build_query`` returns it
    :param parent_uuid: the row of the parent to walk under, for a resource with a parent
    :param include_raw_rows: whether pages have raw rows; finding them costs as much as parsing the rows
    :raises PaginationError: if the walk would never end, or would miss rows
    :raises NotFoundError: thrown in by the caller, unless the resource has another path to fall back to
    """
    path = resource.path.replace("{uuid}", quote(parent_uuid or "", safe=""))
    cursor: str | None = None
    cursors: set[str] = set()
    stalled_pages = 0
    previous: object = None
    while True:
        paging = {"per_page": str(PAGE_SIZE)} if resource.is_paged else {}
        if cursor is not None:
            paging["cursor"] = cursor
        try:
            page = yield ApiRequest(
                "GET",
                path,
                partial(parse_page, resource=resource, parent_uuid=parent_uuid, include_raw_rows=include_raw_rows),
                query={**query, **paging},
                max_response_bytes=MAX_PAGE_BYTES,
            )
        except NotFoundError:
            if resource.fallback_path is None or path == resource.fallback_path or cursor is not None:
                raise
            path = resource.fallback_path
            continue
        if not page.has_more:
            return
        cursor = page.cursor
        if cursor is None or cursor in cursors:
            what = "it has no cursor" if cursor is None else "its cursor repeats an earlier one"
            raise PaginationError(
                f"the list of {resource.name} says that it has more rows, but {what}: the walk would never "
                "end. A retry starts it again; if it fails the same way, report it to ChartMogul"
            )
        cursors.add(cursor)
        # Only the first and the last row are compared, since all rows would take the memory of another page.
        rows = (len(page.rows), page.rows[:1], page.rows[-1:])
        stalled_pages = stalled_pages + 1 if not page.rows or rows == previous else 0
        previous = rows
        if stalled_pages > MAX_STALLED_PAGES:
            what = "had the same rows" if page.rows else "were empty"
            raise PaginationError(
                f"the list of {resource.name} says that it has more rows, but its last {stalled_pages} pages {what}. "
                "A retry starts the walk again"
            )


def parse_page(
    response: ApiResponse, resource: Resource, parent_uuid: str | None = None, *, include_raw_rows: bool = False
) -> Page:
    """
    Read a page.

    :param parent_uuid: the row of the parent that it was requested for
    :param include_raw_rows: whether the page has raw rows
    :raises UnexpectedResponseError: for what is not a JSON object
    :raises PaginationError: for an object that is not a page of this resource
    """
    if resource.rows_key is None:
        row = parse_json_object(response)
        return Page([row], [_dump(row)] if include_raw_rows else [])
    split = _split_rows(response.body, resource.rows_key) if include_raw_rows else None
    raw_rows: list[bytes] = []
    if split is None:
        # A response of an unexpected shape: its raw rows cannot be split, and are serialized from the parsed rows.
        rest = parse_json_object(response)
        rows = rest.get(resource.rows_key)
        if include_raw_rows and isinstance(rows, list):
            raw_rows = [_dump(row) for row in rows]
    else:
        rows, raw_rows, rest = split
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise PaginationError(
            f"the response is not a page of {resource.name}: it has no list of objects under {resource.rows_key!r}"
        )
    if (key := resource.parent_key) is not None:
        if include_raw_rows:
            raw_rows = [_with_parent(row, raw, key, parent_uuid) for row, raw in zip(rows, raw_rows, strict=True)]
        rows = [row if row.get(key) is not None else {key: parent_uuid} | {**row, key: parent_uuid} for row in rows]
    if not resource.is_paged:
        summary = rest.get("summary")
        return Page(rows, raw_rows, summary=summary if isinstance(summary, dict) else None)
    has_more, cursor = rest.get("has_more"), rest.get("cursor")
    if not isinstance(has_more, bool):
        raise PaginationError(f"the response is not a page of {resource.name}: it does not say whether it has_more")
    return Page(rows, raw_rows, has_more, cursor if isinstance(cursor, str) and cursor else None)


def _split_rows(body: bytes, rows_key: str) -> tuple[list[Any], list[bytes], dict[str, Any]] | None:
    """Return the rows, each with its own bytes, and the rest of the object; ``None`` if that cannot be done safely."""
    try:
        text = body.decode()
        start = re.search(rf'"{rows_key}"[ \t\r\n]*:[ \t\r\n]*\[[ \t\r\n]*', text)
        if start is None:
            return None
        rows, raw_rows, position = [], [], start.end()
        while text[position] != "]":
            row, end = _decoder.raw_decode(text, position)
            rows.append(row)
            # Line breaks stand between the values of a row only; inside a text they are escaped.
            raw_rows.append(text[position:end].replace("\n", " ").replace("\r", " ").encode())
            position = _skip_space(text, end)
            if text[position] == "," and text[position := _skip_space(text, position + 1)] == "]":
                return None
        # Reading the rest with a mark in place of the rows proves that they were those of the object itself, and not of
        # something inside it.
        rest = json.loads(f'{text[: start.end()]}"{_MARK}"{text[position:]}')
    except (ValueError, IndexError, RecursionError):
        return None
    return (rows, raw_rows, rest) if isinstance(rest, dict) and rest.get(rows_key) == [_MARK] else None


def _with_parent(row: Mapping[str, Any], raw: bytes, key: str, parent_uuid: str | None) -> bytes:
    """Return a raw row with the UUID of its parent, which becomes its first value if the row has none."""
    if row.get(key) is not None:
        return raw
    if key in row:
        # Of two equal keys, JSON parsers take the last one, which would be the row's own null.
        return _dump({key: parent_uuid} | {**row, key: parent_uuid})
    members = raw[1:].lstrip()
    separator = b"" if members == b"}" else b","
    return json.dumps({key: parent_uuid}, separators=(",", ":")).encode()[:-1] + separator + members


def row_uuid(row: Mapping[str, Any], resource: Resource) -> str:
    """
    Return a row's UUID, under which the rows of another resource are listed.

    :raises PaginationError: if it has none
    """
    uuid = row.get("uuid")
    if not isinstance(uuid, str) or not uuid:
        raise PaginationError(f"a row of {resource.name} has no uuid, so that nothing can be listed under it")
    return uuid


def _skip_space(text: str, position: int) -> int:
    return position + len(_SPACE.match(text, position)[0])  # type: ignore[index]


def _dump(row: Any) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair, which UTF-8 does not have.
        return json.dumps(row, separators=(",", ":")).encode()
