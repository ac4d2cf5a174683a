"""Writes a checkpoint in a process of its own, whose CUDA context ends with it.

A launcher that drew weights on the GPU itself would hold a context, some 500 MB and some watts of what it is about to
measure.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from qmeter_native.errors import EngineError, QmeterError
from qmeter_native.quantization.checkpoint_writer import write_checkpoint
from qmeter_native.quantization.method import Method

__all__ = ["write_in_a_process"]


def write_in_a_process(
    folder: Path,
    config: Any,
    method: Method,
    *,
    dtype: Any,
    device: str,
    seed: int,
    progress: Callable[[int, int], None],
) -> None:
    """`write_checkpoint` in a process of its own; the same errors are raised here.

    Raises:
        EngineError: The process ended without a word, such as for lack of memory.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    writer = context.Process(target=_write, args=(there, folder, config, method, dtype, device, seed), daemon=True)
    writer.start()
    there.close()
    try:
        while isinstance(message := here.recv(), tuple):
            progress(*message)
    except EOFError:
        writer.join()
        raise EngineError(
            f"the writer of {folder.name} ended with code {writer.exitcode}", "Is there enough memory?"
        ) from None
    finally:
        writer.terminate()  # it has ended already unless we are interrupted
        writer.join()
        here.close()
    if isinstance(message, QmeterError):
        raise message


def _write(there: Connection, folder: Path, config: Any, method: Method, dtype: Any, device: str, seed: int) -> None:
    """The process: tuples tell the progress, and what comes last is None or an error of our tree."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's to handle

    def progress(done: int, total: int) -> None:
        there.send((done, total))

    try:
        write_checkpoint(folder, config, method, dtype=dtype, device=device, seed=seed, progress=progress)
    except QmeterError as error:
        there.send(error)
    else:
        there.send(None)
