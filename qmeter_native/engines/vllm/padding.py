"""How many tokens the device computes in a step: CUDA graphs exist for some sizes only, and batches are padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["graph_size", "padded_tokens"]


def padded_tokens(model_runner: Any, config: Any, output: Any) -> int | None:
    """Tokens computed for the batch that was just launched, padding included; None if that cannot be known.

    Both model runners keep the batch between ``execute_model`` and ``sample_tokens``: V2 says its padded size, and
    in V1 the hidden states have a row a token. Where neither is there (a pipeline's earlier ranks under V1), it
    follows from the sizes of the graphs.

    Args:
        model_runner: vLLM's ``GPUModelRunner``, V1 or V2.
        config: ``VllmConfig``.
        output: The batch's ``SchedulerOutput``.
    """
    state = getattr(model_runner, "execute_model_state", None)
    batch = getattr(state, "input_batch", None)
    padded = getattr(batch, "num_tokens_after_padding", None)
    if padded is not None:
        return int(padded)
    hidden_states = getattr(state, "hidden_states", None)
    if hidden_states is not None and hasattr(hidden_states, "shape"):
        return int(hidden_states.shape[0])
    if config.parallel_config.data_parallel_size > 1:  # ranks agree on the largest batch among them
        return None
    compilation = config.compilation_config
    mode = getattr(compilation.cudagraph_mode, "name", "NONE")
    sizes = compilation.cudagraph_capture_sizes or ()
    return graph_size(output.total_num_scheduled_tokens, output.num_scheduled_tokens.values(), mode, sizes)


def graph_size(num_tokens: int, per_request: Any, mode: str, sizes: Sequence[int]) -> int | None:
    """The size of the graph that a batch is replayed in; its own size if it runs without one.

    Args:
        num_tokens: In the batch.
        per_request: Tokens of each request.
        mode: Name of vLLM's ``CUDAGraphMode``.
        sizes: Tokens that graphs were captured for.

    Returns:
        None for a mode that is not known.
    """
    if mode == "FULL_DECODE_ONLY":
        is_graph = len(set(per_request)) == 1  # prompts of one length look the same; graphs hardly reach their size
    elif mode in ("FULL", "PIECEWISE", "FULL_AND_PIECEWISE"):
        is_graph = True
    elif mode == "NONE":
        is_graph = False
    else:
        return None
    fitting = [size for size in sizes if size >= num_tokens]
    return min(fitting) if is_graph and fitting else num_tokens
