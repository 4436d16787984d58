# SPDX-License-Identifier: Apache-2.0
"""A real Airflow 3 of one's own, for as long as a ``with`` block lasts.

:class:`RealAirflow` boots the Airflow that is installed for the running Python: api-server, scheduler,
dag-processor and triggerer, each a process of its own with its own log, on SQLite, on a free port of
127.0.0.1, in a folder that is given. What it then offers is what a demo and a system test need: wait for a
DAG, trigger it, follow its run, read its tasks' logs, XComs and rendered fields (all of that through Airflow's
public REST API, as a user would), and kill or start a component. At the end nothing that was started is left
running, however the block ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

Json: TypeAlias = dict[str, Any]

COMPONENTS: tuple[str, ...] = ("api-server", "scheduler", "dag-processor", "triggerer")

#: States in which a DAG run is over.
FINISHED_RUN_STATES = frozenset({"success", "failed"})

#: What every process of one Airflow carries in its environment, so that it is known as ours even after its
#: parent is gone and after it has left the process group (Airflow's tasks and parsers do both).
_MARKER = "REAL_AIRFLOW_MARKER"

#: Lines of a component's log that an error shows.
_TAIL = 50


class RealAirflowError(Exception):
    """Airflow did not do what was asked of it; the message says what it said instead."""


class ApiError(RealAirflowError):
    """The REST API answered with an error; ``status`` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tail(path: Path, lines: int) -> str:
    """The last lines of a text file, or a note that it has none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        text = ""
    return "\n".join(text.splitlines()[-lines:]) or "(nothing was logged)"


class RealAirflow:
    """Airflow as a context manager: ``with RealAirflow(home, dags_folder) as airflow: ...``.

    :param home: its AIRFLOW_HOME: configuration, database, logs. Made where it is missing. One that was
        used before is used again, with its database.
    :param dags_folder: the folder its DAGs are read from.
    :param environment: added to the environment of every component and task, and stronger than what is
        set here: connections, variables and settings (``AIRFLOW_CONN_…``, ``AIRFLOW_VAR_…``, ``AIRFLOW__…``).
    :param boot_timeout: seconds that migrating the database and getting healthy may take together.
    :param components: the components that are started. Without one of them, nothing waits for its health.
    """

    def __init__(
        self,
        home: Path | str,
        dags_folder: Path | str,
        *,
        environment: Mapping[str, str] | None = None,
        boot_timeout: float = 240.0,
        components: Sequence[str] = COMPONENTS,
    ) -> None:
        unknown = set(components) - set(COMPONENTS)
        if unknown:
            raise ValueError(f"no such component: {', '.join(sorted(unknown))}; there are {', '.join(COMPONENTS)}")
        self.home = Path(home).resolve()
        self.dags_folder = Path(dags_folder).resolve()
        self.log_folder = self.home / "components"
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self._boot_timeout = boot_timeout
        self._components = tuple(components)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._guard: subprocess.Popen[bytes] | None = None
        self._marker = secrets.token_hex(16)
        self._token: str | None = None
        # Airflow listens here and nowhere else: a proxy from the environment has no part in it.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._environment = self._make_environment(environment or {})

    # ------------------------------------------------------------------------------------- life and death

    def __enter__(self) -> Self:
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            self.log_folder.mkdir(exist_ok=True)
            self._start_guard()
            deadline = time.monotonic() + self._boot_timeout
            self._migrate(deadline)
            for component in self._components:
                self._spawn(component)
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
        # A second Ctrl-C while this runs must not leave half of it behind.
        with _signals_held_back():
            for process in self._processes.values():
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
            # A triggerer that has work takes longer than this; nothing that is lost here is missed.
            limit = time.monotonic() + 5
            for process in self._processes.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, limit - time.monotonic()))
            kill_marked(self._marker)
            for process in self._processes.values():
                process.wait()
            self._processes.clear()
            if self._guard is not None:
                assert self._guard.stdin is not None
                self._guard.stdin.close()
                self._guard.wait()
                self._guard = None

    def start(self, component: str, *, healthy_within: float | None = 120.0) -> None:
        """Start a component that is not running and wait until Airflow calls it healthy (``None``: do not)."""
        if self.is_running(component):
            raise RealAirflowError(f"{component} is running already")
        started_at = datetime.now(UTC)
        self._spawn(component)
        if healthy_within is not None:
            self.wait_until_healthy(healthy_within, components=[component], since=started_at)

    def kill(self, component: str) -> None:
        """End a component with SIGKILL, with all the processes it has started: a machine that was lost."""
        process = self._processes.pop(component, None)
        if process is None:
            raise RealAirflowError(f"{component} is not running")
        family = [process.pid, *_descendants(process.pid)]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def is_running(self, component: str) -> bool:
        """Whether the component was started and has not ended."""
        process = self._processes.get(component)
        return process is not None and process.poll() is None

    def component_log(self, component: str) -> Path:
        """The file a component writes to, all its starts one after another."""
        return self.log_folder / f"{component}.log"

    def health(self) -> Json:
        """What ``/api/v2/monitor/health`` says: a status for each component."""
        return self._get("/api/v2/monitor/health", authorized=False)

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
            for name in self._components:
                process = self._processes.get(name)
                if process is not None and process.poll() is not None:
                    raise RealAirflowError(
                        f"{name} ended with exit code {process.returncode}. Its log ends so:\n"
                        f"{tail(self.component_log(name), _TAIL)}"
                    )
            if time.monotonic() > deadline:
                raise RealAirflowError(
                    f"{', '.join(missing)} not healthy after {timeout:.0f} s. {missing[0]}'s log ends so:\n"
                    f"{tail(self.component_log(missing[0]), _TAIL)}"
                )
            time.sleep(0.3)

    # ------------------------------------------------------------------------------------------ DAGs and runs

    def wait_for_dag(self, dag_id: str, timeout: float = 90.0) -> Json:
        """Wait until Airflow has read the DAG; if it could not, the error shows why."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self._get(f"/api/v2/dags/{_quoted(dag_id)}")
            except ApiError as error:
                if error.status != 404:
                    raise
            errors = self.import_errors()
            late = time.monotonic() > deadline
            # Another file's error is no reason to give up, until there is no more time.
            mine = [e for e in errors if Path(str(e.get("filename"))).stem == dag_id]
            if mine or late:
                shown = "\n\n".join(f"{e.get('filename')}:\n{e.get('stack_trace')}" for e in mine or errors)
                raise RealAirflowError(
                    f"DAG {dag_id!r} was not found in {self.dags_folder}"
                    + (f" within {timeout:.0f} s" if late else "")
                    + (f"; Airflow could not import:\n{shown}" if shown else "; Airflow names no import errors")
                )
            time.sleep(0.5)

    def import_errors(self) -> list[Json]:
        """The files that Airflow could not import, with ``filename`` and ``stack_trace``."""
        found: list[Json] = self._get("/api/v2/importErrors")["import_errors"]
        return found

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler run the DAG. With a schedule it then makes the latest run of its own accord."""
        self._call("PATCH", f"/api/v2/dags/{_quoted(dag_id)}?update_mask=is_paused", {"is_paused": False})

    def pause(self, dag_id: str) -> None:
        """Keep the scheduler from starting tasks of the DAG."""
        self._call("PATCH", f"/api/v2/dags/{_quoted(dag_id)}?update_mask=is_paused", {"is_paused": True})

    def trigger(
        self,
        dag_id: str,
        *,
        logical_date: datetime | None = None,
        data_interval: tuple[datetime, datetime] | None = None,
        conf: Mapping[str, Any] | None = None,
        run_id: str | None = None,
    ) -> str:
        """Make a manual run and return its ID. The DAG has to be unpaused for its tasks to start.

        :param logical_date: with time zone; ``None`` makes a run without one, which has no data interval.
        :param data_interval: start and end, with time zones; needs a logical date as well, and takes the
            start where none is given.
        """
        body: Json = {"logical_date": None, "conf": dict(conf or {})}
        if data_interval is not None:
            start, end = data_interval
            logical_date = logical_date or start
            body |= {"data_interval_start": start.isoformat(), "data_interval_end": end.isoformat()}
        if logical_date is not None:
            body["logical_date"] = logical_date.isoformat()
        if run_id is not None:
            body["dag_run_id"] = run_id
        return str(self._call("POST", f"/api/v2/dags/{_quoted(dag_id)}/dagRuns", body)["dag_run_id"])

    def runs(self, dag_id: str) -> list[Json]:
        """The DAG's runs, as the API gives them."""
        found: list[Json] = self._get(f"/api/v2/dags/{_quoted(dag_id)}/dagRuns?limit=100")["dag_runs"]
        return found

    def wait_for_scheduled_run(self, dag_id: str, timeout: float = 60.0) -> str:
        """Wait until the scheduler has made a run of its own accord; return the latest one's ID."""
        deadline = time.monotonic() + timeout
        while True:
            scheduled = [run for run in self.runs(dag_id) if run["run_type"] == "scheduled"]
            if scheduled:
                return str(max(scheduled, key=lambda run: str(run["run_after"]))["dag_run_id"])
            if time.monotonic() > deadline:
                raise RealAirflowError(
                    f"the scheduler made no run of {dag_id!r} within {timeout:.0f} s. Its log ends so:\n"
                    f"{tail(self.component_log('scheduler'), _TAIL)}"
                )
            time.sleep(0.3)

    def run(self, dag_id: str, run_id: str) -> Json:
        """One run, as the API gives it: ``state``, ``data_interval_start``, ``data_interval_end`` and so on."""
        return self._get(_run_path(dag_id, run_id))

    def task_instances(self, dag_id: str, run_id: str) -> list[Json]:
        """The run's task instances, in the order in which the tasks can run; each as the API gives it."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances?limit=100"
        found: list[Json] = self._get(path)["task_instances"]
        return sorted(found, key=lambda ti: (ti["start_date"] is None, ti["start_date"] or "", ti["map_index"]))

    def task_instance(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1) -> Json:
        """One task instance, as the API gives it."""
        return self._get(_task_path(dag_id, run_id, task_id, map_index))

    def wait_for_run(
        self,
        dag_id: str,
        run_id: str,
        timeout: float = 180.0,
        *,
        on_change: Callable[[Json], None] | None = None,
        poll: float = 0.4,
    ) -> Json:
        """Wait until the run is over, successful or not, and return it.

        :param timeout: seconds; then a :class:`RealAirflowError` says which states the tasks are in.
        :param on_change: is called with a task instance, as the API gives it, whenever its state has changed.
            ``state`` is ``None`` for one that has not been scheduled.
        """
        deadline = time.monotonic() + timeout
        seen: dict[tuple[str, int], tuple[Any, Any]] = {}
        while True:
            # The run first: the look at the tasks that follows is then the one that shows how they ended.
            run = self.run(dag_id, run_id)
            instances = self.task_instances(dag_id, run_id)
            for instance in instances:
                key = (instance["task_id"], instance["map_index"])
                now = (instance["state"], instance["try_number"])
                if seen.get(key, (None, now[1])) != now and on_change is not None:
                    on_change(instance)
                seen[key] = now
            if run["state"] in FINISHED_RUN_STATES:
                return run
            for name in ("scheduler", "api-server"):
                process = self._processes.get(name)
                if process is not None and process.poll() is not None:
                    raise RealAirflowError(
                        f"{name} ended with exit code {process.returncode}. Its log ends so:\n"
                        f"{tail(self.component_log(name), _TAIL)}"
                    )
            if time.monotonic() > deadline:
                states = ", ".join(f"{ti['task_id']} {ti['state'] or 'not scheduled'}" for ti in instances)
                raise RealAirflowError(
                    f"run {run_id!r} of {dag_id!r} is {run['state']} after {timeout:.0f} s: {states}"
                )
            time.sleep(poll)

    def clear(
        self, dag_id: str, run_id: str, task_ids: Sequence[str | tuple[str, int]], *, downstream: bool = True
    ) -> None:
        """Clear tasks of a run, as a user does who wants them to run again; a tuple is one index of a mapped task."""
        self._call(
            "POST",
            f"/api/v2/dags/{_quoted(dag_id)}/clearTaskInstances",
            {
                "dry_run": False,
                "dag_run_id": run_id,
                "task_ids": list(task_ids),
                "include_downstream": downstream,
                "only_failed": False,
                "reset_dag_runs": True,
            },
        )

    def cli(self, *arguments: str, timeout: float = 300.0) -> str:
        """Run an ``airflow`` command as in a shell of this Airflow's, and give what it wrote to standard output.

        :raises RealAirflowError: when its exit code is not 0, with the end of what it said.
        """
        command = [sys.executable, "-m", "airflow", *arguments]
        try:
            done = subprocess.run(
                command,
                env=self._environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            said = "\n".join(f"{error.stdout}\n{error.stderr}".splitlines()[-_TAIL:])
            raise RealAirflowError(
                f"`airflow {' '.join(arguments)}` ended with exit code {error.returncode}:\n{said}"
            ) from None
        return done.stdout

    # ---------------------------------------------------------------------------------- what a task left

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int, map_index: int = -1) -> str:
        """A try's log as text, a line for each record: time, level, message, and what else the record holds.

        Exceptions are there with their tracebacks. What only repeats which task this is has been left out.
        """
        lines: list[str] = []
        token: str | None = None
        while True:
            query: dict[str, Any] = {"map_index": map_index}
            if token:
                query["token"] = token
            else:
                query["full_content"] = "true"
            reply = self._get(
                f"{_run_path(dag_id, run_id)}/taskInstances/{_quoted(task_id)}/logs/{try_number}"
                f"?{urllib.parse.urlencode(query)}",
            )
            content = reply["content"]
            records = content if isinstance(content, list) else [content]
            lines += [_log_line(record) for record in records]
            following = reply.get("continuation_token")
            if not following or following == token or not records:
                return "\n".join(lines)
            token = following

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", *, map_index: int = -1) -> Any:
        """The value of a task's XCom. A missing one is an :class:`ApiError` with ``status`` 404."""
        # `deserialize` would need the classes; what is stored is what a test wants to see.
        return self._get(
            f"{_run_path(dag_id, run_id)}/taskInstances/{_quoted(task_id)}/xcomEntries/{_quoted(key)}"
            f"?{urllib.parse.urlencode({'map_index': map_index})}",
        )["value"]

    def rendered_fields(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1) -> Json:
        """The task's template fields as rendered, as the Airflow page shows them."""
        fields: Json = self.task_instance(dag_id, run_id, task_id, map_index=map_index)["rendered_fields"]
        return fields

    def request(self, method: str, path: str, body: Json | None = None) -> Any:
        """Any other call of the REST API: ``request("GET", "/api/v2/assets/events")``."""
        return self._call(method, path, body)

    # ------------------------------------------------------------------------------------------------ inside

    def _make_environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """The environment of all components: this process's, without its Airflow, with our own."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        # Tasks speak to Airflow, and to a sandbox, on this machine: a proxy has no part in that.
        no_proxy = ",".join(filter(None, [os.environ.get("NO_PROXY", ""), "127.0.0.1,localhost"]))
        ours = {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags_folder),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.base_url}/execution/",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.home / "logs"),
            "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.base_url,
            "AIRFLOW__API__WORKERS": "1",
            # Every component has to hold the same two.
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            # Airflow 3.0 signs tokens without an issuer, which newer versions of PyJWT refuse.
            "AIRFLOW__API_AUTH__JWT_ISSUER": "airflow",
            # A DAG file is noticed within seconds, a task that is ready is started at once.
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "SCARF_ANALYTICS": "false",
            "DO_NOT_TRACK": "1",
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": no_proxy,
            "no_proxy": no_proxy,
            _MARKER: self._marker,
            # Airflow's processes give themselves titles, which are written over the environment unless this is
            # set, and the marker with it.
            "SPT_NOENV": "1",
        }
        if sys.platform == "darwin":
            # Without it, macOS ends processes that fork after they have used its frameworks, as tasks do.
            ours["OBJC_DISABLE_INITIALIZE_FORK_SAFETY"] = "YES"
        return {**inherited, **ours, **extra}

    def _command(self, component: str) -> list[str]:
        command = [sys.executable, "-m", "airflow", component]
        if component == "api-server":
            return [*command, "--host", "127.0.0.1", "--port", str(self.port)]
        if component in {"scheduler", "triggerer"}:
            # All logs are files of this machine. The servers that would hand them to another one listen on
            # every address there is.
            return [*command, "--skip-serve-logs"]
        return command

    def _spawn(self, component: str) -> None:
        with self.component_log(component).open("ab") as log:
            # A session of its own: Ctrl-C in a terminal is for us, who stop the components in good order.
            self._processes[component] = subprocess.Popen(
                self._command(component),
                env=self._environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _start_guard(self) -> None:
        """A process that outlives this one, should it be killed, just long enough to clear up after it."""
        self._guard = subprocess.Popen(
            [sys.executable, __file__, self._marker],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _migrate(self, deadline: float) -> None:
        log_file = self.component_log("db-migrate")
        with log_file.open("ab") as log:
            migration = subprocess.Popen(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                env=self._environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            code = migration.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise RealAirflowError(
                f"`airflow db migrate` took longer than {self._boot_timeout:.0f} s:\n{tail(log_file, _TAIL)}"
            ) from None
        finally:
            if migration.poll() is None:
                migration.kill()
                migration.wait()
        if code != 0:
            raise RealAirflowError(f"`airflow db migrate` ended with exit code {code}:\n{tail(log_file, _TAIL)}")

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

    def _get(self, path: str, *, authorized: bool = True) -> Json:
        reply: Json = self._call("GET", path, authorized=authorized)
        return reply

    def _call(self, method: str, path: str, body: Json | None = None, *, authorized: bool = True) -> Any:
        headers = {"Accept": "application/json"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        if authorized:
            if self._token is None:
                self._token = str(self._get("/auth/token", authorized=False)["access_token"])
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self.base_url + path, data=data, headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=30) as reply:
                return json.loads(reply.read() or b"null")
        except urllib.error.HTTPError as error:
            words = error.read().decode("utf-8", "replace")[:2000]
            raise ApiError(f"{method} {path}: {error.code} {words}", error.code) from None


# -------------------------------------------------------------------------------------------------- helpers


def _quoted(part: str) -> str:
    return urllib.parse.quote(part, safe="")


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/api/v2/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}"


def _task_path(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    path = f"{_run_path(dag_id, run_id)}/taskInstances/{_quoted(task_id)}"
    return path if map_index == -1 else f"{path}/{map_index}"


def _log_line(record: Any) -> str:
    """One line of a task's log out of what the API gives: a structured record, or plain text."""
    if not isinstance(record, dict):
        return str(record)
    known = {"timestamp", "level", "event", "logger", "filename", "lineno", "loc", "error_detail"}
    known |= {"dag_id", "run_id", "task_id", "map_index", "try_number", "ti_id"}
    time_of_day = str(record.get("timestamp") or "")[11:19]
    parts = [time_of_day, f"{record.get('level') or '':<8}".upper(), str(record.get("event", ""))]
    more = " ".join(f"{name}={value}" for name, value in record.items() if name not in known and value is not None)
    line = " ".join(filter(None, [*parts, more])) if time_of_day else str(record.get("event", ""))
    for error in record.get("error_detail") or []:
        for frame in error.get("frames") or []:
            line += f"\n    File {frame.get('filename')}, line {frame.get('lineno')}, in {frame.get('name')}"
        line += f"\n    {error.get('exc_type')}: {error.get('exc_value')}"
    return line


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """SIGINT and SIGTERM wait until the block is done, and are delivered then."""
    if not hasattr(signal, "pthread_sigmask"):  # pragma: no cover
        yield
        return
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _descendants(pid: int) -> list[int]:
    """The process IDs of a process's children, their children, and so on."""
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _marked(marker: str) -> list[Any]:
    """The processes that carry the marker in their environment."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(_MARKER) == marker:
                found.append(process)
        except (psutil.Error, OSError):
            # Gone in the meantime, or somebody else's.
            continue
    return found


def kill_marked(marker: str, patience: float = 3.0) -> None:
    """End every process with the marker: with SIGTERM, and after ``patience`` seconds with SIGKILL."""
    import psutil

    processes = _marked(marker)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(processes, timeout=patience)
    # Looked for again, not taken from the list: one that was just ending may have started another.
    for _ in range(20):
        processes = _marked(marker)
        if not processes:
            return
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(processes, timeout=1)


if __name__ == "__main__":
    # The guard: standard input ends when the process that holds its other end has, however that came about.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdin.buffer.read()
    kill_marked(sys.argv[1])
