# SPDX-License-Identifier: Apache-2.0
"""
The faults of the sandbox without the network: how they are written, and which requests they hit.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chartmogul.sandbox import Sandbox, account, faults
from airflow_provider_chartmogul.sandbox.counters import Counters
from airflow_provider_chartmogul.sandbox.faults import HELP, PLACES, SPOILING, TAKES, Fault, Faults, parse_faults
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
}


@st.composite
def any_fault(draw: st.DrawFn) -> Fault:
    what = draw(st.sampled_from(list(TAKES)))
    on = draw(st.sampled_from(["download"] if what in SPOILING and what != "slow" else ["create", "retrieve", "api"]))
    names = draw(st.sets(st.sampled_from(TAKES[what])))
    if {"retry_after", "retry_date"} <= names:
        names.remove("retry_date")
    return Fault(on, what, **{name: draw(VALUES[name]) for name in names})


@given(any_fault())
def test_text_and_json_give_the_fault_again(fault: Fault) -> None:
    assert Fault.parse(str(fault)) == fault
    assert Fault.from_json(json.loads(json.dumps(fault.as_json()))) == fault
    assert Fault.from_json(str(fault)) == fault


def test_the_text_form_is_what_it_looks_like() -> None:
    text = "retrieve:429;times=5;retry_after=2"
    assert Fault.parse(text) == Fault("retrieve", 429, retry_after=2, times=5)
    assert str(Fault("retrieve", "429", retry_after=2, times=5)) == text
    assert parse_faults("download:break;p=0.2\n  ping:reset\tapi:slow;delay=0.5 ") == [
        Fault("download", "break", p=0.2),
        Fault("ping", "reset"),
        Fault("api", "slow", delay=0.5),
    ]
    assert parse_faults(" \n") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "PLACE:KIND"),
        ("retrieve", "PLACE:KIND.*not 'retrieve'"),
        ("retreive:429", "no such place.*'retreive'.*known: ping, account, create, retrieve, api, download, any"),
        ("retrieve:418", "no such fault: '418'; known: 400, .*no-range"),
        ("retrieve:429;retry-after=2", "'retry-after=2'; known: retry_after, retry_date, body, when, times"),
        ("retrieve:429;times", "'times'; known"),
        ("retrieve:429;", "''; known"),
        ("retrieve:429;times=x", "times must be a whole number from 1 on, not 'x'"),
        ("retrieve:429;times=0", "times must be a whole number from 1 on, not 0"),
        ("retrieve:429;times=1;times=2", "times is there twice"),
        ("retrieve:429;p=0", "p must be a number above 0 and up to 1"),
        ("retrieve:429;p=nan", "p must be"),
        ("retrieve:429;p=1.1", "p must be"),
        ("retrieve:429;for_seconds=inf", "for_seconds must be a number above 0"),
        ("retrieve:429;skip=-1", "skip must be"),
        ("retrieve:429;when=later", "when must be before or after, not 'later'"),
        ("retrieve:429;retry_after=-1", "retry_after must be a whole number of seconds"),
        ("retrieve:429;retry_after=1;retry_date=1", "the same header"),
        ("retrieve:429;body=xml", "body must be json or json2 or text or html"),
        ("retrieve:429;body=json2", "for 404 and 422"),
        ("retrieve:502;body=json", "never JSON"),
        ("retrieve:429;at=5", "429 has no at; it takes: retry_after"),
        ("retrieve:stall;when=after", "stall has no when; it takes: at"),
        ("retrieve:slow;delay=-1", "delay must be"),
        ("download:503;body=html", "S3's"),
        ("download:half-json", "half-json is a fault of the API"),
        ("any:half-json", "half-json is a fault of the API"),
        *((f"retrieve:{what}", f"write download:{what}") for what in ("break", "cut", "flip", "etag", "no-range")),
    ],
)
def test_what_makes_no_sense_is_told_with_what_is_known(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Fault.parse(text)
    added = Faults()
    with pytest.raises(ValueError, match=says):
        added.add("ping:500", text)
    assert list(added) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (5, "an object or a string"),
        ({"on": "ping"}, '"what"'),
        ({"on": "ping", "what": 500, "tmies": 1}, "tmies; known: on, what, times"),
        ({"on": "ping", "what": 500, "times": "5"}, "times must be a whole number"),
        ({"on": "ping", "what": 500, "times": True}, "times must be a whole number"),
        ({"on": "ping", "what": 500, "p": True}, "p must be"),
        ({"on": ["ping"], "what": 500}, "no such place"),
        ({"on": "ping", "what": [500]}, "no such fault"),
        ({"on": "ping", "what": 500, "when": {}}, "when must be"),
    ],
)
def test_json_that_makes_no_sense_is_told_too(content: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Fault.from_json(content)


def test_the_help_has_all_there_is() -> None:
    words = set(re.findall(r"[a-z0-9_-]+", HELP))
    options = {name for names in TAKES.values() for name in names}
    assert words >= {*PLACES, *TAKES, *options}
    for example in re.findall(r"\w+:\S+=\S+", HELP):
        if example != "PLACE:KIND":
            Fault.parse(example)


def pattern(faults: Faults, requests: int, host: str = "api", request: str = "retrieve") -> str:
    return "".join("x" if faults.draw(host, request) else "." for _ in range(requests))


def test_how_often() -> None:
    for text, hit in (
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
        (one,) = added.add(text)
        assert pattern(added, 6) == hit
        assert one.hits == hit.count("x")
        assert one.over == ("times" in text)


def test_a_probability_is_drawn_from_the_seed() -> None:
    patterns = {}
    for seed in (0, 1, 1):
        added = Faults()
        added.add(Fault("retrieve", 503, p=0.2, seed=seed))
        drawn = pattern(added, 2000)
        assert 300 < drawn.count("x") < 500
        assert patterns.setdefault(seed, drawn) == drawn
    assert len(set(patterns.values())) == 2
    # As many as it says, where both are given.
    added = Faults()
    added.add("retrieve:503;p=0.2;times=7")
    assert pattern(added, 2000).count("x") == 7


def test_two_faults_with_the_same_seed_do_not_hit_the_same_requests() -> None:
    added = Faults()
    first, second = added.add("download:flip;p=0.5", "download:cut;p=0.5")
    both = sum(len(hits.spoiled) == 2 for hits in (added.draw("download", "download") for _ in range(1000)) if hits)
    assert 150 < both < 350 < min(first.hits, second.hits)


def test_seconds_count_from_when_it_was_added(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(faults, "time", clock)
    added = Faults()
    (one,) = added.add("any:500;for_seconds=10")
    clock.now = 109.9
    assert (pattern(added, 2), one.over) == ("xx", False)
    clock.now = 110.0
    assert (pattern(added, 2), one.over) == ("..", True)


def test_one_answer_and_any_number_of_spoilings() -> None:
    added = Faults()
    break_, first, second, slow = added.add("download:break", "any:503;times=1", "download:html;times=1", "any:slow")
    hits = added.draw("download", "download")
    assert str(hits) == "any:slow any:503;times=1"
    assert [one.hits for one in (break_, first, second, slow)] == [0, 1, 0, 1]
    assert str(added.draw("download", "download")) == "any:slow download:html;times=1"
    assert str(added.draw("download", "download")) == "download:break any:slow"
    assert str(added.draw("api", "ping")) == "any:slow"


def test_taking_away() -> None:
    added = Faults()
    first, second = added.add("ping:500", "ping:502")
    added.remove(first)
    added.remove(first)
    assert [one.id for one in added] == [second.id] == [2]
    added.clear()
    assert (list(added), added.draw("api", "ping")) == ([], None)
    assert added.add("ping:500")[0].id == 3


def test_what_is_over_is_shown_for_a_while_and_not_for_ever() -> None:
    added = Faults()
    added.add("ping:500")
    for _ in range(200):
        added.add("create:reset;times=1")
        assert added.draw("api", "create")
    shown = list(added)
    assert shown[0].fault == Fault("ping", 500)
    assert not shown[0].over
    assert 10 < len(shown) < 30


@pytest.mark.parametrize("at", [None, 0, 5, 99, 10**12])
@pytest.mark.parametrize("length", [0, 1, 2, 100])
def test_the_byte_is_in_the_body(at: int | None, length: int) -> None:
    added = Faults()
    added.add(Fault("download", "break", at=at))
    hits = added.draw("download", "download")
    assert hits is not None
    byte = hits.spoiled["break"].byte(length)
    assert byte == (min(at, max(0, length - 1)) if at is not None else byte)
    assert 0 <= byte <= max(0, length - 1)


def test_counting() -> None:
    counters = Counters()
    open_now = 3
    counters.watch_connections("api", lambda: open_now)
    for moment in (0.0, 0.5, 0.9, 1.2, 1.4, 5.0):
        counters.came("api", moment)
        counters.answered("api", 200, faulty=False)
    open_now = 1
    counters.came("download", 5.0)
    counters.answered("download", 0, faulty=True)
    counters.answered("download", 503, faulty=True)
    counted = counters.as_json()
    assert counted["api"]["requests"] == 6
    assert counted["api"]["per_second"]["busiest"] == 4  # from 0.5 to 1.4
    assert counted["api"]["connections"] == {"now": 1, "most": 3}
    assert counted["api"]["answers"] == {"200": 6}
    assert counted["download"]["answers"] == {"503": 1, "none": 1}
    assert counted["download"]["refused"] == {"429": 0, "503": 1}
    assert counted["download"]["hit_by_faults"] == 2
    counters.reset()
    again = counters.as_json()
    assert again["api"]["requests"] == again["api"]["per_second"]["busiest"] == 0
    assert again["api"]["connections"] == {"now": 1, "most": 1}


def test_settings_change_together_or_not_at_all() -> None:
    sandbox = Sandbox()
    sandbox.change({"outcome": "failed", "url_seconds": 5, "max_connections": None})
    assert (sandbox.outcome, sandbox.url_seconds, sandbox.max_connections) == ("failed", 5, None)
    before = sandbox.settings
    for wrong, says in (
        ({"outcome": ""}, "outcome"),
        ({"outcome": 5}, "outcome"),
        ({"url_seconds": 1.5}, "url_seconds"),
        ({"export_seconds": float("nan")}, "export_seconds"),
        ({"export_seconds": "5"}, "export_seconds"),
        ({"fresh_urls": 1}, "fresh_urls"),
        ({"requests_per_second": -1}, "requests_per_second"),
        ({"api_key": "x"}, "no such setting: api_key; known: export_seconds, outcome"),
    ):
        with pytest.raises(ValueError, match=says):
            sandbox.change({"export_seconds": 9, **wrong})
    assert sandbox.settings == before


def test_exports_do_not_pile_up_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "_KEPT_EXPORTS", 3)
    sandbox = Sandbox(export_seconds=0)
    made = [sandbox.create(account.Window(None, None, None)) for _ in range(5)]
    assert [export.id for export in sandbox.exports] == [export.id for export in made[2:]]
    assert [sandbox.export(export.id) is not None for export in made] == [False, False, True, True, True]
    assert [sandbox.export_at(export.path) is not None for export in made] == [False, False, True, True, True]
    assert sandbox.export_states() == {"succeeded": 3}


def test_counting_states_is_no_look() -> None:
    sandbox = Sandbox(export_seconds=0)
    export = sandbox.create(account.Window(None, None, None))
    assert sandbox.export_states() == {"succeeded": 1}
    assert (export.final, export.signed_at) == (None, None)


def test_importing_it_is_cheap() -> None:
    printed = run_python(
        "import sys, airflow_provider_chartmogul.sandbox as sandbox\n"
        "sandbox.Sandbox(faults=['ping:500'])\n"
        "print(sorted({'aiohttp', 'requests', 'airflow'} & {name.partition('.')[0] for name in sys.modules}))\n"
    )
    assert printed.strip() == "[]"
