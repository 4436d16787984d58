# SPDX-License-Identifier: Apache-2.0
"""The metadata by which Airflow knows this package as a provider."""

from __future__ import annotations

from typing import Any

from airflow_provider_chartmogul import __version__

_INTEGRATION = "ChartMogul"


_PACKAGE = "airflow_provider_chartmogul"


def get_provider_info() -> dict[str, Any]:
    """
    Give Airflow the provider's metadata (entry point ``apache_airflow_provider``).

    The keys are those of Airflow's ``provider_info.schema.json``; ``ui-field-behaviour`` and ``conn-fields``
    of a connection type are read by Airflow 3.2 and later, which draws the form without importing the hook.
    """
    return {
        "package-name": "airflow-provider-chartmogul",
        "name": "ChartMogul",
        "description": "Moves `ChartMogul <https://chartmogul.com/>`__ activities into object storage.",
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
                    # The form would be better without two more. The base URL can say the port, but Airflow 3.3.1 and
                    # 3.3.2 refuse to test a saved connection that has none (apache/airflow#73298); when those two are
                    # gone, hide it here, and drop what the hook does about it. And Airflow 2's page breaks its own
                    # Test button where extra is hidden; Airflow 3 shows it whatever stands here.
                    "hidden-fields": ["login", "schema"],
                    "relabeling": {"password": "API key", "host": "Base URL"},
                    "placeholders": {
                        "host": "https://api.chartmogul.com",
                        "password": "in ChartMogul: Profile, API keys",
                        "port": "443; fill it in to test the connection on Airflow 3.3",
                    },
                },
                "conn-fields": {
                    "timeout": {
                        "label": "Timeout in seconds",
                        "description": "For a connection to be made, and for each answer. Empty: 30.",
                        "schema": {"type": ["number", "null"], "default": 30, "exclusiveMinimum": 0},
                    },
                    "requests_per_second": {
                        "label": "Requests per second",
                        "description": "At most this many in each Airflow process; the account has 40. Empty: 10.",
                        "schema": {"type": ["number", "null"], "default": 10, "exclusiveMinimum": 0},
                    },
                    "max_connections": {
                        "label": "Connections at a time",
                        "description": "At most this many in each Airflow process; the account has 20. Empty: 4.",
                        "schema": {"type": ["integer", "null"], "default": 4, "minimum": 1},
                    },
                },
            }
        ],
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
        ],
    }
