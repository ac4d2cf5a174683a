"""vLLM's schedulers, with their requests recorded: ``--scheduler-cls …scheduler.QmeterScheduler``.

vLLM calls what the option names like a class. The name is a function, because only vLLM knows which of its two
schedulers fits: the plain one would slow asynchronous scheduling down, the asynchronous one needs it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import vllm
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from qmeter_native.capture.engine_recorder import EngineRecorder, engine_recorder
from qmeter_native.engines.vllm.engine_info import engine_info
from qmeter_native.engines.vllm.request_log import RequestLog
from qmeter_native.engines.vllm.versions import SCHEDULER_HOOKS, check_version

__all__ = ["QmeterScheduler"]


class _Recording:
    """What both schedulers add: their superclass's methods as they are, and a look at what they did."""

    requests: dict[str, Any]
    finished_req_ids: set[str]
    vllm_config: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._qmeter_log: RequestLog | None = None
        self._qmeter = engine_recorder()
        if self._qmeter is not None:
            self._qmeter.hold()
            self._qmeter.attempt(self._qmeter_start, self._qmeter)

    def add_request(self, request: Any) -> None:
        super().add_request(request)  # type: ignore[misc]
        if self._qmeter is not None and self._qmeter_log is not None and request.request_id in self.requests:
            self._qmeter.attempt(self._qmeter_log.arrived, self.requests[request.request_id])

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        output = super().schedule(*args, **kwargs)  # type: ignore[misc]
        if self._qmeter is not None and self._qmeter_log is not None:
            self._qmeter.attempt(self._qmeter_log.scheduled, output)
        return output

    def update_from_output(self, *args: Any, **kwargs: Any) -> Any:
        time_ns = time.time_ns()
        outputs = super().update_from_output(*args, **kwargs)  # type: ignore[misc]
        if self._qmeter is not None and self._qmeter_log is not None:
            self._qmeter.attempt(self._qmeter_log.sampled, time_ns, self.finished_req_ids)
        return outputs

    def finish_requests(self, request_ids: str | Iterable[str] | None, finished_status: Any) -> Any:
        finished = super().finish_requests(request_ids, finished_status)  # type: ignore[misc]
        if self._qmeter is not None and self._qmeter_log is not None:
            self._qmeter.attempt(self._qmeter_log.finished, time.time_ns(), self.finished_req_ids)
        return finished

    def shutdown(self) -> None:
        recorder, self._qmeter = self._qmeter, None
        if recorder is not None:
            recorder.release()
        super().shutdown()  # type: ignore[misc]

    def _qmeter_start(self, recorder: EngineRecorder) -> None:
        parallel = self.vllm_config.parallel_config
        recorder.describe(
            engine_info(self.vllm_config, vllm.__version__), tensor_parallel=parallel.tensor_parallel_size
        )
        if check_version(recorder, vllm.__version__, Scheduler, SCHEDULER_HOOKS):
            self._qmeter_log = RequestLog(recorder)


class _QmeterAsyncScheduler(_Recording, AsyncScheduler):  # type: ignore[misc]
    pass


class _QmeterPlainScheduler(_Recording, Scheduler):  # type: ignore[misc]
    pass


def QmeterScheduler(*args: Any, vllm_config: Any, **kwargs: Any) -> Any:  # noqa: N802
    """The recording scheduler that fits ``vllm_config``; arguments as those of vLLM's ``Scheduler``."""
    is_async = vllm_config.scheduler_config.async_scheduling
    kind = _QmeterAsyncScheduler if is_async else _QmeterPlainScheduler
    return kind(*args, vllm_config=vllm_config, **kwargs)
