# SPDX-License-Identifier: Apache-2.0
"""
The differences between starting Airflow 2 and Airflow 3: commands, settings, the version of the REST API.

They are all here and in ``rest.py``. Once 2.11 is no longer supported, :class:`Airflow2` and :func:`generation` can go.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from dev.real_airflow.rest import RestApi, RestApiV1, RestApiV2

#: User name and password on Airflow 2, which listens on 127.0.0.1 only. Airflow 3 needs no login here.
LOGIN = ("admin", "admin")


class Generation(ABC):
    """How a major version of Airflow is started."""

    rest: ClassVar[type[RestApi]]
    components: ClassVar[tuple[str, ...]]

    @abstractmethod
    def preparations(self) -> dict[str, Sequence[str]]:
        """Return the ``airflow`` commands to run before the components, in order: log name to arguments."""

    @abstractmethod
    def arguments(self, component: str, port: int) -> list[str]:
        """Return the arguments of ``airflow`` that start a component."""

    @abstractmethod
    def executor(self, database: str) -> str:
        """Return the default executor for a database URL."""

    @abstractmethod
    def settings(self, base_url: str, port: int) -> dict[str, str]:
        """Return the settings that exist, under these names, in this major version only."""


class Airflow3(Generation):
    """Airflow 3.0 and later, configured to admit everyone without a login."""

    rest = RestApiV2
    components = ("api-server", "scheduler", "dag-processor", "triggerer")

    def preparations(self) -> dict[str, Sequence[str]]:
        return {"db-migrate": ("db", "migrate")}

    def arguments(self, component: str, port: int) -> list[str]:
        if component == "api-server":
            return [component, "--host", "127.0.0.1", "--port", str(port)]
        if component in {"scheduler", "triggerer"}:
            # Logs are local files. The servers that would serve them to other machines listen on all interfaces.
            return [component, "--skip-serve-logs"]
        return [component]

    def executor(self, database: str) -> str:
        return "LocalExecutor"

    def settings(self, base_url: str, port: int) -> dict[str, str]:
        return {
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{base_url}/execution/",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": base_url,
            "AIRFLOW__API__WORKERS": "1",
            # All components need the same two secrets.
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            # Airflow 3.0 signs tokens without an issuer by default, which newer versions of PyJWT reject.
            "AIRFLOW__API_AUTH__JWT_ISSUER": "airflow",
            # Find DAG files within seconds.
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        }


class Airflow2(Generation):
    """Airflow 2.11. Its webserver takes the place of the api-server, and its scheduler parses the DAGs."""

    rest = RestApiV1
    components = ("api-server", "scheduler", "triggerer")

    def preparations(self) -> dict[str, Sequence[str]]:
        name, password = LOGIN
        user = ("--username", name, "--password", password, "--role", "Admin", "--email", "admin@example.com")
        return {
            "db-migrate": ("db", "migrate"),
            # Succeeds if the user exists already, as in a home that is used again.
            "users-create": ("users", "create", *user, "--firstname", "Ad", "--lastname", "Min"),
        }

    def arguments(self, component: str, port: int) -> list[str]:
        if component == "api-server":
            return ["webserver", "--hostname", "127.0.0.1", "--port", str(port), "--workers", "1"]
        if component in {"scheduler", "triggerer"}:
            return [component, "--skip-serve-logs"]
        return [component]

    def executor(self, database: str) -> str:
        # Tasks of Airflow 2 write to the database, and SQLite allows one writer at a time.
        return "SequentialExecutor" if database.startswith("sqlite") else "LocalExecutor"

    def settings(self, base_url: str, port: int) -> dict[str, str]:
        return {
            # The UI's own requests use the second backend.
            "AIRFLOW__API__AUTH_BACKENDS": "airflow.providers.fab.auth_manager.api.auth.backend.basic_auth,"
            "airflow.api.auth.backend.session",
            "AIRFLOW__WEBSERVER__BASE_URL": base_url,
            "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": str(port),
            "AIRFLOW__WEBSERVER__SECRET_KEY": secrets.token_hex(16),
            "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "10",
            "AIRFLOW__SCHEDULER__PARSING_PROCESSES": "1",
        }


def installed_version(python: Path | str) -> str:
    """Return the version of Airflow that is installed for an interpreter."""
    if os.fspath(python) == sys.executable:
        return version("apache-airflow")
    script = "from importlib.metadata import version; print(version('apache-airflow'))"
    process = subprocess.run([python, "-I", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return process.stdout.strip()


def generation(airflow_version: str) -> Generation:
    """Return how to start a version. Remove this with the support for Airflow 2.11."""
    return Airflow2() if airflow_version.startswith("2.") else Airflow3()
