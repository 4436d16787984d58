# SPDX-License-Identifier: Apache-2.0
"""
Answer, for one account, the questions that ChartMogul's documentation leaves open.

Nothing in this package depends on the answers. Each needs as few requests as possible, and is "Unknown" or "Not clear"
if they do not suffice.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import MAXYEAR, MINYEAR, UTC, date, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from airflow_provider_chartmogul.api.resources import RESOURCES
from airflow_provider_chartmogul.check.samples import Reader, Sample

Samples = Mapping[str, Sample | None]

#: ``system`` of data sources that are filled through the API. All others are integrations.
_API_SYSTEMS = ("Custom", "Import API")

#: Number of integrations that are checked, with four requests each.
_MAX_INTEGRATIONS = 3

#: Longest window of metrics to compare with the first days of customers, in days.
_METRICS_DAYS = 365


def find_answers(reader: Reader, samples: Samples, account: Mapping[str, Any]) -> list[dict[str, str]]:
    """
    Return the open questions, each with the answer for this account.

    :param samples: the first page of each resource
    :param account: the row of the account; empty if it could not be read
    """
    zone = _read_zone(account.get("time_zone"))
    return [
        {"question": question, "answer": answer}
        for question, answer in (
            ("Do lists include the data of integrations such as Stripe?", _integrations(reader, samples)),
            ("Does event_date match exactly, or from that date on?", _event_date(reader, samples, zone)),
            ("May the key read contacts, notes, tasks and opportunities?", _restricted_resources(samples)),
            ("Do deleted rows disappear from with_disabled=true?", _deleted_rows(samples)),
            ("In which time zone are the dates of metrics?", _metrics_zone(reader, samples, zone)),
            ("Has /notes replaced /customer_notes?", _notes_paths(reader)),
        )
    ]


def _integrations(reader: Reader, samples: Samples) -> str:
    """Read one row of four resources for each integration, and return which of them have any."""
    sources: dict[str, str] = {}
    for row in _rows(samples, "data_sources"):
        system, uuid = row.get("system"), row.get("uuid")
        if isinstance(system, str) and isinstance(uuid, str) and system not in _API_SYSTEMS:
            sources.setdefault(system, uuid)
    if not sources:
        return "Unknown: no data source of this account is an integration, as far as the key can read."
    answers = []
    for system, uuid in list(sources.items())[:_MAX_INTEGRATIONS]:
        found = {
            name: reader.read(RESOURCES[name], {"data_source_uuid": uuid, "per_page": "1"})
            for name in ("customers", "invoices", "plans", "subscription_events")
        }
        answers.append(f"{system}: " + ", ".join(f"{name} {_yes_or_no(sample)}" for name, sample in found.items()))
    return "; ".join(answers) + "."


def _event_date(reader: Reader, samples: Samples, zone: tzinfo | None) -> str:
    """Request the events of one day, with events before or after it on the first page, and compare their dates."""
    times = sorted({time for row in _rows(samples, "subscription_events") if (time := _read_time(row, "event_date"))})
    days = sorted({time.astimezone(UTC).date() for time in times})
    if len(days) < 2:
        return "Unknown: the first page of subscription_events has fewer than two days."
    day = days[(len(days) - 1) // 2]
    events = RESOURCES["subscription_events"]
    response = reader.read(events, {"event_date": day.isoformat()})
    if response.error is not None:
        return f"Unknown: the request failed ({response.problem})."
    if not response.rows:
        moment = next(time for time in times if time.astimezone(UTC).date() == day)
        response = reader.read(events, {"event_date": moment.strftime("%Y-%m-%dT%H:%M:%SZ")})
        return "Exactly, with the time of day." if response.rows else "Unknown: neither a date nor a time returns rows."
    found = [time for row in response.rows if (time := _read_time(row, "event_date"))]
    for zone_name, time_zone in (("UTC", UTC), ("the account's time zone", zone)):
        if found and time_zone is not None and {time.astimezone(time_zone).date() for time in found} == {day}:
            return f"Exactly: all events of that day, in {zone_name}."
    is_earlier = any(time.astimezone(UTC).date() < day - timedelta(days=1) for time in found)
    is_later = any(time.astimezone(UTC).date() > day + timedelta(days=1) for time in found)
    if is_earlier and is_later:
        return "Neither: the filter has no effect."
    if is_later:
        return "From that date on."
    return "Up to that date." if is_earlier else "Not clear: only events within a day of the date."


def _restricted_resources(samples: Samples) -> str:
    results = []
    for name in ("contacts", "notes", "tasks", "opportunities"):
        sample = samples[name]
        if sample is None or sample.error is not None:
            results.append(f"{name} {sample.problem if sample else 'not checked'}")
        else:
            results.append(f"{name} {'yes' if sample.rows else 'an empty list (no rows, or no access)'}")
    return (
        ", ".join(results)
        + ". The API does not report whether the key is read-only. If you know, add it to this report."
    )


def _deleted_rows(samples: Samples) -> str:
    counts = []
    for name in ("invoices", "subscription_events"):
        disabled = sum(1 for row in _rows(samples, name) if row.get("disabled") is True)
        counts.append(f"{disabled} of the first {len(_rows(samples, name))} {name.replace('_', ' ')}")
    return (
        f"Unknown: reading alone cannot show it. Disabled rows: {' and '.join(counts)}. To find out, delete an invoice "
        "in ChartMogul and check whether the list still contains it."
    )


def _metrics_zone(reader: Reader, samples: Samples, zone: tzinfo | None) -> str:
    """
    Compare the first days of customers, in UTC and in the account's time zone, with the days that have new business.

    Only customers whose first day differs between the two zones are evidence.
    """
    if zone is None:
        return "Unknown: the account's time zone could not be read."
    times = sorted(time for row in _rows(samples, "customers") if (time := _read_time(row, "customer-since")))
    days = [(time.astimezone(UTC).date(), time.astimezone(zone).date()) for time in times]
    different = [pair for pair in days if pair[0] != pair[1]]
    if not different:
        return "Unknown: the first 200 customers have the same first day in UTC and in the account's time zone."
    start = min(different[0])
    end = min(max(different[-1]), start + timedelta(days=_METRICS_DAYS))
    response = reader.read(
        RESOURCES["metrics"],
        {"start-date": start.isoformat(), "end-date": end.isoformat(), "interval": "day"},
        path="/metrics/mrr",
    )
    if response.error is not None:
        return f"Unknown: the request for metrics failed ({response.problem})."
    with_new_business = {
        date.fromisoformat(row["date"][:10])
        for row in response.rows
        if isinstance(row.get("date"), str) and row.get("mrr-new-business")
    }
    compared = [pair for pair in different if end >= max(pair)]
    for_utc = sum(utc in with_new_business and local not in with_new_business for utc, local in compared)
    for_zone = sum(local in with_new_business and utc not in with_new_business for utc, local in compared)
    evidence = f"of {len(compared)} customers, {for_utc} match UTC and {for_zone} match the account's time zone"
    if for_utc > 10 * for_zone:
        return f"UTC: {evidence}."
    if for_zone > 10 * for_utc:
        return f"The account's time zone: {evidence}."
    return f"Not clear: {evidence}."


def _notes_paths(reader: Reader) -> str:
    notes = RESOURCES["notes"]
    new = reader.read(notes, {"per_page": "1"})
    old = reader.read(notes, {"per_page": "1"}, path=notes.fallback_path)
    answer = f"/notes: {new.problem or 'works'}, /customer_notes: {old.problem or 'works'}"
    if new.rows and old.rows:
        is_same = [row.get("uuid") for row in new.rows] == [row.get("uuid") for row in old.rows]
        answer += ", with the same first row" if is_same else ", with different first rows"
    return answer + "."


def _rows(samples: Samples, name: str) -> list[dict[str, Any]]:
    sample = samples[name]
    return sample.rows if sample is not None else []


def _yes_or_no(sample: Sample) -> str:
    if sample.error is not None:
        return sample.problem
    return "yes" if sample.rows else "no"


def _read_time(row: Mapping[str, Any], key: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(row[key])
    except (KeyError, TypeError, ValueError):
        return None
    # In the first and the last year, a day before or after it, or another time zone, may be out of Python's range.
    if time.year in (MINYEAR, MAXYEAR):
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _read_zone(name: Any) -> tzinfo | None:
    try:
        return ZoneInfo(name)
    except (TypeError, ValueError, OSError, LookupError):
        return None
