# SPDX-License-Identifier: Apache-2.0
"""Processes that belong together: started with one environment, and none of them left when it is over.

What they start in their turn is known by a mark in its environment, even after its parent is gone and after it has
left the process group (Airflow's tasks and parsers do both). A guard, which is this file run as a program, clears up
after a test or a demo that was killed.
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
    """The last lines of a text file, or a note that it has none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        text = ""
    return "\n".join(text.splitlines()[-lines:]) or "(nothing was logged)"


class Processes:
    """Named processes, each with a log of its own.

    :param folder: where they run.
    :param log_folder: where ``NAME.log`` is written, all starts of a process one after another.
    :param environment: what they have in their environment, and nothing else but the mark.
    """

    def __init__(self, folder: Path, log_folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._log_folder = log_folder
        self._marker = secrets.token_hex(16)
        # Airflow's processes give themselves titles, which are written over the environment unless SPT_NOENV is
        # set, and the mark with it.
        self._environment = {**environment, _MARKER: self._marker, "SPT_NOENV": "1"}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._guard: subprocess.Popen[bytes] | None = None

    def start_guard(self) -> None:
        """Start a process that outlives this one, should it be killed, just long enough to clear up after it."""
        self._guard = subprocess.Popen(
            [sys.executable, __file__, self._marker],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a process that goes on until it is ended."""
        self._running[name] = self._popen(name, command)

    def run(self, name: str, command: Sequence[str], timeout: float) -> int:
        """Run a process to its end and give its exit code; ``subprocess.TimeoutExpired`` when it takes too long."""
        process = self._popen(name, command)
        try:
            return process.wait(max(0.0, timeout))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def output(self, command: Sequence[str], timeout: float) -> str:
        """Run a process to its end and give what it wrote to standard output.

        :raises subprocess.CalledProcessError: when its exit code is not 0.
        """
        done = subprocess.run(
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
        return done.stdout

    def is_running(self, name: str) -> bool:
        """Whether the process was started and has not ended."""
        process = self._running.get(name)
        return process is not None and process.poll() is None

    def exit_code(self, name: str) -> int | None:
        """The exit code of a process that has ended of its own accord."""
        process = self._running.get(name)
        return None if process is None else process.poll()

    def kill(self, name: str, *, alone: bool = False) -> list[int]:
        """End a process with SIGKILL, with all those that it has started, or alone.

        :return: the IDs of those that it has left.
        :raises KeyError: for one never started.
        """
        process = self._running.pop(name)
        started = _descendants(process.pid)
        for pid in [process.pid, *([] if alone else started)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        return started if alone else []

    def stop(self) -> None:
        """End everything that was started, children of children included. May be called again."""
        # A second Ctrl-C while this runs must not leave half of it behind.
        with _signals_held_back():
            for process in self._running.values():
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
            # A triggerer that has work takes longer than this; nothing that is lost here is missed.
            limit = time.monotonic() + 5
            for process in self._running.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, limit - time.monotonic()))
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
        """All that is running of what was started, children of children included: a ``psutil.Process`` for each."""
        return _marked(self._marker)

    def log(self, name: str) -> Path:
        """The file a process writes to."""
        return self._log_folder / f"{name}.log"

    def _popen(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self.log(name).open("ab") as log:
            # A session of its own: Ctrl-C in a terminal is for us, who stop the processes in good order.
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
