# SPDX-License-Identifier: Apache-2.0
"""
A group of processes that share an environment and are all ended together.

A marker in the environment identifies the processes that they start in turn, even after the parent has ended or the
child has left the process group, as Airflow's tasks and DAG parsers do. A guard process, which runs this file as a
script, ends them all if the test or demo itself is killed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_MARKER = "REAL_AIRFLOW_MARKER"


def tail(path: Path, lines: int) -> str:
    """Return the last lines of a text file, or a note if it is empty or missing."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        text = ""
    return "\n".join(text.splitlines()[-lines:]) or "(nothing was logged)"


class Processes:
    """
    Named processes, each with its own log file.

    :param folder: their working directory
    :param log_folder: folder for ``NAME.log``, to which every start of the process appends
    :param environment: their whole environment, except for the marker
    """

    def __init__(self, folder: Path, log_folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._log_folder = log_folder
        self._marker = secrets.token_hex(16)
        # Airflow sets process titles, which overwrite the environment, and with it the marker, unless SPT_NOENV is set.
        self._environment = {**environment, _MARKER: self._marker, "SPT_NOENV": "1"}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._guard: subprocess.Popen[bytes] | None = None

    def start_guard(self) -> None:
        """Start the guard, which ends the processes if this one is killed."""
        self._guard = subprocess.Popen(
            [sys.executable, __file__, self._marker],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a process that runs until it is stopped."""
        self._running[name] = self._popen(name, command)

    def run(self, name: str, command: Sequence[str], timeout: float) -> int:
        """
        Run a process and return its exit code.

        :param timeout: time limit in seconds
        :raises subprocess.TimeoutExpired: after the process has been killed at the time limit
        """
        process = self._popen(name, command)
        try:
            return process.wait(max(0.0, timeout))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def output(self, command: Sequence[str], timeout: float) -> str:
        """
        Run a process and return its standard output.

        :param timeout: time limit in seconds
        :raises subprocess.CalledProcessError: if its exit code is not 0
        """
        process = subprocess.run(
            command,
            env=self._environment,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=True,
        )
        return process.stdout

    def is_running(self, name: str) -> bool:
        """Return whether the process has been started and has not ended."""
        process = self._running.get(name)
        return process is not None and process.poll() is None

    def exit_code(self, name: str) -> int | None:
        """Return the exit code of a process that ended by itself; otherwise ``None``."""
        process = self._running.get(name)
        return None if process is None else process.poll()

    def kill(self, name: str, *, alone: bool = False) -> list[int]:
        """
        Kill a process with SIGKILL.

        :param alone: let the processes that it started continue
        :return: the IDs of the processes that continue
        :raises KeyError: if it was never started
        """
        process = self._running.pop(name)
        descendants = _descendants(process.pid)
        for pid in [process.pid, *([] if alone else descendants)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        return descendants if alone else []

    def stop(self) -> None:
        """End all processes and their descendants. May be called again."""
        # A second Ctrl-C must not interrupt this halfway.
        with _signals_blocked():
            for process in self._running.values():
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
            # A busy triggerer takes longer to stop. It is killed, since its work is not needed any more.
            deadline = time.monotonic() + 5
            for process in self._running.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
            kill_marked(self._marker)
            for process in self._running.values():
                process.wait()
            self._running.clear()
            if self._guard is not None:
                assert self._guard.stdin is not None
                self._guard.stdin.close()
                self._guard.wait()
                self._guard = None

    def alive(self) -> list[Any]:
        """Return a ``psutil.Process`` for each running process, descendants included."""
        return _marked(self._marker)

    def log(self, name: str) -> Path:
        """Return the log file of a process."""
        return self._log_folder / f"{name}.log"

    def _popen(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self.log(name).open("ab") as log:
            # In a session of its own, the process does not receive Ctrl-C; stop() ends it in order.
            return subprocess.Popen(
                command,
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Deliver SIGINT and SIGTERM only after the block."""
    if not hasattr(signal, "pthread_sigmask"):  # pragma: no cover
        yield
        return
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _descendants(pid: int) -> list[int]:
    """Return the IDs of all processes that descend from a process."""
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _marked(marker: str) -> list[Any]:
    """Return the processes with the marker in their environment."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(_MARKER) == marker:
                found.append(process)
        except (psutil.Error, OSError):
            # The process has ended meanwhile, or belongs to another user.
            continue
    return found


def kill_marked(marker: str, patience: float = 3.0) -> None:
    """End every process with the marker: with SIGTERM, then, after ``patience`` seconds, with SIGKILL."""
    import psutil

    processes = _marked(marker)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(processes, timeout=patience)
    # Search again each time, since a process may have started another one before it ended.
    for _ in range(20):
        processes = _marked(marker)
        if not processes:
            return
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(processes, timeout=1)


if __name__ == "__main__":
    # The guard. Standard input is closed when the parent process ends, even if it is killed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdin.buffer.read()
    kill_marked(sys.argv[1])
