# SPDX-License-Identifier: Apache-2.0
"""
What OpenLineage is told of a move: the datasets, in its naming.

https://openlineage.io/docs/spec/naming has the namespaces of object stores; ChartMogul has none there, and gets the
API's host. This module is loaded by the OpenLineage provider's call only, and needs it.
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

from airflow_provider_chartmogul.storage.delivery import Moved

#: OpenLineage's name of a store, where it is not the scheme.
_NAMESPACES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "abfss"}


def operator_lineage(moved: Moved | None) -> OperatorLineage[Any, Any]:
    """
    Give input and output of a move.

    :param moved: None, where nothing was moved, gives neither
    """
    if moved is None:
        return OperatorLineage()
    source = urlsplit(moved.source_uri)
    facts = moved.facts
    columns = [SchemaDatasetFacetFields(name=column) for column in facts["columns"] or ()]
    scheme = facts["uri"].partition("://")[0]
    namespace = "file" if scheme == "file" else f"{_NAMESPACES.get(scheme, scheme)}://{facts['bucket']}"
    return OperatorLineage(
        inputs=[Dataset(namespace=f"{source.scheme}://{source.netloc}", name=source.path.lstrip("/"))],
        outputs=[
            OutputDataset(
                namespace=namespace,
                name=facts["key"],
                facets={"schema": SchemaDatasetFacet(fields=columns)} if columns else {},
                outputFacets={
                    "outputStatistics": OutputStatisticsOutputDatasetFacet(
                        rowCount=facts["rows"], size=facts["bytes"], fileCount=1
                    )
                },
            )
        ],
    )
