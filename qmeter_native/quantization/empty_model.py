"""A transformers model without memory for its parameters, for weights that come later and one by one."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

__all__ = ["empty_model", "initialize", "materialize"]


def empty_model(config: Any, dtype: Any) -> Any:
    """The causal language model of a configuration on torch's ``meta`` device; it knows of no quantization.

    Args:
        config: transformers' ``PretrainedConfig``.
        dtype: ``torch.dtype`` of its parameters.
    """
    import torch
    from transformers import AutoModelForCausalLM

    plain = copy.deepcopy(config)
    if hasattr(plain, "quantization_config"):
        del plain.quantization_config
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(plain, dtype=dtype)


def initialize(model: Any, module: Any, device: Any) -> None:
    """Give a module of ``model`` memory on ``device``, and the values that its architecture begins with: weights from
    the published distribution, frequencies of rotary embeddings.
    """
    module.to_empty(device=device, recurse=False)
    model._init_weights(module)


def materialize(model: Any, device: Any) -> None:
    """`initialize` all that has no memory yet."""
    embedding = model.get_input_embeddings()
    if embedding.weight.is_meta:
        initialize(model, embedding, device)
    model.tie_weights()
    for module in model.modules():
        tensors = list(chain(module.parameters(recurse=False), module.buffers(recurse=False)))
        if tensors and all(tensor.is_meta for tensor in tensors):
            initialize(model, module, device)
