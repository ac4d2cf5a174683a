"""Triton's Proton in a vLLM worker, as a peer for ``bench_overhead.py``."""

from __future__ import annotations

from typing import Any

import triton.profiler as proton
from vllm.v1.worker.gpu_worker import Worker

__all__ = ["ProtonWorker"]


class ProtonWorker(Worker):  # type: ignore[misc]
    """Starts a Proton session (CUPTI, one tree of kernels) before CUDA graphs are captured, and switches it."""

    _session: Any = None

    def init_device(self) -> None:
        """See the base class; the session exists before the first context does anything."""
        super().init_device()
        self._session = proton.start("/tmp/qmeter-proton", backend="cupti", data="tree")
        proton.deactivate(self._session)

    def proton_activate(self) -> None:
        """Profile from now on."""
        proton.activate(self._session)

    def proton_deactivate(self) -> None:
        """Do not profile any more; what was gathered stays in memory."""
        proton.deactivate(self._session)
