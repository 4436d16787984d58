# SPDX-License-Identifier: Apache-2.0
"""All lists of the sandbox's API."""

from __future__ import annotations

from airflow_provider_chartmogul.sandbox.resources.contacts import CONTACTS
from airflow_provider_chartmogul.sandbox.resources.customers import CUSTOMERS
from airflow_provider_chartmogul.sandbox.resources.definition import ListDefinition
from airflow_provider_chartmogul.sandbox.resources.invoices import INVOICES
from airflow_provider_chartmogul.sandbox.resources.plans import (
    DATA_SOURCES_LIST,
    PLAN_GROUP_PLANS,
    PLAN_GROUPS,
    PLANS_LIST,
)
from airflow_provider_chartmogul.sandbox.resources.relations import CUSTOMER_NOTES, NOTES, OPPORTUNITIES, TASKS
from airflow_provider_chartmogul.sandbox.resources.subscription_events import SUBSCRIPTION_EVENTS

LISTS: dict[str, ListDefinition] = {
    definition.name: definition
    for definition in (
        DATA_SOURCES_LIST,
        CUSTOMERS,
        CONTACTS,
        PLANS_LIST,
        PLAN_GROUPS,
        PLAN_GROUP_PLANS,
        INVOICES,
        SUBSCRIPTION_EVENTS,
        NOTES,
        CUSTOMER_NOTES,
        OPPORTUNITIES,
        TASKS,
    )
}
"""The lists by name."""
