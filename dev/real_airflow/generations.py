# SPDX-License-Identifier: Apache-2.0
"""What differs between Airflow 2 and Airflow 3 for whoever boots it: commands, settings, the version of the REST API.

All of that is here and in ``rest.py``, so that when 2.11 is no longer supported, :class:`Airflow2` goes, and
:func:`generation` with it.
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

#: The name and the password of the one user, where there are users: Airflow listens on 127.0.0.1 alone.
LOGIN = ("admin", "admin")


class Generation(ABC):
    """Airflow as one of its major versions is booted."""

    rest: ClassVar[type[RestApi]]
    components: ClassVar[tuple[str, ...]]

    @abstractmethod
    def preparations(self) -> dict[str, Sequence[str]]:
        """What runs before the components, one after the other: a name for its log, and ``airflow``'s arguments."""

    @abstractmethod
    def arguments(self, component: str, port: int) -> list[str]:
        """The arguments of ``airflow`` for a component."""

    @abstractmethod
    def executor(self, database: str) -> str:
        """The executor for a database, when nobody names one."""

    @abstractmethod
    def settings(self, base_url: str, port: int) -> dict[str, str]:
        """The settings that the other one would not know, or knows by another name."""


class Airflow3(Generation):
    """Airflow 3.0 and later: the api-server lets everybody in."""

    rest = RestApiV2
    components = ("api-server", "scheduler", "dag-processor", "triggerer")

    def preparations(self) -> dict[str, Sequence[str]]:
        return {"db-migrate": ("db", "migrate")}

    def arguments(self, component: str, port: int) -> list[str]:
        if component == "api-server":
            return [component, "--host", "127.0.0.1", "--port", str(port)]
        if component in {"scheduler", "triggerer"}:
            # All logs are files of this machine. The servers that would hand them to another one listen on
            # every address there is.
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
            # Every component has to hold the same two.
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            # Airflow 3.0 signs tokens without an issuer, which newer versions of PyJWT refuse.
            "AIRFLOW__API_AUTH__JWT_ISSUER": "airflow",
            # A DAG file is noticed within seconds.
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        }


class Airflow2(Generation):
    """Airflow 2.11: the webserver in the api-server's place, and a user who logs in; the scheduler reads the DAGs."""

    rest = RestApiV1
    components = ("api-server", "scheduler", "triggerer")

    def preparations(self) -> dict[str, Sequence[str]]:
        name, password = LOGIN
        user = ("--username", name, "--password", password, "--role", "Admin", "--email", "admin@example.com")
        return {
            "db-migrate": ("db", "migrate"),
            # One that there is already, in a home that was used before, is no error.
            "users-create": ("users", "create", *user, "--firstname", "Ad", "--lastname", "Min"),
        }

    def arguments(self, component: str, port: int) -> list[str]:
        if component == "api-server":
            return ["webserver", "--hostname", "127.0.0.1", "--port", str(port), "--workers", "1"]
        if component in {"scheduler", "triggerer"}:
            return [component, "--skip-serve-logs"]
        return [component]

    def executor(self, database: str) -> str:
        # Its tasks write to the database themselves, and SQLite takes one writer at a time.
        return "SequentialExecutor" if database.startswith("sqlite") else "LocalExecutor"

    def settings(self, base_url: str, port: int) -> dict[str, str]:
        return {
            # The page's own requests come with the second.
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
    """The version of the Airflow that is installed for an interpreter."""
    if os.fspath(python) == sys.executable:
        return version("apache-airflow")
    script = "from importlib.metadata import version; print(version('apache-airflow'))"
    said = subprocess.run([python, "-I", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return said.stdout.strip()


def generation(airflow_version: str) -> Generation:
    """How a version is booted. It can go, with all that asks it, when Airflow 2.11 does."""
    return Airflow2() if airflow_version.startswith("2.") else Airflow3()
