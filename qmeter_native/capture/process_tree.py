"""A command and all that descends from it, also what outlives its parent.

This process becomes the subreaper of its descendants: the kernel makes it the parent of orphans, so that daemons of the
command can be waited for like children.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from qmeter_native.errors import UsageError

__all__ = ["ProcessTree"]

_PR_SET_CHILD_SUBREAPER: Final = 36
_TICK_S: Final = 0.02
_PATIENCE_S: Final = 30.0
"""How long a command may take to end after SIGINT, and again after SIGTERM, before it is killed."""


class ProcessTree:
    """Constructed = started, in this process's terminal and process group, with its standard streams.

    Args:
        command: The command and its arguments.
        environment: All of its environment.
        log: A file to create for its standard output and error, which are not to be seen then.

    Raises:
        UsageError: There is no such command, or it cannot be executed.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path | None = None) -> None:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            with ExitStack() as files:
                output = None if log is None else files.enter_context(log.open("wb"))
                self._process = subprocess.Popen(list(command), env=dict(environment), stdout=output, stderr=output)
        except OSError as error:
            raise UsageError(
                f"{command[0]} cannot be started: {error.strerror}", "Check the command after `--`."
            ) from error
        self.returncode: int | None = None

    @property
    def pid(self) -> int:
        """Process id of the command itself."""
        return self._process.pid

    @property
    def exit_code(self) -> int:
        """The command's, as shells count it: 128 + n for signal n; 137 for one that was killed and does not end."""
        if self.returncode is None:
            return 128 + signal.SIGKILL
        return self.returncode if self.returncode >= 0 else 128 - self.returncode

    def poll(self) -> int | None:
        """Reap what has ended; the command's return code as `subprocess` gives it, None while it runs."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return self.returncode
            if pid == 0:
                return self.returncode
            if pid == self.pid:
                self.returncode = self._process.returncode = os.waitstatus_to_exitcode(status)

    def descendants(self) -> list[int]:
        """Pids of all living descendants of this process, the command and orphans of it among them."""
        children: dict[int, list[int]] = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                parent, is_zombie = _parent_of(folder)
                if not is_zombie:
                    children.setdefault(parent, []).append(int(folder.name))
        found, new = [], [os.getpid()]
        while new:
            new = [child for pid in new for child in children.get(pid, ())]
            found += new
        return found

    def interrupt(self) -> None:
        """Send SIGINT as a terminal does, to all in our process group, unless the terminal has done so."""
        if not _is_foreground():
            self._signal(signal.SIGINT, [pid for pid in self.descendants() if _is_in_our_group(pid)])

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command; nothing happens if it has ended."""
        if self.poll() is None:
            self._signal(number, [self.pid])

    def end(self, *, is_ctrl_c: bool) -> None:
        """End the command and wait for it: SIGINT, after 30 s SIGTERM, after 30 s more `kill`.

        Args:
            is_ctrl_c: Interrupt all that Ctrl-C would, see `interrupt`; else the command alone.
        """
        self.interrupt() if is_ctrl_c else self.send(signal.SIGINT)
        if self._ends_within(_PATIENCE_S):
            return
        self.send(signal.SIGTERM)
        if not self._ends_within(_PATIENCE_S):
            self.kill()

    def kill(self) -> None:
        """Kill the command and all its descendants, and wait for the command: 30 s, it may hang in a driver."""
        self._signal(signal.SIGKILL, self.descendants())
        self._ends_within(_PATIENCE_S)

    def _ends_within(self, timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while self.poll() is None and time.monotonic() < end:
            time.sleep(_TICK_S)
        return self.poll() is not None

    @staticmethod
    def _signal(number: signal.Signals, pids: Sequence[int]) -> None:
        for pid in pids:
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):  # it ended meanwhile, or became another user
                continue

    def wait_for_all(self, timeout_s: float, give_up: Callable[[], bool] = lambda: False) -> bool:
        """Wait until no descendant is left; False after ``timeout_s``, or when ``give_up`` says so."""
        end = time.monotonic() + timeout_s
        while True:
            self.poll()
            if not self.descendants():
                return True
            if time.monotonic() >= end or give_up():
                return False
            time.sleep(0.05)


def _parent_of(folder: Path) -> tuple[int, bool]:
    """Parent of a process, and whether it has ended already; (0, True) if it is gone."""
    try:
        state, parent = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return 0, True
    return int(parent), state == "Z"


def _is_in_our_group(pid: int) -> bool:
    try:
        return os.getpgid(pid) == os.getpgrp()
    except OSError:  # it ended meanwhile
        return False


def _is_foreground() -> bool:
    """Whether this process is in the foreground of its terminal, wherever its standard streams lead."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
