# SPDX-License-Identifier: Apache-2.0
"""The metadata that registers this package with Airflow as a provider."""

from __future__ import annotations

from typing import Any

from airflow_provider_chartmogul import __version__

_INTEGRATION = "ChartMogul"

_PACKAGE = "airflow_provider_chartmogul"

#: How Airflow handles the URIs of ChartMogul's assets.
_ASSET_URI = {
    "schemes": ["chartmogul"],
    "handler": f"{_PACKAGE}.lineage.assets.sanitize_uri",
    "factory": f"{_PACKAGE}.lineage.assets.create_asset",
    "to_openlineage_converter": f"{_PACKAGE}.lineage.assets.convert_asset_to_openlineage",
}


def get_provider_info() -> dict[str, Any]:
    """
    Return the provider's metadata (entry point ``apache_airflow_provider``).

    Airflow's ``provider_info.schema.json`` defines the keys. Airflow 3.2 and later reads ``ui-field-behaviour`` and
    ``conn-fields`` of a connection type, to draw the form without importing the hook.
    """
    return {
        "package-name": "airflow-provider-chartmogul",
        "name": "ChartMogul",
        # Airflow's page shows the link's address after its text, so it comes last.
        "description": "Brings data into object storage and warehouses from `ChartMogul <https://chartmogul.com/>`__",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://dev.chartmogul.com/",
                "tags": ["service"],
            }
        ],
        "connection-types": [
            {
                "connection-type": "chartmogul",
                "hook-class-name": f"{_PACKAGE}.hooks.chartmogul.ChartMogulHook",
                "hook-name": "ChartMogul",
                "ui-field-behaviour": {
                    # Two more fields should be hidden. The base URL can include the port, but Airflow 3.3.1 and 3.3.2
                    # do not test a saved connection without one (apache/airflow#73298). Once neither is supported any
                    # more, hide the port here, and remove its special treatment from the hook. Hiding extra would
                    # break the Test button of Airflow 2; Airflow 3 always shows it.
                    "hidden-fields": ["login", "schema"],
                    "relabeling": {"password": "API key", "host": "Base URL"},
                    "placeholders": {
                        "host": "https://api.chartmogul.com",
                        "password": "in ChartMogul: Profile, API keys",
                        "port": "443 (optional; the Test button of Airflow 3.3 requires it)",
                    },
                },
                "conn-fields": {
                    "timeout": {
                        "label": "Timeout in seconds",
                        "description": "How long to wait for a connection, and for each response. Default: 30.",
                        "schema": {"type": ["number", "null"], "default": 30, "exclusiveMinimum": 0},
                    },
                    "requests_per_second": {
                        "label": "Requests per second",
                        "description": "Limit of each process. All processes share the account's 40. Default: 10.",
                        "schema": {"type": ["number", "null"], "default": 10, "exclusiveMinimum": 0},
                    },
                    "max_connections": {
                        "label": "Maximum connections",
                        "description": "Limit of each process. All processes share the account's 20. Default: 4.",
                        "schema": {"type": ["integer", "null"], "default": 4, "minimum": 1},
                    },
                },
            }
        ],
        "asset-uris": [_ASSET_URI],
        # The same, under the key that Airflow 2 reads.
        "dataset-uris": [_ASSET_URI],
        "hooks": [
            {"integration-name": _INTEGRATION, "python-modules": [f"{_PACKAGE}.hooks.chartmogul"]},
        ],
        "operators": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [f"{_PACKAGE}.operators.activities_export"],
            },
        ],
        "sensors": [
            {"integration-name": _INTEGRATION, "python-modules": [f"{_PACKAGE}.sensors.activities_export"]},
        ],
        "triggers": [
            {"integration-name": _INTEGRATION, "python-modules": [f"{_PACKAGE}.triggers.activities_export"]},
        ],
        "transfers": [
            {
                "source-integration-name": _INTEGRATION,
                "target-integration-name": "Common IO",
                "python-module": f"{_PACKAGE}.transfers.activities_export_to_object_storage",
            },
            {
                "source-integration-name": _INTEGRATION,
                "target-integration-name": "Common IO",
                "python-module": f"{_PACKAGE}.transfers.activities_to_object_storage",
            },
            {
                "source-integration-name": _INTEGRATION,
                "target-integration-name": "Common IO",
                "python-module": f"{_PACKAGE}.transfers.chartmogul_to_object_storage",
            },
            {
                "source-integration-name": _INTEGRATION,
                "target-integration-name": "Common SQL",
                "python-module": f"{_PACKAGE}.transfers.object_storage_to_warehouse",
            },
        ],
    }
