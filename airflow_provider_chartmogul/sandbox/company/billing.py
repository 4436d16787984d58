# SPDX-License-Identifier: Apache-2.0
"""The company's plans and data sources."""

from __future__ import annotations

from typing import NamedTuple

from airflow_provider_chartmogul.sandbox.company.identity import entity_uuid


class Plan(NamedTuple):
    """A plan; `seat_mrr` is a seat's MRR in cents. Whole cents, so that MRR needs no rounding."""

    external_id: str
    name: str
    seat_mrr: int
    interval_unit: str

    @property
    def months(self) -> int:
        """The length of a billing period in months."""
        return 12 if self.interval_unit == "year" else 1


PLANS = (
    Plan("starter-monthly", "Starter", 900, "month"),
    Plan("growth-monthly", "Growth", 2_900, "month"),
    Plan("growth-annual", "Growth, yearly", 2_400, "year"),
    Plan("scale-annual", "Scale, yearly", 7_900, "year"),
)


class DataSource(NamedTuple):
    """A data source; `has_events` is true where subscription events are imported instead of invoices."""

    name: str
    system: str
    billing_system_type: str
    has_events: bool


DATA_SOURCES = (
    DataSource("Billing", "Custom", "Import API", has_events=False),
    DataSource("Subscription events", "Custom", "Import API", has_events=True),
    DataSource("Spreadsheet", "Google Sheets", "Google Sheets", has_events=False),
)


def data_source_of(customer: int) -> int:
    """Return the index of a customer's data source: of eight customers, one is in the second and one in the third."""
    return {1: 1, 4: 2}.get(customer % 8, 0)


def data_source_uuid(company: str, data_source: int) -> str:
    """Return a data source's UUID."""
    return f"ds_{entity_uuid(company, 'data source', data_source)}"


def plan_uuid(company: str, data_source: int, plan: int) -> str:
    """Return a plan's UUID. Each data source has plans of its own with the same external IDs."""
    return f"pl_{entity_uuid(company, 'plan', data_source, plan)}"
