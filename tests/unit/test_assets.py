# SPDX-License-Identifier: Apache-2.0
"""Assets of ChartMogul: each source has one URI, however it is written, and one name in OpenLineage."""

from __future__ import annotations

from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

import pytest
from airflow.providers.common.compat.sdk import Asset
from airflow.providers.openlineage.utils.utils import translate_airflow_asset

from airflow_provider_chartmogul.get_provider_info import get_provider_info
from airflow_provider_chartmogul.lineage.assets import (
    asset_uri,
    convert_asset_to_openlineage,
    create_asset,
    sanitize_uri,
)
from tests.unit.values import run_python

URI = "chartmogul://api.chartmogul.com/activities"


@pytest.mark.parametrize(
    "uri",
    [
        URI,
        "chartmogul://api.chartmogul.com/activities/",
        "chartmogul://API.ChartMogul.com/activities",
        "ChartMogul://api.chartmogul.com:443/activities",
        "chartmogul://user@api.chartmogul.com/activities",
        "chartmogul://api.chartmogul.com/activities#now",
    ],
)
def test_spellings_of_a_uri_are_one_asset(uri: str) -> None:
    assert Asset(uri).uri == URI


@pytest.mark.parametrize(
    ("uri", "normalized"),
    [
        ("chartmogul://127.0.0.1:8080/customers", "chartmogul://127.0.0.1:8080/customers"),
        ("chartmogul://[::1]:8080/customers", "chartmogul://[::1]:8080/customers"),
    ],
)
def test_other_hosts_keep_their_port(uri: str, normalized: str) -> None:
    assert sanitize_uri(urlsplit(uri)).geturl() == normalized


@pytest.mark.parametrize(
    "uri",
    [
        "chartmogul://activities",
        "chartmogul:///activities",
        "chartmogul://api.chartmogul.com",
        "chartmogul://api.chartmogul.com/",
        "chartmogul://api.chartmogul.com/v1/activities",
        "chartmogul://api.chartmogul.com:x/activities",
    ],
)
def test_uri_without_host_or_resource_is_rejected(uri: str) -> None:
    with pytest.raises(ValueError, match=r"chartmogul://<host>/<resource>|[Pp]ort"):
        sanitize_uri(urlsplit(uri))


def test_factory_creates_the_asset_of_a_resource() -> None:
    assert create_asset(resource="activities").uri == URI
    asset = create_asset(resource="customers", host="127.0.0.1:8080", extra={"team": "data"})
    assert (asset.uri, asset.extra) == ("chartmogul://127.0.0.1:8080/customers", {"team": "data"})


@pytest.mark.parametrize("base_url", ["https://api.chartmogul.com", "https://API.chartmogul.com:443"])
def test_lineage_reports_the_uri_of_the_asset(base_url: str) -> None:
    assert asset_uri(base_url, "activities") == URI


def test_openlineage_provider_converts_the_asset() -> None:
    dataset = translate_airflow_asset(create_asset(resource="activities"), None)
    assert dataset is not None
    assert (dataset.namespace, dataset.name) == ("chartmogul://api.chartmogul.com", "activities")


def providers_manager() -> Any:
    """Return the manager that tasks use."""
    try:
        return import_module("airflow.sdk.providers_manager_runtime").ProvidersManagerTaskRuntime()
    except ImportError:  # Airflow before 3.2
        return import_module("airflow.providers_manager").ProvidersManager()


def test_provider_registers_handler_factory_and_converter() -> None:
    manager = providers_manager()
    kind = "asset" if hasattr(manager, "asset_uri_handlers") else "dataset"  # Airflow 2
    assert getattr(manager, f"{kind}_uri_handlers")["chartmogul"] is sanitize_uri
    assert getattr(manager, f"{kind}_factories")["chartmogul"] is create_asset
    assert getattr(manager, f"{kind}_to_openlineage_converters")["chartmogul"] is convert_asset_to_openlineage
    info = get_provider_info()
    assert info["asset-uris"] == info["dataset-uris"]  # Airflow 2 reads the latter


def test_handler_loads_no_other_module() -> None:
    """Every process that creates an asset of any provider imports it."""
    program = (
        "import sys\n"
        "import airflow_provider_chartmogul.lineage.assets\n"
        "print(*sorted(name for name in sys.modules if name.partition('.')[0] in "
        "('airflow', 'airflow_provider_chartmogul')))\n"
    )
    assert run_python(program).split() == [
        "airflow_provider_chartmogul",
        "airflow_provider_chartmogul.lineage",
        "airflow_provider_chartmogul.lineage.assets",
    ]
