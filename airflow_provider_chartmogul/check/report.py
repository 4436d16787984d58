# SPDX-License-Identifier: Apache-2.0
"""Remove identities from the report of a check, and format it as text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from typing import Any

#: UUIDs, with a prefix such as ``cus_`` or without, and e-mail addresses.
_IDENTITIES = re.compile(
    r"\b(?:[a-z]{2,5}_)?[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\b|[^\s@\"'<>]+@[^\s@\"'<>]+", re.IGNORECASE
)

_WIDTH = 100


def remove_identities(value: Any, identities: Iterable[str]) -> Any:
    """
    Return a report without e-mail addresses, UUIDs and other identities.

    :param value: a report, or a part of it; keys are kept
    :param identities: texts to remove, such as the account's name
    """
    identities = [identity for identity in identities if identity]
    if isinstance(value, dict):
        return {key: remove_identities(item, identities) for key, item in value.items()}
    if isinstance(value, list):
        return [remove_identities(item, identities) for item in value]
    if not isinstance(value, str):
        return value
    for identity in sorted(identities, key=len, reverse=True):
        value = value.replace(identity, "…")
    return _IDENTITIES.sub("…", value)


def format_report(report: dict[str, Any]) -> str:
    """Return a report as text."""
    host = "ChartMogul's own host" if report["official_host"] else "a host that is not ChartMogul's own"
    lines = [
        f"The API key works at {host}.",
        f"airflow-provider-chartmogul {report['version']}, {report['checked_at']}, {report['requests']} requests",
        "",
        "ACCOUNT",
    ]
    account = report["account"] or {"": "could not be read"}
    lines += [f"  {name:<38}{_format_value(value)}" for name, value in account.items()]
    lines += ["", "RESOURCES", f"  {'':<22}{'readable':<16}{'first page':<14}requests for a complete walk"]
    lines += [_format_resource(name, entry) for name, entry in report["resources"].items()]
    lines += [
        f"  {'activities':<22}not checked: that would create an export",
        "",
        "WHAT CHARTMOGUL DOES NOT DOCUMENT, FOR THIS ACCOUNT",
    ]
    for finding in report["findings"]:
        lines.append(f"  {finding['question']}")
        lines += textwrap.wrap(finding["answer"], _WIDTH, initial_indent="    ", subsequent_indent="    ")
    lines += ["", "This report contains no key, name, e-mail address or UUID, so you can paste it into an issue."]
    return "\n".join(lines)


def _format_resource(name: str, entry: dict[str, Any]) -> str:
    if entry["readable"] is None:
        return f"  {name:<22}{'not checked':<16}{entry['reason']}"
    if not entry["readable"]:
        return f"  {name:<22}{'no (' + entry['problem'] + ')':<16}{entry['reason']}"
    requests = entry["requests"]
    minimum = "at least " if entry["requests_is_minimum"] else ""
    duration = _format_duration(entry["seconds"])
    rows = f"{entry['rows']} row{'s' if entry['rows'] != 1 else ''}"
    return f"  {name:<22}{'yes':<16}{rows:<14}{minimum}{requests:,}{duration}"


def _format_duration(seconds: float) -> str:
    if seconds < 60:
        return ""
    return f", {seconds / 60:.0f} minutes at the connection's rate"


def _format_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "not reported" if value is None else str(value)
