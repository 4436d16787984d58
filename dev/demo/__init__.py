# SPDX-License-Identifier: Apache-2.0
"""
The demo: a real Airflow on this machine loads a whole account into DuckDB, and a report shows its MRR from there.

``__main__.py`` runs it, ``report.py`` queries the warehouse, and ``screen.py`` prints.
"""
