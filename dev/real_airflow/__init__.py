# SPDX-License-Identifier: Apache-2.0
"""
A real Airflow that runs for the duration of a ``with`` block, for the demo and the system tests.

:class:`RealAirflow` starts the Airflow that is installed for this or another Python: api-server, scheduler,
dag-processor and triggerer (on Airflow 2: webserver, scheduler and triggerer), each as a process with its own log, on a
free port of 127.0.0.1. It waits for DAGs, triggers and follows runs, and reads logs, XComs and rendered fields through
Airflow's public REST API. It can kill and start components. When the block ends, all processes are ended.

``processes.py`` manages the processes, ``rest.py`` sends requests, ``runs.py`` has the operations on DAGs and runs, and
``generations.py`` the differences between Airflow 2 and 3.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dev.real_airflow.generations import LOGIN, generation, installed_version
from dev.real_airflow.processes import Processes, tail
from dev.real_airflow.rest import ApiError, Json, RealAirflowError
from dev.real_airflow.runs import FINISHED_RUN_STATES, DagsAndRuns

__all__ = [
    "FINISHED_RUN_STATES",
    "LOGIN",
    "ApiError",
    "Json",
    "RealAirflow",
    "RealAirflowError",
    "free_port",
    "tail",
]

#: Number of lines of a component's log in an error.
_TAIL = 50


def free_port() -> int:
    """Return a port of 127.0.0.1 that is currently free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RealAirflow(DagsAndRuns):
    """
    A running Airflow, as a context manager: ``with RealAirflow(home, dags_folder) as airflow: ...``.

    :param home: AIRFLOW_HOME, with configuration, database and logs; created if missing, else used with its database
    :param dags_folder: the DAGs folder
    :param environment: variables added to the environment of every component and task: connections, Airflow variables
        and settings (``AIRFLOW_CONN_…``, ``AIRFLOW_VAR_…``, ``AIRFLOW__…``). They override those set here.
    :param boot_timeout: time limit in seconds for migrating the database and becoming healthy
    :param components: the components to start; ``None`` starts all. On Airflow 2, "api-server" is the webserver.
    :param more_components: further components with names of your choice, and the arguments of ``airflow`` that start
        them: ``{"worker-1": ("celery", "worker", "--skip-serve-logs")}``. Airflow does not report their health.
    :param python: the interpreter that Airflow is installed for
    :param database: SQLAlchemy URL of the database; ``None`` uses SQLite in ``home``
    :param executor: ``None`` uses LocalExecutor; on Airflow 2 with SQLite, which does not support it,
        SequentialExecutor
    """

    def __init__(
        self,
        home: Path | str,
        dags_folder: Path | str,
        *,
        environment: Mapping[str, str] | None = None,
        boot_timeout: float = 240.0,
        components: Sequence[str] | None = None,
        more_components: Mapping[str, Sequence[str]] | None = None,
        python: Path | str = sys.executable,
        database: str | None = None,
        executor: str | None = None,
    ) -> None:
        self.home = Path(home).resolve()
        self.dags_folder = Path(dags_folder).resolve()
        self.log_folder = self.home / "components"
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.version = installed_version(python)
        self._generation = generation(self.version)
        self.rest = self._generation.rest(self.base_url, LOGIN)
        self._boot_timeout = boot_timeout
        # Symbolic links are kept, since Python finds its virtual environment by the link's location.
        self._python = Path(python).absolute()
        own = {name: self._generation.arguments(name, self.port) for name in self._generation.components}
        self._components = tuple(own if components is None else components)
        if unknown := set(self._components) - set(own):
            raise ValueError(f"unknown components: {', '.join(sorted(unknown))}; known are {', '.join(own)}")
        self._arguments: dict[str, Sequence[str]] = {**own, **(more_components or {})}
        self._started_with = (*self._components, *(more_components or {}))
        database = database or f"sqlite:///{self.home / 'airflow.db'}"
        executor = executor or self._generation.executor(database)
        self._processes = Processes(
            self.home, self.log_folder, self._make_environment(database, executor, environment or {})
        )

    # ------------------------------------------------------------------------------------- starting, stopping

    def __enter__(self) -> Self:
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            self.log_folder.mkdir(exist_ok=True)
            self._processes.start_guard()
            deadline = time.monotonic() + self._boot_timeout
            for name, arguments in self._generation.preparations().items():
                self._prepare(name, arguments, deadline)
            for component in self._started_with:
                self._processes.start(component, self._command(self._arguments[component]))
            self.wait_until_healthy(deadline - time.monotonic())
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop all processes of this Airflow. May be called again."""
        self._processes.stop()

    def start(self, component: str, *, healthy_within: float | None = 120.0) -> None:
        """
        Start a component that is not running and wait until Airflow reports it as healthy.

        :param healthy_within: time limit in seconds; ``None`` does not wait
        """
        if component not in self._arguments:
            raise ValueError(f"unknown component: {component}; known are {', '.join(self._arguments)}")
        if self.is_running(component):
            raise RealAirflowError(f"{component} is already running")
        started_at = datetime.now(UTC)
        self._processes.start(component, self._command(self._arguments[component]))
        if healthy_within is not None and component in self._generation.components:
            self.wait_until_healthy(healthy_within, components=[component], since=started_at)

    def kill(self, component: str, *, alone: bool = False) -> list[int]:
        """
        Kill a component and the processes it started with SIGKILL, as when a machine is lost.

        :param alone: let the processes that it started continue
        :return: the IDs of the processes that continue
        """
        try:
            return self._processes.kill(component, alone=alone)
        except KeyError:
            raise RealAirflowError(f"{component} is not running") from None

    def is_running(self, component: str) -> bool:
        """Return whether the component has been started and has not ended."""
        return self._processes.is_running(component)

    def cli(self, *arguments: str, timeout: float = 300.0) -> str:
        """
        Run an ``airflow`` command in this Airflow's environment and return its standard output.

        :param timeout: time limit in seconds
        :raises RealAirflowError: if its exit code is not 0, with the end of its output
        """
        try:
            return self._processes.output(self._command(arguments), timeout)
        except subprocess.CalledProcessError as error:
            output = "\n".join(f"{error.stdout}\n{error.stderr}".splitlines()[-_TAIL:])
            raise RealAirflowError(
                f"`airflow {' '.join(arguments)}` ended with exit code {error.returncode}:\n{output}"
            ) from None

    def processes(self) -> list[Any]:
        """Return a ``psutil.Process`` for every process of this Airflow, including tasks."""
        return self._processes.alive()

    def component_log(self, component: str) -> Path:
        """Return a component's log file, to which each of its starts appends."""
        return self._processes.log(component)

    def end_of_log(self, component: str) -> str:
        """Return the last lines of a component's log."""
        return tail(self.component_log(component), _TAIL)

    def health(self) -> Json:
        """Return the health that Airflow reports for each component."""
        return self.rest.health()

    def wait_until_healthy(
        self,
        timeout: float,
        *,
        components: Sequence[str] | None = None,
        since: datetime | None = None,
    ) -> None:
        """
        Wait until Airflow reports components as healthy.

        :param timeout: time limit in seconds
        :param components: the components to wait for; ``None`` waits for all that were started
        :param since: ignore older heartbeats. Airflow reports a killed component as healthy for another 30 seconds.
        :raises RealAirflowError: if a component ends by itself, or at the time limit, with the end of the log
        """
        awaited = list(components or self._components)
        deadline = time.monotonic() + timeout
        while True:
            unhealthy = self._unhealthy(awaited, since)
            if not unhealthy:
                return
            self.raise_if_ended(self._started_with)
            if time.monotonic() > deadline:
                raise RealAirflowError(
                    f"{', '.join(unhealthy)} not healthy after {timeout:.0f} s. The end of {unhealthy[0]}'s log:\n"
                    f"{self.end_of_log(unhealthy[0])}"
                )
            time.sleep(0.3)

    def raise_if_ended(self, components: Sequence[str]) -> None:
        """Raise a :class:`RealAirflowError` with the end of the log if a component has ended by itself."""
        for name in components:
            code = self._processes.exit_code(name)
            if code is not None:
                raise RealAirflowError(
                    f"{name} ended with exit code {code}. The end of its log:\n{self.end_of_log(name)}"
                )

    # ------------------------------------------------------------------------------------------------ internals

    def _make_environment(self, database: str, executor: str, extra: Mapping[str, str]) -> dict[str, str]:
        """Return the components' environment: this process's with other settings of Airflow."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        # Tasks send requests to Airflow and to the sandbox on this machine, which no proxy can reach.
        no_proxy = ",".join(filter(None, [os.environ.get("NO_PROXY", ""), "127.0.0.1,localhost"]))
        ours = {
            # Some executors run `airflow` from PATH.
            "PATH": os.pathsep.join(filter(None, [str(self._python.parent), os.environ.get("PATH")])),
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags_folder),
            "AIRFLOW__CORE__EXECUTOR": executor,
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.home / "logs"),
            "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
            # Start tasks soon after they become ready.
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "SCARF_ANALYTICS": "false",
            "DO_NOT_TRACK": "1",
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": no_proxy,
            "no_proxy": no_proxy,
        }
        if sys.platform == "darwin":
            # Otherwise macOS aborts processes that fork after using its frameworks, as tasks do.
            ours["OBJC_DISABLE_INITIALIZE_FORK_SAFETY"] = "YES"
        return {**inherited, **ours, **self._generation.settings(self.base_url, self.port), **extra}

    def _command(self, arguments: Sequence[str]) -> list[str]:
        return [str(self._python), "-m", "airflow", *arguments]

    def _prepare(self, name: str, arguments: Sequence[str], deadline: float) -> None:
        """Run an ``airflow`` command that must succeed before the components start."""
        # Only the first arguments, since a password may be among the others.
        shown = f"`airflow {' '.join(arguments[:2])}`"
        try:
            code = self._processes.run(name, self._command(arguments), deadline - time.monotonic())
        except subprocess.TimeoutExpired:
            raise RealAirflowError(
                f"{shown} took longer than {self._boot_timeout:.0f} s:\n{self.end_of_log(name)}"
            ) from None
        if code != 0:
            raise RealAirflowError(f"{shown} ended with exit code {code}:\n{self.end_of_log(name)}")

    def _unhealthy(self, components: Sequence[str], since: datetime | None) -> list[str]:
        """Return the components that Airflow does not report as healthy."""
        try:
            health = self.health()
        except (OSError, RealAirflowError):
            # The api-server, which reports the health of the others, does not respond yet.
            return ["api-server", *(name for name in components if name != "api-server")]
        unhealthy: list[str] = []
        for name in components:
            if name == "api-server":
                continue
            key = name.replace("-", "_")
            reported = health.get(key) or {}
            heartbeat = reported.get(f"latest_{key}_heartbeat")
            stale = since is not None and (not heartbeat or datetime.fromisoformat(heartbeat) < since)
            if reported.get("status") != "healthy" or stale:
                unhealthy.append(name)
        return unhealthy
