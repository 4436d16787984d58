# SPDX-License-Identifier: Apache-2.0
"""A real Airflow of one's own, for as long as a ``with`` block lasts.

:class:`RealAirflow` boots the Airflow that is installed for the running Python, or for another one: api-server,
scheduler, dag-processor and triggerer (of Airflow 2: webserver, scheduler and triggerer), each a process of its own
with its own log, on a free port of 127.0.0.1, in a folder that is given. What it then offers is what a demo and a
system test need: wait for a DAG, trigger it, follow its run, read its tasks' logs, XComs and rendered fields (all of
that through Airflow's public REST API, as a user would), and kill or start a component. At the end nothing that was
started is left running, however the block ends.

``processes.py`` starts and ends, ``rest.py`` asks, ``runs.py`` is what one does with DAGs, ``generations.py`` what
differs between Airflow 2 and 3; here they come together.
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

#: Lines of a component's log that an error shows.
_TAIL = 50


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RealAirflow(DagsAndRuns):
    """Airflow as a context manager: ``with RealAirflow(home, dags_folder) as airflow: ...``.

    :param home: its AIRFLOW_HOME: configuration, database, logs. Made where it is missing. One that was
        used before is used again, with its database.
    :param dags_folder: the folder its DAGs are read from.
    :param environment: added to the environment of every component and task, and stronger than what is
        set here: connections, variables and settings (``AIRFLOW_CONN_…``, ``AIRFLOW_VAR_…``, ``AIRFLOW__…``).
    :param boot_timeout: seconds that migrating the database and getting healthy may take together.
    :param components: the components that are started; without it, all. Without one of them, nothing waits for its
        health. The webserver of Airflow 2 is its "api-server".
    :param more_components: others, by names of one's own, with the arguments of ``airflow`` that start them:
        ``{"worker-1": ("celery", "worker", "--skip-serve-logs")}``. Airflow does not tell of their health.
    :param python: the interpreter whose Airflow it is.
    :param database: the SQLAlchemy URL of its database; without it, SQLite in ``home``.
    :param executor: without it, LocalExecutor, which Airflow 2 does not have on SQLite: there, SequentialExecutor.
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
        # Not resolved: a virtual environment's interpreter is known by the link that leads to it.
        self._python = Path(python).absolute()
        own = {name: self._generation.arguments(name, self.port) for name in self._generation.components}
        self._components = tuple(own if components is None else components)
        if unknown := set(self._components) - set(own):
            raise ValueError(f"no such component: {', '.join(sorted(unknown))}; there are {', '.join(own)}")
        self._arguments: dict[str, Sequence[str]] = {**own, **(more_components or {})}
        self._started_with = (*self._components, *(more_components or {}))
        database = database or f"sqlite:///{self.home / 'airflow.db'}"
        executor = executor or self._generation.executor(database)
        self._processes = Processes(
            self.home, self.log_folder, self._make_environment(database, executor, environment or {})
        )

    # ------------------------------------------------------------------------------------- life and death

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
        """Stop everything this Airflow has started, children of children included. May be called again."""
        self._processes.stop()

    def start(self, component: str, *, healthy_within: float | None = 120.0) -> None:
        """Start a component that is not running and wait until Airflow calls it healthy (``None``: do not)."""
        if component not in self._arguments:
            raise ValueError(f"no such component: {component}; there are {', '.join(self._arguments)}")
        if self.is_running(component):
            raise RealAirflowError(f"{component} is running already")
        started_at = datetime.now(UTC)
        self._processes.start(component, self._command(self._arguments[component]))
        if healthy_within is not None and component in self._generation.components:
            self.wait_until_healthy(healthy_within, components=[component], since=started_at)

    def kill(self, component: str, *, alone: bool = False) -> list[int]:
        """End a component with SIGKILL, with all the processes it has started: a machine that was lost.

        :param alone: without those; what they do then goes on, as long as nobody tells them to end.
        :return: the IDs of those processes.
        """
        try:
            return self._processes.kill(component, alone=alone)
        except KeyError:
            raise RealAirflowError(f"{component} is not running") from None

    def is_running(self, component: str) -> bool:
        """Whether the component was started and has not ended."""
        return self._processes.is_running(component)

    def cli(self, *arguments: str, timeout: float = 300.0) -> str:
        """Run an ``airflow`` command as in a shell of this Airflow's, and give what it wrote to standard output.

        :raises RealAirflowError: when its exit code is not 0, with the end of what it said.
        """
        try:
            return self._processes.output(self._command(arguments), timeout)
        except subprocess.CalledProcessError as error:
            said = "\n".join(f"{error.stdout}\n{error.stderr}".splitlines()[-_TAIL:])
            raise RealAirflowError(
                f"`airflow {' '.join(arguments)}` ended with exit code {error.returncode}:\n{said}"
            ) from None

    def processes(self) -> list[Any]:
        """Every process of this Airflow, the tasks' included: a ``psutil.Process`` for each."""
        return self._processes.alive()

    def component_log(self, component: str) -> Path:
        """The file a component writes to, all its starts one after another."""
        return self._processes.log(component)

    def end_of_log(self, component: str) -> str:
        """The last lines of a component's log."""
        return tail(self.component_log(component), _TAIL)

    def health(self) -> Json:
        """What Airflow says of itself: a status for each component."""
        return self.rest.health()

    def wait_until_healthy(
        self,
        timeout: float,
        *,
        components: Sequence[str] | None = None,
        since: datetime | None = None,
    ) -> None:
        """Wait until Airflow says that each component is healthy.

        :param timeout: seconds; when they are over, the error shows the log of what is missing.
        :param components: these only; without it, all that were started.
        :param since: believe no heartbeat older than this. Airflow calls a component that was killed healthy
            for half a minute more.
        """
        wanted = list(components or self._components)
        deadline = time.monotonic() + timeout
        while True:
            missing = self._unhealthy(wanted, since)
            if not missing:
                return
            self.raise_if_ended(self._started_with)
            if time.monotonic() > deadline:
                raise RealAirflowError(
                    f"{', '.join(missing)} not healthy after {timeout:.0f} s. {missing[0]}'s log ends so:\n"
                    f"{self.end_of_log(missing[0])}"
                )
            time.sleep(0.3)

    def raise_if_ended(self, components: Sequence[str]) -> None:
        """Raise a :class:`RealAirflowError` with the end of its log if a component has ended of its own accord."""
        for name in components:
            code = self._processes.exit_code(name)
            if code is not None:
                raise RealAirflowError(f"{name} ended with exit code {code}. Its log ends so:\n{self.end_of_log(name)}")

    # ------------------------------------------------------------------------------------------------ inside

    def _make_environment(self, database: str, executor: str, extra: Mapping[str, str]) -> dict[str, str]:
        """The environment of all components: this process's, without its Airflow, with our own."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        # Tasks speak to Airflow, and to a sandbox, on this machine: a proxy has no part in that.
        no_proxy = ",".join(filter(None, [os.environ.get("NO_PROXY", ""), "127.0.0.1,localhost"]))
        ours = {
            # Some executors start `airflow` by that name.
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
            # A task that is ready is started at once.
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
            # Without it, macOS ends processes that fork after they have used its frameworks, as tasks do.
            ours["OBJC_DISABLE_INITIALIZE_FORK_SAFETY"] = "YES"
        return {**inherited, **ours, **self._generation.settings(self.base_url, self.port), **extra}

    def _command(self, arguments: Sequence[str]) -> list[str]:
        return [str(self._python), "-m", "airflow", *arguments]

    def _prepare(self, name: str, arguments: Sequence[str], deadline: float) -> None:
        """Run a command of ``airflow`` that has to have succeeded before anything is started."""
        # Not all of them: a password may be among them.
        what = f"`airflow {' '.join(arguments[:2])}`"
        try:
            code = self._processes.run(name, self._command(arguments), deadline - time.monotonic())
        except subprocess.TimeoutExpired:
            raise RealAirflowError(
                f"{what} took longer than {self._boot_timeout:.0f} s:\n{self.end_of_log(name)}"
            ) from None
        if code != 0:
            raise RealAirflowError(f"{what} ended with exit code {code}:\n{self.end_of_log(name)}")

    def _unhealthy(self, wanted: Sequence[str], since: datetime | None) -> list[str]:
        """Those of the wanted components that Airflow does not call healthy."""
        try:
            health = self.health()
        except (OSError, RealAirflowError):
            # No api-server that could say anything.
            return ["api-server", *(name for name in wanted if name != "api-server")]
        missing: list[str] = []
        for name in wanted:
            if name == "api-server":
                continue
            key = name.replace("-", "_")
            facts = health.get(key) or {}
            beat = facts.get(f"latest_{key}_heartbeat")
            stale = since is not None and (not beat or datetime.fromisoformat(beat) < since)
            if facts.get("status") != "healthy" or stale:
                missing.append(name)
        return missing
