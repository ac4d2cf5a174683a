r"""Who wrote a kernel, told by its name; and which implementations carry a quantization method out. Data.

A rule is a list of regular expressions without blanks, separated by blanks; case does not matter. The first rule of
which one is found in the name decides. Names are as CUPTI demangles them; ``vllm/model_executor/kernels/linear`` lists
the linear-layer implementations of vLLM.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

__all__ = [
    "FORMATS",
    "FORMAT_OF_METHOD",
    "IMPLEMENTATION_RULES",
    "NAMES_TELL",
    "UNQUANTIZED",
    "KernelFormat",
    "implementation",
]


def _any_of(alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives.split()), re.IGNORECASE)


IMPLEMENTATION_RULES: Final = tuple(
    (name, _any_of(alternatives))
    for name, alternatives in (
        (
            "qmeter",
            r"\bqmeter_ ^(weight_only_kernel|dequantize_tile_kernel|scaled_product|w4a8_product"
            r"|_quantize_(rows|groups|static)_kernel|_rms_norm_kernel)$",
        ),
        ("Inductor", r"^triton_[a-z]+_fused"),
        ("Marlin", r"marlin"),
        ("Machete", r"machete"),
        ("AllSpark", r"allspark hgemm_W8A16"),
        ("AWQ", r"\bawq_ ::awq:: gemm_forward_4bit_cuda gemmv2_forward_4bit"),
        ("ExLlama", r"gemm_half_q_half gptq_\dbit exllama ::gptq::"),
        ("bitsandbytes", r"kgemm_4bit kgemv_4bit k(De)?quantizeBlockwise kInt8VectorQuant kdequant_mm_int32"),
        ("gemlite", r"gemlite \bgem[mv]_INT_((rev)?splitK_)?kernel \bgem[mv]_(rev)?splitK_(persistent_)?(INT_)?kernel"),
        ("Humming", r"humming"),
        ("Conch", r"\bconch _mixed_precision_gemm_kernel"),
        ("DeepGEMM", r"deep_?gemm"),
        ("FlashMLA", r"flash_?mla"),
        (
            "FlashAttention 3",
            r"FlashAttn(Fwd|Bwd)(Sm90|Combine) flash::enable_sm90_or_later flash::prepare_varlen_num_blocks",
        ),
        ("FlashAttention 4", r"flash_?attn.*cute FlashAttentionForwardSm\d+"),
        ("FlashInfer attention", r"flashinfer.*((decode|prefill)with|merge_?state|attention|paged) fmhaSm\d+"),
        ("FlashInfer GEMM", r"flashinfer.*(gemm|matmul|mm_fp\d) trtllm.*gemm \bbmm_(e4m3|e2m1|bfloat16|mxe)"),
        ("FlashInfer", r"flashinfer"),
        ("FlashAttention 2", r"flash_fwd flash_bwd pytorch_flash"),
        ("cuDNN attention", r"cudnn.*(sdpa|flash)"),
        ("memory-efficient attention", r"fmha_cutlass PyTorchMemEffAttention"),
        ("vLLM paged attention", r"paged_attention_v\d"),
        (
            "Triton attention",
            r"kernel_unified_attention kernel_paged_attention_2d \breduce_segments ^merge_attn_states_kernel "
            r"\b_fwd_(grouped_)?kernel(_stage\d|_alibi)?\b",
        ),
        ("CUTLASS W4A8", r"w4a8 cutlass.*int4b_t.*float_e4m3"),
        (
            "CUTLASS scaled-mm",
            # vLLM's wrappers that compile a product for some architectures only; FlashAttention has its own.
            r"cutlass_[23]x_gemm cutlass_scaled ScaledEpilogue c[23]x:: cutlass.*(nvfp4|nv_float4) "
            r"(?<!flash::)\benable_sm\d+_\w+<cutlass",
        ),
        ("FBGEMM", r"fbgemm"),
        ("Triton scaled-mm", r"^_?(w8a8_(triton_)?block\w*|scaled_mm_kernel|w8a8_block_int8_matmul)"),
        ("Triton W4A16", r"triton_w4a16"),
        ("Triton MoE W4A16", r"fused_moe_kernel_gptq_awq"),
        ("Triton MoE", r"fused_moe_kernel"),
        ("cuDNN", r"cudnn xmma_[fdw](prop|grad)"),
        (
            "cuBLAS",
            r"nvjet xmma_gemm cublas gemvx:: gemv2T gemvNSP splitKreduce \bcutlass_\d+_(wmma_)?(tensorop|simt) "
            r"^(void\s)?(ampere|volta|turing|maxwell|sm\d+)_\w*gemm dot_kernel.*cublas",
        ),
        ("CUTLASS", r"cutlass"),
        ("NCCL", r"\bnccl"),
        ("Triton", r"^_?(matmul|gemm|mm|bmm)_?(ogs|persistent)?\w*_kernel\b ^_matmul_ogs"),
        ("PyTorch", r"^aten:: ^mkldnn:: ^onednn:: at::native"),
        (
            "vLLM",
            r"\bvllm:: ^_(apply_write|prepare_\w+|combine_sampled\w*|gather_block_tables|compute_slot_mappings"
            r"|gumbel_sample|get_num_sampled\w*|post_update\w*|temperature|min_p|ranks|bad_words|topk_log_softmax"
            r"|expand_idx_mapping|apply_grammar_bitmask)_kernel",
        ),
    )
)
"""Who wrote it. What is built on CUTLASS comes before CUTLASS; ``cutlass_80_tensorop…`` are kernels inside cuBLAS."""


@lru_cache(maxsize=65536)
def implementation(name: str) -> str | None:
    """Who wrote a kernel; None if no rule knows its name."""
    return next((found for found, pattern in IMPLEMENTATION_RULES if pattern.search(name)), None)


@dataclass(frozen=True, slots=True)
class KernelFormat:
    """How matrix products of one number format show: by who wrote them, or by the scheme in their names."""

    implementations: tuple[str, ...]
    schemes: tuple[str, ...]


_INTEGER_WEIGHTS: Final = KernelFormat(
    (
        *("Machete", "Marlin", "AllSpark", "ExLlama", "CUTLASS W4A8", "Conch", "Humming", "Triton W4A16"),
        *("Triton MoE W4A16", "gemlite", "qmeter"),
    ),
    ("W2A16-INT", "W3A16-INT", "W4A16-INT", "W8A16-INT", "W4A8-INT", "W4A8-FP"),
)
FORMATS: Final[dict[str, KernelFormat]] = {
    "integer weights": _INTEGER_WEIGHTS,
    "awq": KernelFormat((*_INTEGER_WEIGHTS.implementations, "AWQ"), _INTEGER_WEIGHTS.schemes),
    "fp8": KernelFormat(
        (
            *("CUTLASS scaled-mm", "DeepGEMM", "FlashInfer GEMM", "Triton scaled-mm", "Marlin", "FBGEMM"),
            *("Humming", "qmeter"),
        ),
        ("W8A8-FP", "W8A16-FP"),
    ),
    "int8": KernelFormat(("CUTLASS scaled-mm", "Triton scaled-mm", "AllSpark", "qmeter"), ("W8A8-INT", "W8A16-INT")),
    "fp4": KernelFormat(
        ("CUTLASS scaled-mm", "FlashInfer GEMM", "Marlin", "FBGEMM", "Humming", "qmeter"),
        ("W4A4-FP", "W4A8-FP", "W4A16-FP"),
    ),
    "bitsandbytes": KernelFormat(("bitsandbytes", "qmeter"), ("W8A8-INT",)),
}
"""Number formats, and which implementations multiply in them."""

UNQUANTIZED: Final = frozenset({"", "none", "auto", "float16", "bfloat16", "fp16", "bf16", "kv8", "kv4"})
"""What engines call no quantization of matrix products; ours of the cache alone among them."""

NAMES_TELL: Final = frozenset({"cuBLAS", "CUTLASS", "PyTorch"})
"""Implementations whose names tell a quantized format if there is one. A Triton kernel's name does not."""

FORMAT_OF_METHOD: Final[dict[str, str]] = {
    method: name
    for name, methods in (
        ("integer weights", "gptq gptq_marlin int8_per_channel_weight_only hqq qoq qserve"),
        ("awq", "awq awq_marlin"),
        ("fp8", "fp8 fbgemm_fp8 fp8_per_tensor fp8_per_block fp8_per_channel mxfp8 modelopt modelopt_mxfp8"),
        ("int8", "int8 w8a8"),
        ("fp4", "modelopt_fp4 nvfp4_per_token mxfp4 gpt_oss_mxfp4 nvfp4"),
        ("bitsandbytes", "bitsandbytes"),
    )
    for method in methods.split()
}
"""Number format of a method by the engine's name for it, less vLLM's ``auto_``; ``compressed-tensors`` says its own
in its configuration."""
