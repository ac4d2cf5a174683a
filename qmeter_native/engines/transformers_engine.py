"""The embedded engine: transformers' continuous batching in this process, serving requests as they arrive."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from types import TracebackType
from typing import Any

from qmeter_native.engines.continuous_batching import (
    attention_for,
    batching_config,
    effective_settings,
    start_manager,
)
from qmeter_native.engines.device_choice import chosen_device
from qmeter_native.engines.model_loading import LoadedModel, load_model, vocabulary_of
from qmeter_native.engines.model_source import ModelSource, resolve_model
from qmeter_native.engines.options import EngineOptions
from qmeter_native.engines.protocol import TokenChunk, Vocabulary
from qmeter_native.engines.step_recorder import StepRecorder
from qmeter_native.engines.step_sink import StepSink
from qmeter_native.errors import EngineError, MissingExtraError
from qmeter_native.model.manifest import EngineInfo
from qmeter_native.quantization.quantized_layers import (
    can_be_captured,
    parameter_bytes,
    parameter_count,
    quantized_layers,
)

__all__ = ["TransformersEngine"]

_STOP_TIMEOUT_S = 30.0
_ARCHITECTURE_FIELDS = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "tie_word_embeddings",
)


class TransformersEngine:
    """Constructed = serving. Greedy decoding; the end-of-sequence token is ignored, so output lengths are exact.

    Args:
        options: What is asked for.
        sink: Where steps are reported; None if nobody wants them.
        before_step: Called on the generation thread between steps.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        ModelNotFoundError: No model goes by that name.
        EngineError: The model, its configuration or the engine's settings do not work here.
    """

    def __init__(
        self,
        options: EngineOptions,
        sink: StepSink | None = None,
        before_step: Callable[[], None] | None = None,
    ) -> None:
        _require_packages()
        self._options = options
        source = resolve_model(options.model)
        _check_context(source, options)
        device = _device_of(options)
        dtype = _dtype_of(options, device)
        loaded = load_model(source, device, dtype, options.seed, options.quantization)
        attention = attention_for(options, device)
        runnable = replace(options, cuda_graphs=options.cuda_graphs and can_be_captured(loaded.model))
        self._manager = start_manager(loaded.model, attention, batching_config(runnable, attention, device))
        self._numbers: dict[str, int] = {}
        self._num_received: dict[int, int] = {}
        if sink is not None:
            StepRecorder(self._manager.batch_processor, sink, self._numbers.__getitem__, before_step)
        self._vocabulary = vocabulary_of(source.config)
        self._info = _info(options, loaded, effective_settings(self._manager))
        self._manager.start()
        self._is_open = True

    @property
    def info(self) -> EngineInfo:
        """The engine as asked for and as it really runs."""
        return self._info

    @property
    def vocabulary(self) -> Vocabulary:
        """The model's token ids."""
        return self._vocabulary

    def submit(self, request: int, prompt: Sequence[int], num_output_tokens: int) -> str:
        """Queue a request; see `Engine.submit`. Steps of requests with negative numbers are not reported."""
        name = f"request-{request}"
        length = len(prompt) + num_output_tokens
        if length > self._options.max_context_len:
            raise EngineError(
                f"request {request} has {length} tokens, and the engine made room for {self._options.max_context_len}",
                "Give a larger max_context_len.",
            )
        self._numbers[name] = request
        self._num_received[request] = 0
        accepted = self._manager.add_request(
            list(prompt), request_id=name, max_new_tokens=num_output_tokens, streaming=True, eos_token_id=-1
        )
        if accepted is None:
            raise EngineError(f"the engine takes no more requests: {self._failure()}")
        return name

    def receive(self, timeout_s: float) -> TokenChunk | None:
        """The next chunk of any request; see `Engine.receive`."""
        is_running = self._manager.is_running()  # asked first: what it delivered before it stopped is in the queue
        output = self._manager.get_result(timeout=timeout_s if is_running else 0.0)
        time_ns = time.time_ns()
        if output is None:
            if not is_running:
                raise EngineError(f"the engine has stopped: {self._failure()}")
            return None
        request = self._numbers[output.request_id]
        tokens = tuple(output.generated_tokens[self._num_received[request] :])
        self._num_received[request] += len(tokens)
        return TokenChunk(request, time_ns, len(tokens), output.is_finished(), output.error or "", tokens)

    def cancel(self, request: int) -> None:
        """Give up a request."""
        self._manager.cancel_request(f"request-{request}")

    def prepare(self, num_at_once: int) -> None:
        """Nothing: requests go straight to the engine."""

    def take_lag(self) -> dict[str, Any]:
        """Empty: nothing lies between client and engine."""
        return {}

    def close(self) -> None:
        """Stop the generation thread; what is unfinished is given up. Idempotent."""
        if not self._is_open:
            return
        self._is_open = False
        self._manager.stop(block=True, timeout=_STOP_TIMEOUT_S, hard_stop=True)
        self._manager.destroy()

    def __enter__(self) -> TransformersEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _failure(self) -> str:
        error = self._manager.background_thread_status.fatal_error
        return "it was closed" if error is None else f"{type(error).__name__}: {error}"


def _require_packages() -> None:
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"the embedded engine needs {error.name}", "pip install 'qmeter-native[engine]'"
        ) from error


def _device_of(options: EngineOptions) -> Any:
    import torch

    name = chosen_device(options.device)
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise EngineError(
            f"device {name} was asked for, and torch {torch.__version__} sees no CUDA GPU",
            "Use --device cpu, or see qmeter-native doctor.",
        )
    device = torch.device(name if ":" in name else f"cuda:{torch.cuda.current_device()}")
    if device.index >= torch.cuda.device_count():
        raise EngineError(f"there is no {device}: torch sees {torch.cuda.device_count()} GPUs")
    return device


def _dtype_of(options: EngineOptions, device: Any) -> Any:
    import torch

    if options.dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return getattr(torch, options.dtype)


def _check_context(source: ModelSource, options: EngineOptions) -> None:
    limit = getattr(source.config, "max_position_embeddings", None)
    if limit is not None and options.max_context_len > limit:
        raise EngineError(
            f"requests of {options.max_context_len} tokens are too long for {source.name}, which has {limit} positions",
            "Use shorter prompts or outputs.",
        )


def _info(options: EngineOptions, loaded: LoadedModel, settings: dict[str, Any]) -> EngineInfo:
    import torch
    import transformers

    model, quantization = loaded.model, loaded.quantization_config
    is_cuda = model.device.type == "cuda"
    effective = {
        "device": str(model.device),
        "device_name": torch.cuda.get_device_name(model.device) if is_cuda else "CPU",
        "num_threads": None if is_cuda else torch.get_num_threads(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantization": loaded.quantization,
        "quantization_config": quantization,
        "kv_cache_dtype": str(model.dtype).removeprefix("torch."),  # its paged cache has no quantized form
        "quantized_layers": quantized_layers(model),
        "quantized_products": None if quantization is None else "Triton kernels" if is_cuda else "torch, dequantized",
        "num_parameters": parameter_count(model),
        "parameter_bytes": parameter_bytes(model, quantization),
        "architecture": {name: getattr(model.config, name, None) for name in _ARCHITECTURE_FIELDS},
        "torch": torch.__version__,
        **settings,
    }
    requested = {**asdict(options), "quantization": None if options.quantization == "none" else options.quantization}
    return EngineInfo("transformers", transformers.__version__, options.model, requested, effective)
