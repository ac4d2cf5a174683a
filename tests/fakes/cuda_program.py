"""A CUDA program for tests that follow processes: plain Python and the fake libcuda, without a GPU.

    python tests/fakes/cuda_program.py --launches 100 --rate 1000

It takes libcuda.so.1 from the loader, so run it with `program_environment`: the fake libcuda loads what
``CUDA_INJECTION64_PATH`` names when the program first calls cuInit, as the real one does. It prints nothing but what
``--print`` says, and ends with ``--exit-code``.

Kernels are called ``fake_gemm`` (``--name``), take the time of their launch as start and last ``--kernel-us``; with
``--graph-nodes`` each launch replays a graph of that many. What it does, in this order:

1. ``--ignore-sigterm``; ``--print``; ``--wait-for FILE`` waits until that file exists.
2. ``--outlive`` leaves all that follows to a daemon, and ends at once.
3. ``--spawn K`` starts K children that do the same without ``--spawn``, and waits for them at the end.
4. cuInit, unless ``--no-cuda``.
5. Launches: ``--launches`` of them or, with ``--seconds`` alone, until these are over, ``--rate`` a second.
6. Stays until ``--seconds`` are over.
7. ``--fork`` forks a child that calls cuInit itself and launches as much; ``--exec`` replaces the program by itself
   without ``--exec``. Both come after the launches.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["PROGRAM", "program_environment"]

PROGRAM = Path(__file__)


def program_environment(
    *, num_devices: int = 1, has_cupti: bool = True, settings: str = "", cupti_settings: str = ""
) -> dict[str, str]:
    """Environment in which the program finds the fakes (they are built if need be), to be added to `os.environ`.

    Args:
        num_devices: GPUs that the fake libcuda shows.
        has_cupti: The loader finds the fake libcupti too; else what it finds first is broken.
        settings: More settings of the fake libcuda, ``name=value,…``.
        cupti_settings: Settings of the fake libcupti, ``name=value,…``.
    """
    from tests.fakes.build import build_broken, build_fake

    cuda = build_fake("fake_cuda.cpp", "libcuda.so.1").parent
    if has_cupti:
        cupti = build_fake("fake_cupti.cpp", "libcupti.so.13").parent
    else:
        cupti = build_broken("libcupti.so.13", "libcupti.so.12")
    return {
        "LD_LIBRARY_PATH": f"{cuda}{os.pathsep}{cupti}",
        "QMETER_CUPTI_PATH": str(cupti) if has_cupti else "",  # before a real one that pip has installed
        "FAKE_CUDA": f"num_devices={num_devices},{settings}",
        "FAKE_CUPTI": cupti_settings,
    }


class _Gpu:
    """The fake libcuda with a context and a kernel."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._cuda = ctypes.CDLL("libcuda.so.1")
        if self._cuda.cuInit(0) != 0:
            sys.exit("cuInit failed")
        for name, value in (("is_realtime", 1), ("kernel_ns", options.kernel_us * 1000), ("device", options.device)):
            self._cuda.fake_cuda_set(name.encode(), ctypes.c_int64(value))
        self._name = options.name.encode()
        self._num_nodes = options.graph_nodes
        context, module, self._function = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        self._cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), options.device)
        self._cuda.cuCtxPushCurrent_v2(context)
        self._cuda.cuModuleLoadData(ctypes.byref(module), b".visible .entry " + self._name + b"(")
        self._cuda.cuModuleGetFunction(ctypes.byref(self._function), module, self._name)

    def launch(self) -> None:
        if self._num_nodes:
            self._cuda.fake_cuda_replay(self._name, self._num_nodes, None)
        else:
            self._cuda.cuLaunchKernel(self._function, 1, 1, 1, 128, 1, 1, 0, None, None, None)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A CUDA program on the fakes.")
    parser.add_argument("--launches", type=int, help="kernels, or replays of the graph (10 without --seconds)")
    parser.add_argument("--rate", type=float, default=0, help="launches a second; 0: as many as it can")
    parser.add_argument("--seconds", type=float, default=0, help="how long the program runs at least")
    parser.add_argument("--name", default="fake_gemm", help="name of the kernel")
    parser.add_argument("--kernel-us", type=int, default=20, help="how long a kernel runs")
    parser.add_argument("--graph-nodes", type=int, default=0, help="launch graphs of that many kernels")
    parser.add_argument("--device", type=int, default=0, help="CUDA's number of the GPU")
    parser.add_argument("--fork", action="store_true", help="a forked child does as much")
    parser.add_argument("--exec", action="store_true", help="the program executes itself once more")
    parser.add_argument("--spawn", type=int, default=0, help="children that do as much")
    parser.add_argument("--outlive", action="store_true", help="a daemon does it; the program ends at once")
    parser.add_argument("--exit-code", type=int, default=0)
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--no-cuda", action="store_true", help="never touch CUDA")
    parser.add_argument("--print", dest="text", default="", help="what to print")
    parser.add_argument("--wait-for", type=Path, help="a file to wait for before anything else")
    return parser.parse_args()


def _arguments_without(*flags: str) -> list[str]:
    """Those of this program less ``flags``, with their values, and less ``--print``."""
    kept = []
    words = iter(sys.argv[1:])
    for word in words:
        if word not in (*flags, "--print"):
            kept.append(word)
        elif word in ("--spawn", "--print"):
            next(words)
    return kept


def _start_again(*less: str, is_daemon: bool = False) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(PROGRAM), *_arguments_without(*less)]
    quiet = subprocess.DEVNULL if is_daemon else None
    return subprocess.Popen(command, start_new_session=is_daemon, stdin=quiet, stdout=quiet, stderr=quiet)


def _work(options: argparse.Namespace) -> None:
    """Steps 4 to 6."""
    start = time.monotonic()
    end = start + options.seconds
    if not options.no_cuda:
        gpu = _Gpu(options)
        wanted = options.launches if options.launches is not None else 0 if options.seconds else 10
        num_launched = 0
        while num_launched < wanted or (options.launches is None and time.monotonic() < end):
            gpu.launch()
            num_launched += 1
            if options.rate:
                time.sleep(max(0, start + num_launched / options.rate - time.monotonic()))
    time.sleep(max(0, end - time.monotonic()))


def _fork_and_work(options: argparse.Namespace) -> int:
    """A forked child that works and ends as programs do; its exit code."""
    child = os.fork()
    if child == 0:
        _work(options)
        sys.exit(options.exit_code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> int:
    """Do what the options say; the exit code."""
    options = _options()
    if options.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.text:
        print(options.text, flush=True)
    while options.wait_for is not None and not options.wait_for.exists():
        time.sleep(0.005)
    if options.outlive:
        _start_again("--outlive", is_daemon=True)
        return int(options.exit_code)
    children = [_start_again("--spawn") for _ in range(options.spawn)]
    _work(options)
    if options.fork:
        _fork_and_work(options)
    if options.exec:
        os.execv(sys.executable, [sys.executable, str(PROGRAM), *_arguments_without("--exec", "--spawn", "--fork")])
    for child in children:
        child.wait()
    return int(options.exit_code)


if __name__ == "__main__":
    sys.exit(main())
