"""vLLM's GPU worker, with its steps recorded: ``--worker-cls qmeter_native.engines.vllm.worker.QmeterWorker``."""

from __future__ import annotations

from typing import Any

import torch
import vllm
from vllm.v1.worker.gpu_worker import Worker

from qmeter_native.capture.engine_recorder import EngineRecorder, engine_recorder
from qmeter_native.engines.vllm.command import SCHEDULER_CLS
from qmeter_native.engines.vllm.engine_info import describe_model, engine_info
from qmeter_native.engines.vllm.padding import padded_tokens
from qmeter_native.engines.vllm.step_writer import StepWriter
from qmeter_native.engines.vllm.versions import WORKER_HOOKS, check_version

__all__ = ["QmeterWorker"]


class QmeterWorker(Worker):  # type: ignore[misc]
    """Each rank records its own steps, from the first one after the engine's warm-up on.

    It calls vLLM's methods as they are. What it adds before and after them is attempted: if it fails, recording ends
    with one note in the capture, and serving goes on.
    """

    _qmeter: EngineRecorder | None = None
    _qmeter_steps: StepWriter | None = None

    def init_device(self) -> None:
        """See ``Worker``; opens the spool, now that the device is known."""
        super().init_device()
        parallel = self.parallel_config
        recorder = engine_recorder(parallel.data_parallel_index * parallel.world_size + self.rank)
        if recorder is not None:
            self._qmeter = recorder.hold()
            recorder.attempt(self._qmeter_describe, recorder)

    def compile_or_warm_up_model(self) -> Any:
        """See ``Worker``; what it runs to warm up is no step."""
        steps, self._qmeter_steps = self._qmeter_steps, None
        result = super().compile_or_warm_up_model()
        if steps is not None:  # elastic scaling warms up again, and the requests that are running go on
            self._qmeter_steps = steps
        elif self._qmeter is not None:
            self._qmeter.attempt(self._qmeter_start, self._qmeter)
        return result

    def execute_model(self, scheduler_output: Any) -> Any:
        """See ``Worker``; begins a step, and ends it if there is nothing to sample."""
        recorder, steps = self._qmeter, self._qmeter_steps
        if recorder is None or steps is None:
            return super().execute_model(scheduler_output)
        recorder.attempt(steps.begin, scheduler_output)
        result = super().execute_model(scheduler_output)
        if result is None:
            recorder.attempt(self._qmeter_launched, steps, scheduler_output)
        else:
            recorder.attempt(steps.end)
        return result

    def sample_tokens(self, grammar_output: Any) -> Any:
        """See ``Worker``; ends a step."""
        result = super().sample_tokens(grammar_output)
        if self._qmeter is not None and self._qmeter_steps is not None:
            self._qmeter.attempt(self._qmeter_steps.end)
        return result

    def shutdown(self) -> None:
        """See ``Worker``; closes the spool."""
        recorder, self._qmeter, self._qmeter_steps = self._qmeter, None, None
        if recorder is not None:
            recorder.release()
        super().shutdown()

    def _qmeter_start(self, recorder: EngineRecorder) -> None:
        self._qmeter_describe(recorder)
        if not check_version(recorder, vllm.__version__, Worker, WORKER_HOOKS):
            return
        scheduler_cls = self.vllm_config.scheduler_config.scheduler_cls
        self._qmeter_steps = StepWriter(
            recorder,
            self.device.index,
            lambda: torch.cuda.current_stream(self.device).cuda_stream,
            has_preemptions=self.rank == 0 and scheduler_cls != SCHEDULER_CLS,
        )

    def _qmeter_describe(self, recorder: EngineRecorder) -> None:
        info = engine_info(self.vllm_config, vllm.__version__)
        describe_model(info.effective, self.model_runner)
        recorder.describe(
            info,
            device_uuid=f"GPU-{torch.cuda.get_device_properties(self.device).uuid}",
            tensor_parallel=self.parallel_config.tensor_parallel_size,
        )

    def _qmeter_launched(self, steps: StepWriter, scheduler_output: Any) -> None:
        steps.launched(padded_tokens(self.model_runner, self.vllm_config, scheduler_output))
