# SPDX-License-Identifier: Apache-2.0
"""Pages and walks: rows keep their own bytes, only ``has_more`` ends a walk, and no walk is endless."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chartmogul.api.pagination import MAX_STALLED_PAGES, Page, parse_page, walk
from airflow_provider_chartmogul.api.requests import ApiRequest
from airflow_provider_chartmogul.api.resources import RESOURCES, Resource
from airflow_provider_chartmogul.api.responses import ApiResponse
from airflow_provider_chartmogul.exceptions import NotFoundError, PaginationError, UnexpectedResponseError

CUSTOMERS, PLANS, NOTES = RESOURCES["customers"], RESOURCES["plans"], RESOURCES["notes"]


def response(body: object) -> ApiResponse:
    return ApiResponse(200, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def parse(body: object, resource: Resource = CUSTOMERS, parent_uuid: str | None = None) -> Page:
    """Parse a page with its raw rows, after checking that it is the same page without them."""
    parsed = parse_page(response(body), resource, parent_uuid, include_raw_rows=True)
    assert parse_page(response(body), resource, parent_uuid) == replace(parsed, raw_rows=[])
    return parsed


def requests_of(pages: Iterable[Page | Exception], resource: Any = CUSTOMERS, **kwargs: Any) -> list[ApiRequest[Page]]:
    """Return the requests of a walk that gets these pages."""
    generator = walk(resource, {"status": "Active"}, **kwargs)
    requests = [next(generator)]
    for page in pages:
        try:
            requests.append(generator.throw(page) if isinstance(page, Exception) else generator.send(page))
        except StopIteration:
            return requests
    return requests


def page(*, rows: int = 1, has_more: bool = True, cursor: str | None = None) -> Page:
    return Page([{}] * rows, [b"{}"] * rows, has_more, cursor)


# Pages


def test_rows_keep_their_own_bytes() -> None:
    body = b'{ "entries" : [ {"a": 1.50, "b":"\\u00e9"} ,{"a":100000000000000000001}], "has_more":true,"cursor":"x"}'
    parsed = parse(body)
    assert parsed.raw_rows == [b'{"a": 1.50, "b":"\\u00e9"}', b'{"a":100000000000000000001}']
    assert parsed.rows == [{"a": 1.5, "b": "é"}, {"a": 100000000000000000001}]
    assert (parsed.has_more, parsed.cursor) == (True, "x")


def test_row_over_several_lines_is_written_on_one() -> None:
    body = b'{"entries": [{\n"a": 1\n}], "has_more": false, "cursor": null}'
    assert parse(body).raw_rows == [b'{ "a": 1 }']


def test_row_over_several_lines_keeps_its_numbers() -> None:
    body = b'{"entries": [{\r\n"a": 1e400, "b": 0.12345678901234567890}], "has_more": false, "cursor": null}'
    assert parse(body).raw_rows == [b'{  "a": 1e400, "b": 0.12345678901234567890}']


def test_rows_key_before_an_empty_page_is_not_mistaken_for_the_rows() -> None:
    body = {"meta": {"entries": [{"uuid": "META"}]}, "entries": [], "has_more": False, "cursor": None}
    assert parse(body).rows == []


def test_uuid_of_a_parent_is_quoted() -> None:
    (request,) = requests_of([page(has_more=False)], RESOURCES["plan_group_plans"], parent_uuid="../account?x")
    assert request.path == "/plan_groups/..%2Faccount%3Fx/plans"


def test_rows_key_inside_another_value_is_not_mistaken_for_the_rows() -> None:
    body = {"meta": {"entries": [{"wrong": 1}]}, "entries": [{"right": 1}], "has_more": False, "cursor": None}
    assert parse(body).rows == [{"right": 1}]
    body = {"note": '"entries": [{"wrong": 1}]', "entries": [{"right": 1}], "has_more": False}
    assert parse(body).rows == [{"right": 1}]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.lists(st.dictionaries(st.text(), json_values, max_size=4), max_size=4),
    st.dictionaries(st.sampled_from(["meta", "page", "summary"]), json_values),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_any_page_is_read_without_loss(
    rows: list[dict[str, Any]], more: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    body = json.dumps(
        {**more, "entries": rows, "has_more": False, "cursor": "c"}, indent=indent, ensure_ascii=ascii_only
    ).encode(errors="surrogatepass")
    parsed = parse(body) if ascii_only or _is_utf8(body) else None
    if parsed is not None:
        assert parsed.rows == rows
        assert [json.loads(raw) for raw in parsed.raw_rows] == rows
        assert not any(b"\n" in raw for raw in parsed.raw_rows)


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_account_is_its_own_row() -> None:
    parsed = parse({"name": "A"}, RESOURCES["account"])
    assert (parsed.rows, parsed.raw_rows, parsed.has_more) == ([{"name": "A"}], [b'{"name":"A"}'], False)


@pytest.mark.parametrize(
    "body",
    [
        {"entries": [], "cursor": None},
        {"entries": [], "has_more": "false"},
        {"entries": [1], "has_more": False},
        {"entries": {}, "has_more": False},
        {"customers": [], "has_more": False},
    ],
)
def test_other_object_is_not_a_page(body: dict[str, Any]) -> None:
    with pytest.raises(PaginationError, match="is not a page of customers") as raised:
        parse(body)
    assert not raised.value.transient, "asking again gives the same"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"entries": [{"a": 1}', b'{"entries": [{"a": 1},]}'])
def test_truncated_page_is_a_transient_error(body: bytes) -> None:
    with pytest.raises(UnexpectedResponseError) as raised:
        parse(body)
    assert raised.value.transient


@pytest.mark.parametrize(
    ("row", "raw"),
    [
        (b'{"id": 1.50}', b'{"customer_uuid":"cus_1","id": 1.50}'),
        (b'{ "id":1}', b'{"customer_uuid":"cus_1","id":1}'),
        (b"{ }", b'{"customer_uuid":"cus_1"}'),
        (b'{"customer_uuid":"cus_2"}', b'{"customer_uuid":"cus_2"}'),
        (b'{"id": 1, "customer_uuid": null}', b'{"customer_uuid":"cus_1","id":1}'),
    ],
)
def test_rows_under_a_parent_have_its_key_in_front(row: bytes, raw: bytes) -> None:
    body = b'{"entries": [' + row + b'], "has_more": false}'
    parsed = parse(body, RESOURCES["subscriptions"], "cus_1")
    assert parsed.raw_rows == [raw]
    assert parsed.rows == [json.loads(raw)]
    assert next(iter(parsed.rows[0])) == "customer_uuid"


# Walks


def test_walk_stops_on_has_more_though_the_last_page_has_a_cursor() -> None:
    requests = requests_of([page(cursor="a"), page(cursor="b"), page(has_more=False, cursor="c")])
    assert [request.query for request in requests] == [
        {"status": "Active", "per_page": "200"},
        {"status": "Active", "per_page": "200", "cursor": "a"},
        {"status": "Active", "per_page": "200", "cursor": "b"},
    ]
    assert {request.path for request in requests} == {"/customers"}


def test_unpaged_resource_is_one_request_without_paging() -> None:
    (request,) = requests_of([page(has_more=False)], RESOURCES["data_sources"])
    assert request.query == {"status": "Active"}


@pytest.mark.parametrize("cursors", [["a", "a"], ["a", "b", "a"], [None]])
def test_cursor_that_does_not_advance_ends_the_walk(cursors: list[str | None]) -> None:
    with pytest.raises(PaginationError, match=r"its cursor repeats an earlier one|it has no cursor"):
        requests_of([page(cursor=cursor) for cursor in cursors])


def test_walk_ends_if_cursors_change_but_rows_do_not() -> None:
    """As if the server, or a cache in front of it, ignored the cursor."""
    same = [Page([{"uuid": "a"}, {"uuid": "b"}], [], True, str(number)) for number in range(MAX_STALLED_PAGES + 1)]
    assert len(requests_of([*same, Page([{"uuid": "c"}], [], False)])) == MAX_STALLED_PAGES + 2
    with pytest.raises(PaginationError, match="its last 11 pages had the same rows"):
        requests_of([*same, Page([{"uuid": "a"}, {"uuid": "b"}], [], True, "x")])


def test_empty_pages_are_skipped_a_bounded_number_of_times() -> None:
    empty = [page(rows=0, cursor=str(number)) for number in range(MAX_STALLED_PAGES)]
    assert len(requests_of([*empty, page(cursor="x"), *[page(rows=0, cursor=f"y{n}") for n in range(5)]])) == 17
    with pytest.raises(PaginationError, match="11 pages were empty"):
        requests_of([*empty, page(rows=0, cursor="x")])


def test_notes_fall_back_to_their_older_path() -> None:
    requests = requests_of([NotFoundError(404, "x"), page(cursor="a"), page(has_more=False)], NOTES)
    assert [request.path for request in requests] == ["/notes", "/customer_notes", "/customer_notes"]


def test_404_of_both_paths_and_in_the_middle_of_a_walk_is_an_error() -> None:
    with pytest.raises(NotFoundError):
        requests_of([NotFoundError(404, "x"), NotFoundError(404, "x")], NOTES)
    with pytest.raises(NotFoundError):
        requests_of([page(cursor="a"), NotFoundError(404, "x")], NOTES)
    with pytest.raises(NotFoundError):
        requests_of([NotFoundError(404, "x")], PLANS)


def test_child_is_walked_under_its_parent() -> None:
    (request,) = requests_of([page(has_more=False)], RESOURCES["plan_group_plans"], parent_uuid="plg_1")
    assert request.path == "/plan_groups/plg_1/plans"
