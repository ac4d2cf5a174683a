r"""The rules by which a kernel's name tells what it is for and which numbers it works on. Data, read top to bottom.

A rule is a list of regular expressions without blanks, separated by blanks; case does not matter. The first rule of
which one is found in the name decides. They are written against names as CUPTI demangles them (cuBLAS, CUTLASS,
FlashAttention, FlashInfer, Marlin, Machete, vLLM, PyTorch, Triton and inductor's templates, NCCL) and against
``torch.profiler``'s operator names on a CPU.
"""

from __future__ import annotations

import re
from typing import Final

from qmeter_native.model.op_family import OpFamily

__all__ = ["FAMILY_RULES", "MARKER_NAME", "SCHEME_RULES"]

MARKER_NAME: Final = "qmeter_step_marker"
"""The empty kernel that bounds an engine step on the device."""


def _any_of(alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives.split()), re.IGNORECASE)


FAMILY_RULES: Final = tuple(
    (family, _any_of(alternatives))
    for family, alternatives in (
        (OpFamily.METER, rf"^(void\s)?{MARKER_NAME}\b"),
        (OpFamily.MEMORY, r"^(\[CUDA\s)?(memcpy|memset)"),
        (
            OpFamily.COMMUNICATION,
            r"nccl all_?reduce all_?gather reduce_?scatter cross_device nvshmem \bc10d:: one_?shot two_?shot",
        ),
        # What names its purpose comes before what names only its means.
        (OpFamily.MOE, r"fused_moe \bmoe _moe_ moe_ ::moe grouped_?gemm expert topk_?gating"),
        (
            OpFamily.KV_CACHE,
            r"reshape_and_cache concat_and_cache append_?paged_?kv copy_blocks swap_blocks kv_cache update_?cache "
            r"store_kvcache set_mla_kv_buffer",
        ),
        (
            OpFamily.ATTENTION,
            r"flash(?!infer) fmha attention attn paged_?kv Batch(Decode|Prefill) Single(Decode|Prefill) merge_?state "
            r"sdpa mla_ scaled_dot_product",
        ),
        (OpFamily.DEQUANTIZE, r"dequant(?!.*gemm)"),
        (
            OpFamily.GEMM,
            r"marlin(?!.*(repack|permute)) machete(?!.*prepack) awq_gem[mv] gptq.*gemm gemm.*gptq gemm_half_q_half "
            r"scaled_mm exllama bitblas dequant.*gemm qlinear _weight_int\dpack_mm _int_mm gemm.*blockwise",
        ),
        (OpFamily.QUANTIZE, r"quant _to_fp8 fp8_cast repack prepack choose_qparams"),
        (OpFamily.ACTIVATION, r"rotary rope"),
        (
            OpFamily.NORM,
            r"rms_?norm layer_?norm group_?norm triton_(red|per)_fused.*rsqrt aten::(rsqrt|pow|mean)$",
        ),
        (
            OpFamily.SAMPLING,
            r"argmax argmin top_?[kp] sampl multinomial soft_?max sort scan_ cumsum cumprod penalt distribution_ "
            r"exponential philox renorm gumbel logit aten::(max|bincount|rand\w*|any|all|eq|ne|isin)$",
        ),
        (
            OpFamily.GEMM,
            r"gemm gemv nvjet cutlass xmma cublas splitKreduce triton_tem_fused.*mm matmul _mm_kernel conv "
            r"aten::(mm|addmm|bmm|baddbmm|linear|mv|addmv|dot|_addmm_activation)$ (mkldnn|onednn).*linear",
        ),
        (OpFamily.KV_CACHE, r"index_put index_copy"),
        (OpFamily.ACTIVATION, r"silu gelu relu swiglu act_and_mul sigmoid tanh softplus"),
        (
            OpFamily.MEMORY,
            r"copy Cat(Array)?Batch \bcat\b concat index gather scatter embedding fill arange transpose permute "
            r"contiguous clone masked flip unfold stack nonzero where pad\b split tri[ul] DeviceSelect DeviceCompact "
            r"aten::(_to_copy|to|select|slice|narrow|expand|repeat\w*|zero_|ones\w*|zeros\w*|empty\w*|full\w*|item"
            r"|_local_scalar_dense|resize_|set_|lift_fresh|roll|t|view\w*|_unsafe_view|_?reshape\w*|unsqueeze|squeeze"
            r"|as_strided|alias|flatten|movedim|resolve_\w+)$ detach_?$",
        ),
        (OpFamily.NORM, r"reduce_kernel.*(Mean|Norm) triton_(red|per)_"),
        (
            OpFamily.ACTIVATION,
            r"elementwise triton_poi pointwise functor "
            r"aten::(mul|add|sub|rsub|div|neg|exp|cos|sin|sqrt|abs|clamp\w*|minimum|maximum|square|reciprocal|log"
            r"|logical_\w+|bitwise_\w+|lt|le|gt|ge|remainder|floor_divide|__\w+__|sum|polar|erf|outer|addcmul|lerp)_?$",
        ),
        (OpFamily.SAMPLING, r"reduce_kernel"),
    )
)
"""What a kernel is for. ``activation`` holds elementwise arithmetic of every kind, ``memory`` what only moves data."""

SCHEME_RULES: Final = tuple(
    (scheme, _any_of(alternatives))
    for scheme, alternatives in (
        # Marlin's template argument is vLLM's packed ScalarType: exponent bits | mantissa bits << 8 | signed << 16 |
        # bias << 17 | finite << 49 | NaN kind << 50: u8b128 16779264, e4m3fn 2814749767172868, e2m1f 562949953487106.
        ("W8A16-INT", r"marlin.*\b16779264\b gptq_8bit _weight_int8pack_mm"),
        ("W8A16-FP", r"marlin.*\b2814749767172868\b"),
        ("W4A16-FP", r"marlin.*\b562949953487106\b"),
        ("W3A16-INT", r"gptq_3bit"),
        ("W2A16-INT", r"gptq_2bit"),
        ("W4A16-INT", r"marlin machete awq_ gptq exllama _weight_int4pack_mm uint4b \bint4"),
        ("W4A4-FP", r"nvfp4 e2m1.*e2m1 mxf4nvf4"),
        ("W8A8-FP", r"(gemm|mm|nvjet|cutlass|xmma).*(e4m3|e5m2|fp8|float8) e4m3e4m3 nvjet_(sm\d+_)?qq"),
        ("W8A8-INT", r"(gemm|mm|cutlass|xmma).*(int8|_s8|s8s8|i8i8|signed\schar) _int_mm imma igemm qlinear"),
        ("fp8", r"e4m3 e5m2 fp8(?!KVCacheDataType) float8"),
        ("bf16", r"bf16 bfloat16 nvjet_(sm\d+_)?t[st]"),
        ("tf32", r"tf32"),
        # cuDNN's "wgmma_f16" names the width of the instruction, for bfloat16 too.
        (
            "fp16",
            r"f16f16 fp16 \bhalf\b __half half_t ::half (?<!wgmma)_f16 _h16 hgemm h884 h1688 h16816 nvjet_(sm\d+_)?hs",
        ),
        ("int8", r"int8 signed\schar"),
        ("fp32", r"sgemm f32f32 \bfloat\b _fp32"),
    )
)
"""Quantization scheme or number format, as far as the name tells. vLLM's ScalarType is in ``core/scalar_type.hpp``."""
