# SPDX-License-Identifier: Apache-2.0
"""A local ChartMogul for demos, DAG development and tests.

`Sandbox` runs it in a thread of the calling process, for use in tests; `python -m airflow_provider_chartmogul.sandbox`
runs it from a shell. It enforces what ChartMogul enforces: the API key, 40 requests a second, 20 connections, and
signed download URLs that expire and refuse an Authorization header. Faults occur on demand; see `faults.py`.
"""

from __future__ import annotations

from airflow_provider_chartmogul.sandbox.sandbox import Sandbox

__all__ = ["Sandbox"]
