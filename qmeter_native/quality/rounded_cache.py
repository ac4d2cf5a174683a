"""Keys and values rounded as a quantized KV cache stores them."""

from __future__ import annotations

from typing import Any

from qmeter_native.kernels.packing.kv_cache import dequantize_kv, format_named, quantize_kv
from qmeter_native.quantization.method import KV_FORMATS

__all__ = ["round_cache"]


def round_cache(model: Any, name: str) -> None:
    """From now on, every query meets rounded keys and values, those of its own token included.

    An engine rounds what it reads from its cache, and may compute a prompt's own tokens from what is not rounded yet:
    scores of text are then a little better than these.

    Args:
        model: A transformers model.
        name: Of `qmeter_native.quantization.method.KV_FORMATS`; one scale for all tokens is 1, as vLLM's default.
    """
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    form = format_named(KV_FORMATS[name].vllm_name)

    def rounded(x: Any) -> Any:
        scales = torch.ones(1, device=x.device) if form.scaling == "head" else None
        return dequantize_kv(*quantize_kv(x, form, scales), form).to(x.dtype)

    def attention(module: Any, query: Any, key: Any, value: Any, *arguments: Any, **options: Any) -> Any:
        return sdpa_attention_forward(module, query, rounded(key), rounded(value), *arguments, **options)

    label = f"qmeter_kv_{name}"
    AttentionInterface.register(label, attention)
    AttentionMaskInterface.register(label, sdpa_mask)
    model.set_attn_implementation(label)
