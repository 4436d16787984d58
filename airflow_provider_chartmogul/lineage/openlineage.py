# SPDX-License-Identifier: Apache-2.0
"""
The datasets that OpenLineage gets for a transfer.

https://openlineage.io/docs/spec/naming defines the namespaces of object stores; ``assets.py`` defines ChartMogul's.
Only the OpenLineage provider calls this module, and only this module needs that provider.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.providers.common.compat.openlineage.facet import (
    OutputDataset,
    OutputStatisticsOutputDatasetFacet,
    SchemaDatasetFacet,
    SchemaDatasetFacetFields,
)
from airflow.providers.openlineage.extractors.base import OperatorLineage

from airflow_provider_chartmogul.lineage.assets import openlineage_dataset
from airflow_provider_chartmogul.storage.delivery import TransferResult

#: OpenLineage's name of a store, where it is not the URI's scheme.
_NAMESPACES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "abfss"}


def operator_lineage(results: Sequence[TransferResult]) -> OperatorLineage[Any, Any]:
    """
    Return the input and output datasets of a transfer.

    :param results: the objects that were written; none give neither
    """
    return OperatorLineage(
        inputs=[openlineage_dataset(uri) for uri in dict.fromkeys(result.source_uri for result in results)],
        outputs=[_output_dataset(result) for result in results],
    )


def _output_dataset(result: TransferResult) -> OutputDataset:
    metadata = result.metadata
    types = result.column_types or {}
    columns = [SchemaDatasetFacetFields(name=name, type=types.get(name)) for name in metadata["columns"] or ()]
    scheme = metadata["uri"].partition("://")[0]
    return OutputDataset(
        namespace="file" if scheme == "file" else f"{_NAMESPACES.get(scheme, scheme)}://{metadata['bucket']}",
        name=metadata["key"],
        facets={"schema": SchemaDatasetFacet(fields=columns)} if columns else {},
        outputFacets={
            "outputStatistics": OutputStatisticsOutputDatasetFacet(
                rowCount=metadata["rows"], size=metadata["bytes"], fileCount=1
            )
        },
    )
