# SPDX-License-Identifier: Apache-2.0
"""Rows of `/customers`: customers by the date of their first subscription, then leads."""

from __future__ import annotations

from airflow_provider_chartmogul.sandbox.company.billing import DATA_SOURCES, data_source_uuid
from airflow_provider_chartmogul.sandbox.company.books import Books, Party
from airflow_provider_chartmogul.sandbox.company.clock import DAY, with_milliseconds, with_offset
from airflow_provider_chartmogul.sandbox.company.identity import choose, pick
from airflow_provider_chartmogul.sandbox.company.people import OWNERS, person, place_in
from airflow_provider_chartmogul.sandbox.resources.definition import ListDefinition, Query, Record, Row, equals

_FIRST_ID = 114_167_450
_LEAD_STATUSES = ("New Lead", "Working Lead", "Qualified Lead", "Unqualified Lead")
_TAGS = ("managed", "auto-churned-delinquent-subscription", "merged-customer", 'says "hi", often')


def customer_id(party: Party) -> int:
    """Return the numeric ID of a customer or lead."""
    return _FIRST_ID + party.number


def _records(books: Books) -> list[Record]:
    return [
        Record(
            created=None if party.customer_since is None else party.customer_since * 1_000_000,
            id=customer_id(party),
            source=party,
        )
        for party in books.parties
    ]


def _create_row(books: Books, record: Record, query: Query) -> Row:
    party: Party = record.source
    names = (books.company, party.number)
    data_source = DATA_SOURCES[party.data_source]
    source_uuid = data_source_uuid(books.company, party.data_source)
    # Of a merged customer, the lists of data sources and of external IDs belong together and may repeat an entry.
    other_ids = [f"{party.external_id}-merged"] if pick(10, *names, "merged") == 0 else []
    place = place_in(party.country)
    has_company = bool(party.company) and pick(10, *names, "company") > 0
    company = party.company if has_company else ""
    # An activity's customer name is the company, or the customer's own name where it has no company.
    name = person(*names).name if has_company or not party.company else party.company
    email = "" if pick(8, *names, "email") == 0 else f"customer-{party.number + 1}@example.com"
    lead_created = trial_started = None
    if party.customer_since is None or pick(3, *names, "lead") > 0:
        known_at = party.known_at * 1_000_000
        lead_created = with_milliseconds(known_at - 30 * DAY * 1_000_000)
        trial_started = with_milliseconds(known_at - 14 * DAY * 1_000_000) if pick(2, *names, "trial") else None
    slug = (company or name).replace(" ", "_")
    return {
        "id": record.id,
        "uuid": party.uuid,
        "external_id": party.external_id,
        "name": name,
        "email": email,
        "status": _status(party, *names),
        "customer-since": None if record.created is None else with_offset(record.created // 1_000_000),
        "attributes": {
            "custom": _custom_attributes(*names),
            "clearbit": {},
            "stripe": {},
            "tags": [tag for tag in _TAGS if pick(4, *names, tag) == 0],
        },
        "data_source_uuid": source_uuid,
        "data_source_uuids": [source_uuid] * (1 + len(other_ids)),
        "external_ids": [party.external_id, *other_ids],
        "company": company,
        "country": party.country,
        "state": place.state_code,
        "city": place.city,
        "zip": place.zip,
        "lead_created_at": lead_created,
        "free_trial_started_at": trial_started,
        "address": {"country": place.country, "state": place.state, "city": place.city, "address_zip": place.zip},
        "mrr": party.mrr,
        "arr": 12 * party.mrr,
        "billing-system-url": None,
        "chartmogul-url": f"https://app.chartmogul.com/#/customers/{record.id}-{slug}",
        "billing-system-type": data_source.billing_system_type,
        "currency": "EUR",
        "currency-sign": "€",
        "owner": choose((*OWNERS, None), *names, "owner"),
    }


def _status(party: Party, *names: object) -> str:
    if party.customer_since is None:
        return choose(_LEAD_STATUSES, *names, "status")
    if party.mrr <= 0:
        return "Cancelled"
    return "Past Due" if pick(20, *names, "status") == 0 else "Active"


def _custom_attributes(*names: object) -> Row:
    """Return custom attributes: users choose their names and types, and not every customer has each."""
    attributes = {
        "CAC": 100 + pick(900, *names, "CAC"),
        "Health score": pick(1000, *names, "health") / 10,
        "Toggle": pick(2, *names, "toggle") == 0,
        "utmCampaign": choose(("social media 1", "Frühling & Co", ""), *names, "campaign"),
        "Contract signed": f"20{18 + pick(8, *names, 'signed')}-03-01T00:00:00.000Z",
    }
    return {name: value for name, value in attributes.items() if pick(3, *names, "has", name) == 0}


CUSTOMERS = ListDefinition(
    name="customers",
    path="/customers",
    root="entries",
    records=_records,
    create_row=_create_row,
    filters={
        "data_source_uuid": lambda books, record, row, value: value in row["data_source_uuids"],
        "external_id": lambda books, record, row, value: value in row["external_ids"],
        "status": lambda books, record, row, value: row["status"] == value.replace("_", " "),
        "system": equals("billing-system-type"),
    },
    first_page=("current_page", "total_pages", "has_more", "per_page", "page", "cursor"),
    oldest_first=True,
)
