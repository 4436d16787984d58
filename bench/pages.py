# SPDX-License-Identifier: Apache-2.0
"""
Pages of customers and invoices for benchmarks, as ChartMogul sends them, with the same bytes every time.

Keys are those of recorded responses. The values are as varied as real ones: random IDs, names with commas, quotes and
letters outside ASCII, amounts that are not round, custom attributes that only some customers have. The pages are kept
for the next benchmark.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.archives import CURRENCIES, NAMES, WORDS, billing_id, random_uuid

#: Part of the folders' names. Changing it causes the pages to be created again.
VERSION = 1

PAGE_SIZE = 200

Row = dict[str, Any]

_START = datetime(2018, 1, 1, tzinfo=UTC)
_STATUSES = ("Active", "Active", "Active", "Past Due", "Cancelled", "New Lead")
_PLACES = (
    ("DE", "Germany", "BE", "Berlin"),
    ("US", "United States", "CA", "Mountain View"),
    ("JP", "Japan", "", "大阪"),
)
_TAGS = ("managed", "auto-churned-delinquent-subscription", "merged-customer", 'says "hi", often')


def pages_of(resource: str, rows: int, folder: Path) -> Path:
    """
    Return the folder of a list's pages, ``00000.json`` and so on; they are created if they are missing.

    :param resource: ``customers`` or ``invoices``
    :param rows: number of rows
    :param folder: folder for the pages of all benchmarks, created if it is missing
    """
    pages = folder / f"{resource}-{VERSION}-{rows}"
    if pages.exists():
        return pages
    unfinished = pages.with_suffix(".unfinished")
    unfinished.mkdir(parents=True, exist_ok=True)
    key, create_row = _LISTS[resource]
    for number, page in enumerate(_pages(key, create_row, rows)):
        (unfinished / f"{number:05}.json").write_bytes(page)
    return unfinished.rename(pages)


def page_count(rows: int) -> int:
    """Return the number of pages, and therefore of requests, of a list."""
    return -(-rows // PAGE_SIZE)


def _pages(key: str, create_row: Callable[[random.Random, int], Row], rows: int) -> Iterator[bytes]:
    rng = random.Random(1)
    count = page_count(rows)
    for page in range(count):
        numbers = range(page * PAGE_SIZE, min(rows, (page + 1) * PAGE_SIZE))
        body = {
            key: [create_row(rng, number) for number in numbers],
            "has_more": page + 1 < count,
            # The last page has a cursor, too, which leads to an empty page.
            "cursor": f"{page + 1:05}",
        }
        yield json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _customer(rng: random.Random, number: int) -> Row:
    name = rng.choice(NAMES).format(rng.choice(WORDS), rng.choice(WORDS))
    currency, sign = rng.choice(CURRENCIES)
    country, country_name, state, city = rng.choice(_PLACES)
    external_id, source, mrr = f"cus_{billing_id(rng, 10)}", f"ds_{random_uuid(rng)}", rng.randrange(500_000)
    since = _START + timedelta(minutes=10 * number)
    is_merged = rng.random() < 0.1
    custom = {
        "CAC": rng.randrange(100, 1000),
        "Health score": rng.randrange(1000) / 10,
        "Toggle": rng.random() < 0.5,
        "utmCampaign": "Frühling & Co",
        "Contract signed": f"20{rng.randrange(18, 26)}-03-01T00:00:00.000Z",
    }
    return {
        "id": 114_167_450 + number,
        "uuid": f"cus_{random_uuid(rng)}",
        "external_id": external_id,
        "name": name,
        "email": f"billing-{number}@example.com",
        "status": rng.choice(_STATUSES),
        "customer-since": since.isoformat(),
        "attributes": {
            "custom": {key: value for key, value in custom.items() if rng.random() < 0.4},
            "clearbit": {},
            "stripe": {},
            "tags": [tag for tag in _TAGS if rng.random() < 0.25],
        },
        "data_source_uuid": source,
        "data_source_uuids": [source] * (1 + is_merged),
        "external_ids": [external_id, f"{external_id}-merged"][: 1 + is_merged],
        "company": name,
        "country": country,
        "state": state,
        "city": city,
        "zip": f"{rng.randrange(100_000):05}",
        "lead_created_at": f"{since:%Y-%m-%dT%H:%M:%S}.000Z",
        "free_trial_started_at": None,
        "address": {"country": country_name, "state": state, "city": city, "address_zip": ""},
        "mrr": mrr,
        "arr": 12 * mrr,
        "billing-system-url": None,
        "chartmogul-url": f"https://app.chartmogul.com/#/customers/{114_167_450 + number}",
        "billing-system-type": "Google Sheets",
        "currency": currency,
        "currency-sign": sign,
        "owner": rng.choice(("ada@example.com", None)),
    }


def _invoice(rng: random.Random, number: int) -> Row:
    moment = _START + timedelta(minutes=30 * number)
    date = f"{moment:%Y-%m-%dT%H:%M:%S}.000Z"
    return {
        "uuid": f"inv_{random_uuid(rng)}",
        "external_id": f"in_{billing_id(rng, 15)}",
        "date": date,
        "due_date": f"{moment + timedelta(days=14):%Y-%m-%dT%H:%M:%S}.000Z",
        "currency": rng.choice(CURRENCIES)[0],
        "customer_uuid": f"cus_{random_uuid(rng)}",
        "errors": {},
        "line_items": [_line_item(rng, moment) for _ in range(rng.choice((1, 1, 2, 3)))],
        "transactions": [
            {
                "uuid": f"tr_{random_uuid(rng)}",
                "external_id": f"pi_{billing_id(rng, 15)}",
                "type": "payment",
                "date": date,
                "result": "successful",
                "amount_in_cents": None,
                "transaction_fees_in_cents": None,
                "transaction_fees_currency": None,
            }
        ][: rng.choice((0, 1, 1, 1))],
    }


def _line_item(rng: random.Random, moment: datetime) -> Row:
    amount = rng.randrange(100, 1_000_000)
    return {
        "subscription_uuid": f"sub_{random_uuid(rng)}",
        "subscription_external_id": f"sub_{billing_id(rng, 10)}",
        "prorated": rng.random() < 0.1,
        "proration_type": None,
        "service_period_start": f"{moment:%Y-%m-%dT%H:%M:%S}.000Z",
        "service_period_end": f"{moment + timedelta(days=30):%Y-%m-%dT%H:%M:%S}.000Z",
        "uuid": f"li_{random_uuid(rng)}",
        "external_id": None,
        "type": "subscription",
        "amount_in_cents": amount,
        "quantity": rng.randrange(1, 500),
        "discount_code": "",
        "discount_amount_in_cents": 0,
        "tax_amount_in_cents": amount // 5,
        "transaction_fees_in_cents": 0,
        "account_code": "",
        "plan_uuid": f"pl_{random_uuid(rng)}",
        "transaction_fees_currency": None,
        "discount_description": None,
        "event_order": None,
        "balance_transfer": None,
    }


_LISTS: dict[str, tuple[str, Callable[[random.Random, int], Row]]] = {
    "customers": ("entries", _customer),
    "invoices": ("invoices", _invoice),
}
