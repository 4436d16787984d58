# SPDX-License-Identifier: Apache-2.0
"""What the operators have in common that move a finished export to object storage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.operators.base import ChartMogulOperator
from airflow_provider_chartmogul.runtime.cancellation import Cancellation

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg
    from airflow.providers.openlineage.extractors.base import OperatorLineage

    from airflow_provider_chartmogul.intervals.interval import Interval
    from airflow_provider_chartmogul.storage.delivery import Moved, Transfer


class ToObjectStorageOperator(ChartMogulOperator):
    """
    Moves a finished export to object storage, as one object.

    What the parameters mean stands in the operators' own docstrings.
    """

    template_fields: Sequence[str] = (
        "destination",
        "object_storage_conn_id",
        "output_format",
        "if_exists",
        "column_types",
        "download_dir",
        "upload_options",
        "chartmogul_conn_id",
    )
    template_fields_renderers = {"upload_options": "json", "column_types": "json"}  # noqa: RUF012

    def __init__(
        self,
        *,
        destination: str | XComArg,
        object_storage_conn_id: str | None = None,
        output_format: str | None = None,
        if_exists: str = "overwrite",
        column_types: dict[str, str] | None = None,
        download_dir: str | None = None,
        upload_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.destination: Any = destination
        self.object_storage_conn_id = object_storage_conn_id
        self.output_format = output_format
        self.if_exists = if_exists
        self.column_types = column_types
        self.download_dir = download_dir
        self.upload_options = upload_options
        self._cancellation = Cancellation()
        self._moved: Moved | None = None

    def _make_transfer(self) -> Transfer:
        """Check what the task was told; see ``Transfer`` for the errors."""
        # Loaded here, so that reading a DAG loads no file systems.
        from airflow_provider_chartmogul.storage.delivery import Transfer

        return Transfer(
            destination=self.destination,
            chartmogul_conn_id=self.chartmogul_conn_id,
            object_storage_conn_id=self.object_storage_conn_id,
            output_format=self.output_format,
            if_exists=self.if_exists,
            column_types=self.column_types,
            download_dir=self.download_dir,
            upload_options=self.upload_options,
        )

    def _move(
        self,
        context: Context,
        transfer: Transfer,
        hook: ChartMogulHook,
        export_id: str,
        asked: tuple[Interval, str | None] | None = None,
    ) -> str:
        """Move the export, tell of it, and give the object's URI."""
        is_retry = context["ti"].try_number > 1
        moved = transfer.move(hook, export_id, self.log, self._cancellation, is_retry=is_retry, asked=asked)
        if not moved.found:
            self._moved = moved
            _report_lineage(moved, hook)
        return self._finish(context, moved)

    def _finish(self, context: Context, moved: Moved) -> str:
        """Tell the tasks after this one of the object."""
        # A later try may find what an earlier one has written and, killed right behind that, told nobody of.
        if moved.found and self.if_exists == "skip" and context["ti"].try_number == 1:
            raise AirflowSkipException(f"{moved.uri} exists already, and if_exists is 'skip'")
        context["ti"].xcom_push(key="object", value=moved.facts)
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra.update(moved.facts)
        return moved.uri

    def on_kill(self) -> None:
        """End the download or the upload that is under way; return when nothing of it can appear any more."""
        self._cancellation.cancel()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Give OpenLineage its datasets: ChartMogul's activities, and the object that was made of them."""
        from airflow_provider_chartmogul.lineage.openlineage import operator_lineage

        return operator_lineage(self._moved)


def _report_lineage(moved: Moved, hook: ChartMogulHook) -> None:
    from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector

    collector = get_hook_lineage_collector()
    collector.add_input_asset(context=hook, uri=moved.source_uri)
    collector.add_output_asset(context=hook, uri=moved.uri)
