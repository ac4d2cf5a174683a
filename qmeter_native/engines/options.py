"""What a user asks of the embedded engine."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qmeter_native.errors import UsageError
from qmeter_native.quantization.methods import method_named

__all__ = ["EngineOptions"]

_DTYPES = ("auto", "float32", "bfloat16", "float16")
_ATTENTIONS = ("auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3")
_FREE_SHARE = 0.25  # the scheduler admits no new prompt while less than 15 to 20 % of its blocks are free
_MAX_BATCH_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of `TransformersEngine`. None means: derived from the others.

    Attributes:
        model: A local directory, a hub id, ``shape:NAME`` or ``builtin:stdlib-lm``.
        device: ``auto`` (CUDA if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``auto`` (bfloat16 on CUDA, float32 on a CPU), ``float32``, ``bfloat16`` or ``float16``.
        quantization: ``none``, or the method by which the weights are quantized on the fly: a name of
            `qmeter_native.quantization.methods`. A quantized checkpoint is served as it is.
        attention: ``auto`` (flash attention if its package is installed, else ``sdpa``) or an implementation's name.
        max_concurrency: Requests to make room for at once.
        max_context_len: Tokens, prompt and output, of the longest request to make room for.
        page_size: Tokens in a block of the KV cache.
        num_blocks: Blocks of the KV cache; enough for ``max_concurrency`` requests if None.
        max_batch_tokens: Tokens computed in one step at most.
        cuda_graphs: Replay CUDA graphs instead of launching kernels one by one.
        asynchronous: Prepare the next batch while the device runs the last. Host times of steps then overlap; their
            markers do not.
        prefix_caching: Share blocks between requests whose prompts begin alike.
        compile_level: 0 (off) to 3, the engine's own levels of torch.compile.
        seed: Of random weights.
    """

    model: str
    device: str = "auto"
    dtype: str = "auto"
    quantization: str = "none"
    attention: str = "auto"
    max_concurrency: int = 16
    max_context_len: int = 512
    page_size: int | None = None
    num_blocks: int | None = None
    max_batch_tokens: int | None = None
    cuda_graphs: bool = True
    asynchronous: bool = False
    prefix_caching: bool = False
    compile_level: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda") and not self.device.removeprefix("cuda:").isdigit():
            raise UsageError(f"there is no device called {self.device!r}", "Use auto, cpu, cuda or cuda:N.")
        if self.dtype not in _DTYPES:
            raise UsageError(f"there is no dtype called {self.dtype!r}", f"Use one of {', '.join(_DTYPES)}.")
        if self.quantization != "none":
            method_named(self.quantization)  # raises where there is none
        if self.attention not in _ATTENTIONS:
            raise UsageError(f"no attention is called {self.attention!r}", f"Use one of {', '.join(_ATTENTIONS)}.")
        for name in ("max_concurrency", "max_context_len", "page_size", "num_blocks", "max_batch_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}", "It must be 1 or more.")
        if not 0 <= self.compile_level <= 3:
            raise UsageError(f"compile_level is {self.compile_level}", "It goes from 0 to 3.")

    def page_size_for(self, attention: str) -> int:
        """Tokens in a block: 256 for flash attention, whose decode kernel needs it, else 32 unless given."""
        return self.page_size or (256 if attention.startswith("flash") else 32)

    def num_blocks_for(self, page_size: int) -> int:
        """Blocks that hold ``max_concurrency`` requests of ``max_context_len`` tokens and leave a quarter free.

        Raises:
            UsageError: ``num_blocks`` was given and is too few for one request.
        """
        blocks_per_request = math.ceil((self.max_context_len + 1) / page_size)
        if self.num_blocks is None:
            return math.ceil(self.max_concurrency * blocks_per_request / (1 - _FREE_SHARE)) + 1
        if self.num_blocks < blocks_per_request:
            raise UsageError(
                f"{self.num_blocks} blocks of {page_size} tokens cannot hold one request of {self.max_context_len}",
                f"Give at least {blocks_per_request} blocks.",
            )
        return self.num_blocks

    def batch_tokens(self) -> int:
        """Tokens in one step: all prompts at once up to 2048, and one token of each request at least."""
        if self.max_batch_tokens is not None:
            return self.max_batch_tokens
        return max(self.max_concurrency, min(_MAX_BATCH_TOKENS, self.max_concurrency * self.max_context_len))
