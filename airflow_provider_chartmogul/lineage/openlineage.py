# SPDX-License-Identifier: Apache-2.0
"""
The datasets that OpenLineage gets for a transfer.

https://openlineage.io/docs/spec/naming defines the namespaces of object stores. It has none for ChartMogul, which gets
the API's host. Only the OpenLineage provider calls this module, and only this module needs that provider.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.openlineage.facet import (
    Dataset,
    OutputDataset,
    OutputStatisticsOutputDatasetFacet,
    SchemaDatasetFacet,
    SchemaDatasetFacetFields,
)
from airflow.providers.openlineage.extractors.base import OperatorLineage

from airflow_provider_chartmogul.storage.delivery import TransferResult

#: OpenLineage's name of a store, where it is not the URI's scheme.
_NAMESPACES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "abfss"}


def operator_lineage(result: TransferResult | None) -> OperatorLineage[Any, Any]:
    """
    Return the input and output datasets of a transfer.

    :param result: ``None`` if nothing was transferred, which has neither
    """
    if result is None:
        return OperatorLineage()
    source = urlsplit(result.source_uri)
    metadata = result.metadata
    columns = [SchemaDatasetFacetFields(name=column) for column in metadata["columns"] or ()]
    scheme = metadata["uri"].partition("://")[0]
    namespace = "file" if scheme == "file" else f"{_NAMESPACES.get(scheme, scheme)}://{metadata['bucket']}"
    return OperatorLineage(
        inputs=[Dataset(namespace=f"{source.scheme}://{source.netloc}", name=source.path.lstrip("/"))],
        outputs=[
            OutputDataset(
                namespace=namespace,
                name=metadata["key"],
                facets={"schema": SchemaDatasetFacet(fields=columns)} if columns else {},
                outputFacets={
                    "outputStatistics": OutputStatisticsOutputDatasetFacet(
                        rowCount=metadata["rows"], size=metadata["bytes"], fileCount=1
                    )
                },
            )
        ],
    )
