# SPDX-License-Identifier: Apache-2.0
"""Rows of `/data_sources`, `/plans`, `/plan_groups` and `/plan_groups/{uuid}/plans`, and the body of `/account`."""

from __future__ import annotations

from typing import NamedTuple

from airflow_provider_chartmogul.sandbox.company.billing import DATA_SOURCES, PLANS, data_source_uuid, plan_uuid
from airflow_provider_chartmogul.sandbox.company.books import Books
from airflow_provider_chartmogul.sandbox.company.clock import FOUNDED, to_seconds, with_milliseconds
from airflow_provider_chartmogul.sandbox.company.identity import entity_uuid
from airflow_provider_chartmogul.sandbox.resources.definition import (
    WITH_PAGES,
    ListDefinition,
    Query,
    Record,
    Row,
    equals,
    is_set,
)

_FIRST_PLAN_ID = 1_099_500
_FIRST_GROUP_ID = 21_180
_HOUR = 3_600 * 1_000_000

_GROUPS = (
    ("Monthly plans", ("starter-monthly", "growth-monthly")),
    ("Yearly plans", ("growth-annual", "scale-annual")),
    ("Growth", ("growth-monthly", "growth-annual")),
    ("Withdrawn plans", ()),
)

_ACCOUNT = {
    "name": "Example Test Company",
    "currency": "EUR",
    "time_zone": "Europe/Berlin",
    "week_start_on": "sunday",
}

_ACCOUNT_SETTINGS = {
    "churn_recognition": "churn_at_period_end",
    "churn_when_zero_mrr": True,
    "auto_churn_subscription": False,
    "refund_handling": "refund_full_only",
    "proximate_movement_reclassification": "one_day_reclassification",
}


def account_body(query: Query) -> Row:
    """Return the body of `/account`, with the settings that `include` names, separated by commas."""
    included = query.get("include", "").split(",")
    return {**_ACCOUNT, **{name: value for name, value in _ACCOUNT_SETTINGS.items() if name in included}}


def _founded(number: int) -> int:
    """Return a time shortly after the founding, in microseconds."""
    return to_seconds(FOUNDED) * 1_000_000 + number * _HOUR + 1_234 * (number + 1)


def _data_source_records(books: Books) -> list[Record]:
    return [
        Record(_founded(index), data_source_uuid(books.company, index), data_source)
        for index, data_source in enumerate(DATA_SOURCES)
    ]


def _create_data_source(books: Books, record: Record, query: Query) -> Row:
    row: Row = {
        "uuid": record.id,
        "name": record.source.name,
        "system": record.source.system,
        "created_at": with_milliseconds(record.created or 0),
        "status": "idle",
    }
    if is_set(query, "with_processing_status"):
        row["processing_status"] = {"processed": 12, "failed": 0, "pending": 0}
    if is_set(query, "with_auto_churn_subscription_setting"):
        row["auto_churn_subscription_setting"] = {"enabled": record.source.has_events, "interval": 30}
    if is_set(query, "with_invoice_handling_setting"):
        handling = {
            "create_subscription_when_invoice_is": "open",
            "update_subscription_when_invoice_is": "open",
            "prevent_subscription_for_invoice_voided": True,
            "prevent_subscription_for_invoice_refunded": False,
            "prevent_subscription_for_invoice_written_off": True,
        }
        row["invoice_handling_setting"] = {"manual": handling, "automatic": dict(handling)}
    return row


class _DataSourcePlan(NamedTuple):
    """A plan of a data source; in a plan group's list, `group` is the group's UUID."""

    data_source: int
    plan: int
    group: str = ""


def _plan_records(books: Books) -> list[Record]:
    sources = [_DataSourcePlan(source, plan) for source in range(len(DATA_SOURCES)) for plan in range(len(PLANS))]
    return [Record(_founded(number), _FIRST_PLAN_ID + number, source) for number, source in enumerate(sources)]


def _create_plan(books: Books, record: Record, query: Query) -> Row:
    values = _plan_values(books, record.source)
    keys = ("external_id", "name", "interval_count", "uuid", "interval_unit", "data_source_uuid")
    return {key: values[key] for key in keys}


def _create_group_plan(books: Books, record: Record, query: Query) -> Row:
    values = _plan_values(books, record.source)
    keys = ("name", "uuid", "data_source_uuid", "interval_count", "interval_unit", "external_id")
    return {key: values[key] for key in keys}


def _plan_values(books: Books, source: _DataSourcePlan) -> Row:
    plan = PLANS[source.plan]
    return {
        "external_id": plan.external_id,
        "name": plan.name,
        "interval_count": 1,
        "uuid": plan_uuid(books.company, source.data_source, source.plan),
        "interval_unit": plan.interval_unit,
        "data_source_uuid": data_source_uuid(books.company, source.data_source),
    }


def _group_uuid(books: Books, group: int) -> str:
    return f"plg_{entity_uuid(books.company, 'plan group', group)}"


def _group_records(books: Books) -> list[Record]:
    return [Record(_founded(20 + group), _FIRST_GROUP_ID + group, group) for group in range(len(_GROUPS))]


def _create_group(books: Books, record: Record, query: Query) -> Row:
    name, plans = _GROUPS[record.source]
    return {
        "name": name,
        "uuid": _group_uuid(books, record.source),
        "plans_count": len(plans) * len(DATA_SOURCES),
    }


def _group_plan_records(books: Books) -> list[Record]:
    return [
        record._replace(source=record.source._replace(group=_group_uuid(books, group)))
        for group, (_, plans) in enumerate(_GROUPS)
        for record in _plan_records(books)
        if PLANS[record.source.plan].external_id in plans
    ]


DATA_SOURCES_LIST = ListDefinition(
    name="data_sources",
    path="/data_sources",
    root="data_sources",
    records=_data_source_records,
    create_row=_create_data_source,
    filters={"name": equals("name"), "system": equals("system")},
    oldest_first=True,
    is_paged=False,
)

PLANS_LIST = ListDefinition(
    name="plans",
    path="/plans",
    root="plans",
    records=_plan_records,
    create_row=_create_plan,
    filters={
        "data_source_uuid": equals("data_source_uuid"),
        "external_id": equals("external_id"),
        "system": lambda books, record, row, value: DATA_SOURCES[record.source.data_source].system == value,
    },
    first_page=WITH_PAGES,
)

PLAN_GROUPS = ListDefinition(
    name="plan_groups",
    path="/plan_groups",
    root="plan_groups",
    records=_group_records,
    create_row=_create_group,
    first_page=WITH_PAGES,
)

PLAN_GROUP_PLANS = ListDefinition(
    name="plan_group_plans",
    path="/plan_groups/{plan_group_uuid}/plans",
    root="plans",
    records=_group_plan_records,
    create_row=_create_group_plan,
    filters={"plan_group_uuid": lambda books, record, row, value: record.source.group == value},
    first_page=WITH_PAGES,
    parent="plan_groups",
)
