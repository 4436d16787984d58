# SPDX-License-Identifier: Apache-2.0
"""
Assets of ChartMogul. Each source has one URI, ``chartmogul://<host>/<resource>``.

The provider's metadata (``asset-uris``) registers the functions of this module with Airflow, which imports it in every
process that creates an asset of any provider. It therefore imports only the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

if TYPE_CHECKING:
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.common.compat.sdk import Asset

_SCHEME = "chartmogul"

#: The port of https, which is left out of the URI.
_DEFAULT_PORT = 443


def asset_uri(base_url: str, resource: str) -> str:
    """
    Return the URI of a resource's asset, as lineage reports it.

    :param base_url: base URL of the API
    :param resource: name of the resource, such as ``activities``
    """
    return sanitize_uri(SplitResult(_SCHEME, urlsplit(base_url).netloc, f"/{resource}", "", "")).geturl()


def create_asset(*, resource: str, host: str = "api.chartmogul.com", extra: dict[str, Any] | None = None) -> Asset:
    """
    Create the asset of a resource.

    :param resource: name of the resource, such as ``activities``
    :param host: host of the API, with the port unless that is 443
    :param extra: the asset's ``extra``
    """
    from airflow.providers.common.compat.sdk import Asset

    return Asset(uri=f"{_SCHEME}://{host}/{resource}", extra=extra)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """
    Normalize the URI of an asset: the host in lower case, no user, no default port.

    :raises ValueError: if the URI has no host, or its path is not the name of a resource
    """
    resource = uri.path.strip("/")
    if not uri.hostname or not resource or "/" in resource:
        raise ValueError(
            f"chartmogul://{uri.hostname or ''}{uri.path} is not the URI of a ChartMogul asset: write "
            "chartmogul://<host>/<resource>, such as chartmogul://api.chartmogul.com/activities"
        )
    host = f"[{uri.hostname}]" if ":" in uri.hostname else uri.hostname
    port = "" if uri.port in (None, _DEFAULT_PORT) else f":{uri.port}"
    return uri._replace(scheme=_SCHEME, netloc=f"{host}{port}", path=f"/{resource}")


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> Dataset:
    """
    Return the OpenLineage dataset of an asset.

    :param asset: an asset with a URI of this provider
    :param lineage_context: the hook or operator, which is not used
    """
    return openlineage_dataset(asset.uri)


def openlineage_dataset(uri: str) -> Dataset:
    """
    Return the OpenLineage dataset of an asset's URI.

    OpenLineage's naming convention has no namespace for ChartMogul, so this is the API's host.
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset

    parsed = urlsplit(uri)
    return Dataset(namespace=f"{_SCHEME}://{parsed.netloc}", name=parsed.path.lstrip("/"))
