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


_FUSED: Final = r"\btriton_(?!tem_)[a-z]+_fused"
"""Inductor's generated kernels, templates of matrix products left out. It names them after all that lies beside them in
the graph, ``machete_mm`` and ``all_reduce`` too, but generates only elementwise work and reductions."""

_MOVE: Final = (
    "(_to_copy|clone|copy|cat|stack|split|select|slice|view|unsafe_view|t|transpose|permute|expand|unsqueeze|squeeze"
    "|fill|full|zeros|ones|gather|scatter|index|index_select|embedding)"
)
"""Inductor's words for moving data."""


def _any_of(alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives.split()), re.IGNORECASE)


FAMILY_RULES: Final = tuple(
    (family, _any_of(alternatives))
    for family, alternatives in (
        (OpFamily.METER, rf"^(void\s)?{MARKER_NAME}\b"),
        (OpFamily.GEMM, r"^(weight_only_kernel|scaled_product|w4a8_product)$"),  # qmeter_native.kernels
        (OpFamily.MEMORY, r"^(\[CUDA\s)?(memcpy|memset)"),
        # A norm or an activation that quantizes its result is a norm or an activation still.
        (OpFamily.NORM, rf"{_FUSED}\w*(rsqrt|rms_?norm|layer_?norm)"),
        (OpFamily.ACTIVATION, rf"{_FUSED}\w*(silu|gelu|relu|sigmoid|tanh)"),
        (OpFamily.SAMPLING, rf"{_FUSED}\w*(soft_?max|argmax|topk|sort|cumsum|exponential)"),
        (OpFamily.QUANTIZE, rf"{_FUSED}\w*(clamp|amax|quant|float8|to_fp8)"),
        (OpFamily.MEMORY, rf"\btriton_poi_fused(_{_MOVE})+_\d+$"),
        (OpFamily.NORM, r"\btriton_(red|per)_fused"),
        (OpFamily.ACTIVATION, _FUSED),
        (
            OpFamily.COMMUNICATION,
            r"nccl all_?reduce all_?gather reduce_?scatter cross_device nvshmem \bc10d:: one_?shot two_?shot lamport",
        ),
        # What names its purpose comes before what names only its means.
        (
            OpFamily.MOE,
            r"fused_moe \bmoe _moe_ moe_ ::moe finalizeMoe expandInputRows grouped_?gemm GroupProblemShape expert "
            r"topk_?gating router_gemm matmul_ogs \bbmm_(bfloat16|fp16|e4m3|e2m1|mxe\w+)_",
        ),
        (
            OpFamily.QUANTIZE,
            r"repack_kernel prepack_B reorder_tensor gptq::(shuffle|make_sequential) rearrange_kn int4_fp8_preprocess",
        ),
        (OpFamily.NORM, r"rms_?norm.*quant"),
        (OpFamily.ACTIVATION, r"(silu|act|gelu)_?(and_)?mul.*(quant|fp4|fp8)"),
        (
            OpFamily.KV_CACHE,
            r"reshape_(and_)?cache concat_and_cache append_?paged_?kv copy_blocks swap_blocks kv_cache kv_?blocks "
            r"_tq_fused_store update_?cache store_kvcache set_mla_kv_buffer gather_cache dequant_cache KVInsert",
        ),
        # State-space and linear mixers stand where attention does.
        (
            OpFamily.ATTENTION,
            r"flash(?!infer) fmha attention attn paged_?kv Batch(Decode|Prefill) Single(Decode|Prefill) "
            r"(Decode|Prefill)WithKVCache merge_?state sdpa mla_ scaled_dot_product prepare_varlen reduce_segments "
            r"kernel_mha ^_fwd_(grouped_)?kernel mask_empty_context _tq_decode selective_scan causal_conv1d delta_rule "
            r"chunk_\w+_fwd_kernel",
        ),
        (OpFamily.DEQUANTIZE, r"dequant(?!.*gemm) gptq::reconstruct"),
        (
            OpFamily.GEMM,
            r"marlin(?!.*permute) machete awq_gem[mv] gptq.*gemm gemm.*gptq gemm_half_q_half scaled_mm exllama bitblas "
            r"dequant.*gemm qlinear _weight_int\dpack_mm _int_mm gemm.*blockwise allspark tinygemm gemm_INT gemv_INT "
            r"kgemm_4bit w8a8_.*(mm|matmul) w4a16 w4a8 _linear_kernel deep_gemm",
        ),
        (
            OpFamily.QUANTIZE,
            r"quant _to_fp8 fp8_cast choose_qparams cvt_fp16_to_fp4 convert_fp8 hadamard segmented_max_reduction",
        ),
        # Model Runner V2 of vLLM prepares a step's inputs in kernels of its own.
        (
            OpFamily.MEMORY,
            r"_prepare_\w+_kernel slot_mapping block_tables idx_mapping _apply_write_kernel batch_memcpy "
            r"_update_draft_inputs _combine_sampled_and_draft eagle_\w+_kernel copy_and_expand num_computed_tokens",
        ),
        (OpFamily.ACTIVATION, r"rotary rope"),
        (OpFamily.NORM, r"rms_?norm layer_?norm group_?norm cudnn::bn_ aten::(rsqrt|pow|mean)$"),
        (
            OpFamily.SAMPLING,
            r"argmax argmin top_?[kp] sampl multinomial soft_?max sort scan_ cumsum cumprod penalt distribution_ "
            r"exponential philox renorm gumbel logit aten::(max|bincount|rand\w*|any|all|eq|ne|isin)$ "
            r"_(temperature|bias|min_p|bad_words|ranks|bincount|num_nans|rejection|resample|post_update)_kernel "
            r"^expand_kernel bitmask _logprob _compute_(local|global|cumulative)_\w*",
        ),
        (
            OpFamily.GEMM,
            r"gemm gemv nvjet cutlass xmma cublas splitKreduce triton_tem_fused.*mm matmul _mm_kernel conv(?!ert) "
            r"aten::(mm|addmm|bmm|baddbmm|linear|mv|addmv|dot|_addmm_activation)$ (mkldnn|onednn).*linear",
        ),
        (OpFamily.KV_CACHE, r"index_put index_copy"),
        (OpFamily.ACTIVATION, r"silu gelu relu swiglu act_and_mul sigmoid tanh softplus activation_kernel"),
        (
            OpFamily.MEMORY,
            r"copy Cat(Array)?Batch \bcat\b concat index gather scatter embedding fill arange transpose permute "
            r"contiguous clone masked flip unfold stack nonzero where pad\b split tri[ul] DeviceSelect DeviceCompact "
            r"aten::(_to_copy|to|select|slice|narrow|expand|repeat\w*|zero_|ones\w*|zeros\w*|empty\w*|full\w*|item"
            r"|_local_scalar_dense|resize_|set_|lift_fresh|roll|t|view\w*|_unsafe_view|_?reshape\w*|unsqueeze|squeeze"
            r"|as_strided|alias|flatten|movedim|resolve_\w+)$ detach_?$",
        ),
        (OpFamily.NORM, r"reduce_kernel.*(Mean|Norm)"),
        (
            OpFamily.ACTIVATION,
            r"elementwise pointwise functor "
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
        ("fp8", rf"{_FUSED}\w*(fp8_quant|quant_fp8|to_fp8|float8)"),
        (None, rf"{_FUSED} ^w4a8_product$"),  # ours multiplies int8 and FP8
        # Marlin's first two template arguments are vLLM's packed ScalarType of activations (older: a type) and weights:
        # exponent bits | mantissa bits << 8 | signed << 16 | bias << 17 | finite << 49 | NaN kind << 50. So int8 is
        # 1125899906909952, u8b128 1125899923621888 (older, without the NaN kind: 16779264), e4m3fn 2814749767172868,
        # e2m1f 562949953487106.
        ("W4A8-INT", r"marlin<1125899906909952l?,"),
        ("W4A8-FP", r"marlin<2814749767172868l?, matmul_ogs_\w+x(fp8|e4m3|e5m2|float8)\w*xmxfp4"),
        (
            "W8A16-INT",
            r"marlin.*\b(16779264|1125899923621888)l?\b gptq_8bit (shuffle|alt|exllama|sequential)_8bit "
            r"_weight_int8pack_mm w8a16 machete.*(integer_subbyte<8|MacheteCollectiveMma<cute::tuple<unsigned)",
        ),
        # Before fp8: NVFP4's scales are e4m3fn.
        ("W4A16-FP", r"marlin.*\b562949953487106l?\b matmul_ogs_\w+xmxfp4"),
        ("W8A16-FP", r"marlin.*\b2814749767172868l?\b"),
        ("W4A16-NF", r"k(gemm|gemv)_4bit"),
        ("W4A8-INT", r"w4a8"),
        ("W3A16-INT", r"gptq_3bit exllama_3bit"),
        ("W2A16-INT", r"gptq_2bit exllama_2bit"),
        (
            "W4A16-INT",
            r"marlin machete awq_ \bawq:: gptq exllama _weight_int4pack_mm uint4b \b(u?int4_t|uint4) tinygemm w4a16",
        ),
        ("fp8", r"(flash|fmha|attention).*(e4m3|e5m2|fp8_?e)"),
        ("W4A4-FP", r"nvfp4 e2m1.*e2m1 mxf4nvf4"),
        (
            "W8A8-FP",
            r"(gemm|mm|nvjet|cutlass|xmma).*(e4m3|e5m2|fp8|float8) e4m3e4m3 nvjet_(sm\d+_)?qq fp8.*gemm "
            r"w8a8_triton_block_scaled",
        ),
        (
            "W8A8-INT",
            r"(gemm|mm|cutlass|xmma).*(int8|_s8|s8s8|i8i8|i8i32|signed\schar) _int_mm imma igemm qlinear block_int8",
        ),
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
