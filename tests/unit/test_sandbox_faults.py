# SPDX-License-Identifier: Apache-2.0
"""The sandbox's faults without the network: their text and JSON forms, and which requests they hit."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chartmogul.sandbox import Sandbox, account, active_faults
from airflow_provider_chartmogul.sandbox.active_faults import Faults
from airflow_provider_chartmogul.sandbox.counters import Counters
from airflow_provider_chartmogul.sandbox.exports import ExportParameters
from airflow_provider_chartmogul.sandbox.faults import (
    HELP,
    KIND_OPTIONS,
    MODIFYING_KINDS,
    PLACES,
    Fault,
    parse_faults,
)
from tests.unit.values import run_python

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "times": st.integers(1, 10**6),
    "p": st.floats(0, 1, exclude_min=True),
    "skip": st.integers(0, 10**6),
    "for_seconds": st.floats(0, 10**9, exclude_min=True),
    "seed": st.integers(-(10**9), 10**9),
    "when": st.sampled_from(["before", "after"]),
    "retry_after": st.integers(0, 10**6),
    "retry_date": st.integers(-1000, 1000),
    "body": st.sampled_from(["text", "html"]),
    "at": st.integers(0, 10**12),
    "delay": st.floats(0, 10**6),
    "above": st.integers(0, 10**6),
    "window": st.floats(0, 10**6, exclude_min=True),
    "rows": st.integers(1, 200),
    "to": st.sampled_from(["later", "earlier"]),
}

DOWNLOAD_KINDS = ("truncate", "flip", "etag", "no-range")


@st.composite
def any_fault(draw: st.DrawFn) -> Fault:
    kind = draw(st.sampled_from(list(KIND_OPTIONS)))
    if kind in DOWNLOAD_KINDS:
        place = "download"
    elif kind in MODIFYING_KINDS and kind not in ("slow", "interrupt"):
        place = "customers"
    else:
        place = draw(st.sampled_from(["create", "retrieve", "invoices", "lists", "api"]))
    names = draw(st.sets(st.sampled_from(KIND_OPTIONS[kind])))
    if {"retry_after", "retry_date"} <= names:
        names.remove("retry_date")
    if "window" in names:
        names.add("above")
    return Fault(place, kind, **{name: draw(VALUES[name]) for name in names})


@given(any_fault())
def test_fault_survives_text_and_json(fault: Fault) -> None:
    assert Fault.parse(str(fault)) == fault
    assert Fault.from_json(json.loads(json.dumps(fault.as_json()))) == fault
    assert Fault.from_json(str(fault)) == fault


def test_text_form() -> None:
    text = "retrieve:429;times=5;retry_after=2"
    assert Fault.parse(text) == Fault("retrieve", 429, retry_after=2, times=5)
    assert str(Fault("retrieve", "429", retry_after=2, times=5)) == text
    assert parse_faults("download:interrupt;p=0.2\n  ping:reset\tapi:slow;delay=0.5 ") == [
        Fault("download", "interrupt", p=0.2),
        Fault("ping", "reset"),
        Fault("api", "slow", delay=0.5),
    ]
    assert parse_faults(" \n") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "PLACE:KIND"),
        ("retrieve", "PLACE:KIND.*not 'retrieve'"),
        (
            "retreive:429",
            "unknown place: 'retreive'; known places: ping, account, create, .*, metrics, lists, api, download, any",
        ),
        ("retrieve:418", "unknown kind: '418'; known kinds: 400, .*no-range"),
        ("retrieve:429;retry-after=2", "'retry-after=2'; known: retry_after, retry_date, body, when, times"),
        ("retrieve:429;times", "'times'; known"),
        ("retrieve:429;", "''; known"),
        ("retrieve:429;times=x", "times must be a whole number of at least 1, not 'x'"),
        ("retrieve:429;times=0", "times must be a whole number of at least 1, not 0"),
        ("retrieve:429;times=1;times=2", "times occurs twice"),
        ("retrieve:429;p=0", "p must be a number above 0 and at most 1"),
        ("retrieve:429;p=nan", "p must be"),
        ("retrieve:429;p=1.1", "p must be"),
        ("retrieve:429;for_seconds=inf", "for_seconds must be a number above 0"),
        ("retrieve:429;skip=-1", "skip must be"),
        ("retrieve:429;when=later", "when must be before or after, not 'later'"),
        ("retrieve:429;retry_after=-1", "retry_after must be a whole number of seconds"),
        ("retrieve:429;retry_after=1;retry_date=1", "the same header"),
        ("retrieve:429;body=xml", "body must be json or json2 or text or html"),
        ("retrieve:429;body=json2", "for 404 and 422"),
        ("retrieve:502;body=json", "not JSON"),
        ("retrieve:429;at=5", "429 has no option at; it has: retry_after"),
        ("retrieve:stall;when=after", "stall has no option when; it has: at"),
        ("retrieve:slow;delay=-1", "delay must be"),
        ("download:503;body=html", "S3's XML"),
        ("download:half-json", "half-json is for the API only"),
        ("any:half-json", "half-json is for the API only"),
        ("retrieve:new-key", "new-key is for lists only: use one of data_sources, customers, .*, metrics, lists"),
        ("subscriptions:stuck-cursor", "stuck-cursor is for lists only: use one of customers"),
        ("lists:customer-moved", "customer-moved is for lists only: use one of customers as"),
        ("customers:customer-moved;to=last", "to must be later or earlier"),
        ("customers:short-page;rows=0", "rows must be a whole number of at least 1"),
        ("customers:429;window=5", "window needs above"),
        *((f"retrieve:{kind}", f"use download:{kind}") for kind in DOWNLOAD_KINDS),
    ],
)
def test_invalid_fault_is_rejected_with_known_values(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fault.parse(text)
    added = Faults()
    with pytest.raises(ValueError, match=message):
        added.add("ping:500", text)
    assert list(added) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (5, "a JSON object or string"),
        ({"place": "ping"}, '"kind"'),
        ({"place": "ping", "kind": 500, "tmies": 1}, "tmies; known: place, kind, times"),
        ({"place": "ping", "kind": 500, "times": "5"}, "times must be a whole number"),
        ({"place": "ping", "kind": 500, "times": True}, "times must be a whole number"),
        ({"place": "ping", "kind": 500, "p": True}, "p must be"),
        ({"place": ["ping"], "kind": 500}, "unknown place"),
        ({"place": "ping", "kind": [500]}, "unknown kind"),
        ({"place": "ping", "kind": 500, "when": {}}, "when must be"),
    ],
)
def test_invalid_json_is_rejected(content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fault.from_json(content)


def test_help_lists_all_places_kinds_and_options() -> None:
    words = set(re.findall(r"[a-z0-9_-]+", HELP))
    options = {name for names in KIND_OPTIONS.values() for name in names}
    assert words >= {*PLACES, *KIND_OPTIONS, *options}
    for example in re.findall(r"\w+:\S+=\S+", HELP):
        if example != "PLACE:KIND":
            Fault.parse(example)


def pattern(faults: Faults, requests: int) -> str:
    """Send requests to `retrieve`, and return an `x` for each that is hit."""
    return "".join("x" if faults.select("api", "retrieve") else "." for _ in range(requests))


def test_options_limit_number_of_hits() -> None:
    for text, expected in (
        ("retrieve:503", "xxxxxx"),
        ("retrieve:503;times=2", "xx...."),
        ("retrieve:503;skip=1;times=2", ".xx..."),
        ("retrieve:503;for_seconds=1e9", "xxxxxx"),
        ("create:503", "......"),
        ("download:503", "......"),
        ("api:503", "xxxxxx"),
        ("any:503", "xxxxxx"),
    ):
        added = Faults()
        (fault,) = added.add(text)
        assert pattern(added, 6) == expected
        assert fault.hits == expected.count("x")
        assert fault.exhausted == ("times" in text)


def test_probability_uses_seed() -> None:
    patterns = {}
    for seed in (0, 1, 1):
        added = Faults()
        added.add(Fault("retrieve", 503, p=0.2, seed=seed))
        hits = pattern(added, 2000)
        assert 300 < hits.count("x") < 500
        assert patterns.setdefault(seed, hits) == hits
    assert len(set(patterns.values())) == 2
    added = Faults()
    added.add("retrieve:503;p=0.2;times=7")
    assert pattern(added, 2000).count("x") == 7


def test_faults_with_same_seed_hit_different_requests() -> None:
    added = Faults()
    first, second = added.add("download:flip;p=0.5", "download:truncate;p=0.5")
    selected = [added.select("download", "download") for _ in range(1000)]
    both = sum(len(hits.modifications) == 2 for hits in selected if hits)
    assert 150 < both < 350 < min(first.hits, second.hits)


def test_for_seconds_starts_when_fault_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(active_faults, "time", clock)
    added = Faults()
    (fault,) = added.add("any:500;for_seconds=10")
    clock.now = 109.9
    assert (pattern(added, 2), fault.exhausted) == ("xx", False)
    clock.now = 110.0
    assert (pattern(added, 2), fault.exhausted) == ("..", True)


def test_one_replacement_and_all_modifications_apply() -> None:
    added = Faults()
    interrupt, first, second, slow = added.add(
        "download:interrupt", "any:503;times=1", "download:html;times=1", "any:slow"
    )
    hits = added.select("download", "download")
    assert str(hits) == "any:slow any:503;times=1"
    assert [fault.hits for fault in (interrupt, first, second, slow)] == [0, 1, 0, 1]
    assert str(added.select("download", "download")) == "any:slow download:html;times=1"
    assert str(added.select("download", "download")) == "download:interrupt any:slow"
    assert str(added.select("api", "ping")) == "any:slow"


def test_removed_faults_hit_nothing() -> None:
    added = Faults()
    first, second = added.add("ping:500", "ping:502")
    added.remove(first)
    added.remove(first)
    assert [fault.id for fault in added] == [second.id] == [2]
    added.clear()
    assert (list(added), added.select("api", "ping")) == ([], None)
    assert added.add("ping:500")[0].id == 3


def test_last_exhausted_faults_are_listed() -> None:
    added = Faults()
    added.add("ping:500")
    for _ in range(200):
        added.add("create:reset;times=1")
        assert added.select("api", "create")
    shown = list(added)
    assert shown[0].fault == Fault("ping", 500)
    assert not shown[0].exhausted
    assert 10 < len(shown) < 30


@pytest.mark.parametrize("at", [None, 0, 5, 99, 10**12])
@pytest.mark.parametrize("length", [0, 1, 2, 100])
def test_byte_is_within_body(at: int | None, length: int) -> None:
    added = Faults()
    added.add(Fault("download", "interrupt", at=at))
    hits = added.select("download", "download")
    assert hits is not None
    byte = hits.modifications["interrupt"].byte(length)
    assert byte == (min(at, max(0, length - 1)) if at is not None else byte)
    assert 0 <= byte <= max(0, length - 1)


def test_counters() -> None:
    counters = Counters()
    open_now = 3
    counters.set_connection_counter("api", lambda: open_now)
    for moment in (0.0, 0.5, 0.9, 1.2, 1.4, 5.0):
        counters.request_received("api", moment)
        counters.response_ready("api", 200, faulty=False)
    open_now = 1
    counters.request_received("download", 5.0)
    counters.response_ready("download", 0, faulty=True)
    counters.response_ready("download", 503, faulty=True)
    counted = counters.as_json()
    assert counted["api"]["requests"] == 6
    assert counted["api"]["per_second"]["busiest"] == 4  # from 0.5 to 1.4
    assert counted["api"]["connections"] == {"now": 1, "most": 3}
    assert counted["api"]["responses"] == {"200": 6}
    assert counted["download"]["responses"] == {"503": 1, "none": 1}
    assert counted["download"]["refused"] == {"429": 0, "503": 1}
    assert counted["download"]["hit_by_faults"] == 2
    counters.reset()
    again = counters.as_json()
    assert again["api"]["requests"] == again["api"]["per_second"]["busiest"] == 0
    assert again["api"]["connections"] == {"now": 1, "most": 1}


def test_settings_change_all_or_none() -> None:
    sandbox = Sandbox()
    sandbox.change_settings({"outcome": "failed", "url_seconds": 5, "max_connections": None})
    assert (sandbox.outcome, sandbox.url_seconds, sandbox.max_connections) == ("failed", 5, None)
    before = sandbox.settings
    for invalid, message in (
        ({"outcome": ""}, "outcome"),
        ({"outcome": 5}, "outcome"),
        ({"url_seconds": 1.5}, "url_seconds"),
        ({"export_seconds": float("nan")}, "export_seconds"),
        ({"export_seconds": "5"}, "export_seconds"),
        ({"fresh_urls": 1}, "fresh_urls"),
        ({"requests_per_second": -1}, "requests_per_second"),
        ({"api_key": "x"}, "unknown setting: api_key; known settings: export_seconds, outcome"),
    ):
        with pytest.raises(ValueError, match=message):
            sandbox.change_settings({"export_seconds": 9, **invalid})
    assert sandbox.settings == before


def test_number_of_exports_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "_MAX_EXPORTS", 3)
    sandbox = Sandbox(export_seconds=0)
    created = [sandbox.create_export(ExportParameters(None, None, None)) for _ in range(5)]
    assert [export.id for export in sandbox.exports] == [export.id for export in created[2:]]
    assert [sandbox.export_by_id(export.id) is not None for export in created] == [False, False, True, True, True]
    assert [sandbox.export_by_path(export.path) is not None for export in created] == [False, False, True, True, True]
    assert sandbox.export_statuses() == {"succeeded": 3}


def test_counting_statuses_does_not_change_export() -> None:
    sandbox = Sandbox(export_seconds=0)
    export = sandbox.create_export(ExportParameters(None, None, None))
    assert sandbox.export_statuses() == {"succeeded": 1}
    assert (export.terminal_status, export.signed_at) == (None, None)


def test_import_loads_no_http_library() -> None:
    printed = run_python(
        "import sys, airflow_provider_chartmogul.sandbox as sandbox\n"
        "sandbox.Sandbox(faults=['ping:500'])\n"
        "print(sorted({'aiohttp', 'requests', 'airflow'} & {name.partition('.')[0] for name in sys.modules}))\n"
    )
    assert printed.strip() == "[]"
