# SPDX-License-Identifier: Apache-2.0
"""
Report a published object to Airflow: events of the task's outlets, and hook lineage.

Each report is made on its own, and a failure is logged: the object is there, so the task must not fail.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Asset, AssetAlias

from airflow_provider_chartmogul.runtime.task_log import TaskLog
from airflow_provider_chartmogul.storage.delivery import TransferResult

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseHook


def report_transfer(
    context: Mapping[str, Any],
    outlets: Sequence[Any],
    hook: BaseHook,
    results: Sequence[TransferResult],
    log: TaskLog,
    *,
    partition_key: str | None = None,
) -> None:
    """
    Report the objects of a transfer.

    :param context: the task's context
    :param outlets: the task's outlets; events of assets carry the metadata of the main object as their ``extra``, an
        alias gets an event for that object's own URI, and outlets of other kinds are left alone
    :param hook: the hook that the lineage is attributed to
    :param results: the objects, the main one first; those that already existed have no lineage
    :param partition_key: the partition key for events of assets (Airflow 3.3 and later); ``None`` gives them none. On
        aliases, Airflow does not support keys
    """
    for outlet in outlets:
        with _logged_failure(log, f"the event of outlet {outlet!r}"):
            _add_outlet_event(context["outlet_events"], outlet, results[0], partition_key)
    with _logged_failure(log, "the lineage"):
        from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector

        collector = get_hook_lineage_collector()
        for result in results:
            if not result.already_existed:
                collector.add_input_asset(context=hook, uri=result.source_uri)
                collector.add_output_asset(context=hook, uri=result.uri)


def _add_outlet_event(events: Any, outlet: Any, result: TransferResult, partition_key: str | None) -> None:
    if isinstance(outlet, AssetAlias):
        events[outlet].add(Asset(result.uri), extra=dict(result.metadata))
        return
    try:
        accessor = events[outlet]
    except TypeError:
        # Neither an asset nor a reference to one: an entity of Airflow's older lineage, or a dictionary.
        return
    accessor.extra.update(result.metadata)
    if partition_key is not None:
        accessor.add_partitions(partition_key)


@contextlib.contextmanager
def _logged_failure(log: TaskLog, report: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        log.warning("Could not report %s to Airflow (%s: %s)", report, type(error).__name__, error)
