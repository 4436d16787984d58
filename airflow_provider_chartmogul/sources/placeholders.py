# SPDX-License-Identifier: Apache-2.0
"""The placeholders of a destination, and their values for an export and for a table of a resource."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_chartmogul.api.resources import Resource, Table
    from airflow_provider_chartmogul.sources.activities_export import ActivitiesExportSource
    from airflow_provider_chartmogul.sources.resource import ResourceSource

#: The placeholders for an activities export.
EXPORT_PLACEHOLDERS = ("interval_start", "interval_end", "activity_type", "export_id", "chartmogul_conn_id")


def export_values(source: ActivitiesExportSource) -> dict[str, Any]:
    """
    Return the values of ``EXPORT_PLACEHOLDERS``; ``None`` for an open end of the window.

    The ID of an export that has not been created yet is its own placeholder.
    """
    return {
        "interval_start": source.request.start,
        "interval_end": source.request.end,
        # The API may echo a type that would create folders.
        "activity_type": re.sub(r"[^\w-]", "_", source.request.activity_type or "all"),
        "export_id": source.export.id if source.export else "{export_id}",
        "chartmogul_conn_id": source.chartmogul_conn_id,
    }


def resource_placeholders(resource: Resource) -> tuple[str, ...]:
    """Return the placeholders for a resource."""
    window = ("interval_start", "interval_end") if resource.has_window else ()
    return ("resource", "table", "extracted_at", *window, "chartmogul_conn_id")


def resource_values(source: ResourceSource, table: Table) -> dict[str, Any]:
    """Return the values of ``resource_placeholders`` for a table."""
    return {
        "resource": source.resource.name,
        "table": table.name,
        "extracted_at": source.extracted_at,
        "interval_start": source.interval and source.interval.start,
        "interval_end": source.interval and source.interval.end,
        "chartmogul_conn_id": source.chartmogul_conn_id,
    }
