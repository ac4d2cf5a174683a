"""Entry point ``vllm.general_plugins``: vLLM calls `register` in each of its processes before it starts to work there.

Recording needs no more than the two classes that `command.with_plugin` puts into the command. An engine that was
started in another way (``vllm.LLM`` in a script, a wrapper) does not have them; this says so in the capture.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from multiprocessing.util import Finalize, register_after_fork

from qmeter_native.capture.engine_recorder import engine_recorder, has_recorder
from qmeter_native.capture.launch_environment import SPOOL_DIR
from qmeter_native.engines.vllm.command import SCHEDULER_CLS, WORKER_CLS

__all__ = ["register"]

_watched_pid: int | None = None


def register() -> None:
    """Have a process that computed without our classes say so when it ends. Harmless outside a capture."""
    if not os.environ.get(SPOOL_DIR) or _watched_pid == os.getpid():
        return
    with suppress(Exception):
        _watch()
        register_after_fork(_watch, lambda watch: watch())  # vLLM loads plugins once, and then may fork its engine


def _watch() -> None:
    global _watched_pid
    Finalize(None, _note_if_unseen, exitpriority=1)  # before the recorder's own, which has 0
    _watched_pid = os.getpid()


def _note_if_unseen() -> None:
    with suppress(Exception):
        if has_recorder() or not sys.modules["torch"].cuda.is_initialized():
            return
        recorder = engine_recorder()
        if recorder is not None:
            recorder.warn(
                "engine_not_recorded",
                "vLLM ran here with its own worker class, so nothing is known of its steps. "
                f"Start it with --worker-cls {WORKER_CLS} --scheduler-cls {SCHEDULER_CLS}, "
                "or with worker_cls and scheduler_cls of vllm.LLM.",
                f"pid {os.getpid()}",
            )
            recorder.close()
