"""Kernel names of decoders' steps in stream order, and captures that run them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import EngineInfo
from tests.factories import CaptureBuilder

MACHETE = (
    "void cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<cute::tuple<int, int, int, int>, "
    "machete::MacheteCollectiveMma<cute::tuple<cutlass::vllm_biased_integer_subbyte<4, 8, false>, cutlass::half_t>>>>"
)
FP8_GEMM = (
    "void cutlass::device_kernel<vllm::cutlass_3x_gemm_sm90_fp8<cutlass::float_e4m3_t, cutlass::bfloat16_t, "
    "vllm::c3x::ScaledEpilogue>::GemmKernel>"
)
FP8_QUANT = "void vllm::dynamic_per_token_scaled_fp8_quant_kernel_strided<c10::BFloat16, c10::Float8_e4m3fn>"
CUBLAS = "nvjet_sm90_tst_64x32_64x16_1x2_h_bz_TNT"
CUBLAS_FP8 = "nvjet_sm90_qqtst_64x32_128x8_1x2_h_bz_TNT"
SPLIT_K = "nvjet_sm90_tst_64x32_64x16_4x2_h_bz_splitK_TNT"
SPLIT_K_REDUCE = "void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16, float, __nv_bfloat16, true>"
FLASH_3 = "void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<cutlass::bfloat16_t>>>"
COMBINE = "void cutlass::device_kernel<flash::FlashAttnFwdCombine<cutlass::bfloat16_t, float, cutlass::arch::Sm90>>"
PREPARE = "void flash::prepare_varlen_num_blocks_kernel<1, true>(int, int, int)"
CACHE = "void vllm::reshape_and_cache_flash_kernel<__nv_bfloat16, __nv_bfloat16, (vllm::Fp8KVCacheDataType)0>"
EMBEDDING_NORM = "triton_red_fused__to_copy_add_embedding_mean_mul_pow_rsqrt_0"
ADD_NORM = "triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_2"
ROPE = "triton_poi_fused_add_cat_mul_split_sub_1"
SILU = "triton_poi_fused_mul_silu_slice_3"
NEIGHBOURS_FIRST_NORM = "triton_red_fused__to_copy_embedding_machete_mm_rms_norm_0"
NEIGHBOURS_POST_NORM = "triton_red_fused_fused_add_rms_norm_machete_mm_0"
NEIGHBOURS_SILU = "triton_poi_fused_machete_mm_mul_silu_slice_1"
NEIGHBOURS_NORM = "triton_red_fused_fused_add_rms_norm_machete_mm_2"
NAMELESS_ROPE = "triton_poi_fused_3"
CLEAR_COUNTER = (
    "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<int>, std::array<char*, 1ul> >"
)
ALL_REDUCE = "void vllm::cross_device_reduce_1stage<__nv_bfloat16, 2>"
INPUTS = ("_prepare_prefill_inputs_kernel", "_prepare_pos_seq_lens_kernel", "_compute_slot_mappings_kernel")
GATHER = "void at::native::vectorized_gather_kernel<16, long>"
SAMPLER = ("_temperature_kernel", "_gumbel_sample_kernel", "_post_update_kernel")


@dataclass(frozen=True)
class Decoder:
    """How an engine runs one model: the kernels of each place, in order."""

    num_layers: int = 3
    qkv: tuple[str, ...] = (CUBLAS,)
    rope: tuple[str, ...] = (ROPE,)
    cache: tuple[str, ...] = (CACHE,)
    attention: tuple[str, ...] = (FLASH_3,)
    output: tuple[str, ...] = (CUBLAS,)
    gate_up: tuple[str, ...] = (CUBLAS,)
    activation: tuple[str, ...] = (SILU,)
    down: tuple[str, ...] = (CUBLAS,)
    norm: tuple[str, ...] = (ADD_NORM,)
    first_norm: tuple[str, ...] = (EMBEDDING_NORM,)
    head: tuple[str, ...] = (CUBLAS,)
    opening: tuple[str, ...] = (*INPUTS, PREPARE)

    def step(self) -> list[tuple[str, int, str]]:
        """Name, layer and role of every kernel of a step."""
        rows = [(name, -1, "attention" if name == PREPARE else "other") for name in self.opening]
        for layer in range(self.num_layers):
            places = {
                "input_norm": self.norm if layer else self.first_norm,
                "qkv_proj": self.qkv,
                "rope": self.rope,
                "kv_write": self.cache,
                "attention": self.attention,
                "o_proj": self.output,
                "post_norm": self.norm,
                "gate_up_proj": self.gate_up,
                "activation": self.activation,
                "down_proj": self.down,
            }
            for role, names in places.items():
                rows += [(name, layer, "communication" if name == ALL_REDUCE else role) for name in names]
        rows += [(name, -1, "final_norm") for name in self.norm]
        rows += [(GATHER, -1, "other")] + [(name, -1, "lm_head") for name in self.head]
        return rows + [(name, -1, "sampling") for name in SAMPLER]


@dataclass
class Run:
    """Steps of decoders, one after the other, 10 ns a kernel; `capture` makes the capture."""

    builder: CaptureBuilder = field(default_factory=CaptureBuilder)
    now: int = 10
    num_steps: int = 0

    def step(self, names: Sequence[str], *, num_padded: int = -1, graph: int = 0) -> Run:
        """Add a step that runs ``names``; in a graph their nodes are numbered from ``1000 * graph``."""
        begin = self.now
        self.builder.marker(begin, 2 * self.num_steps)
        self.now += 10
        for index, name in enumerate(names):
            node = 1000 * graph + index + 1 if graph else 0
            self.builder.kernel(self.now, self.now + 10, name, graph=graph, graph_node=node)
            self.now += 10
        self.builder.marker(self.now, 2 * self.num_steps + 1)
        times = {"num_markers": 2, "stream": 7, "num_padded": num_padded}
        self.builder.step(self.num_steps, begin, self.now, **times)
        self.now += 20
        self.num_steps += 1
        return self

    def capture(self, engine: EngineInfo | None = None) -> Capture:
        """The capture; its measured window is the whole run."""
        self.builder.length_ns = self.now + 10
        self.builder.changes["engine"] = engine
        return self.builder.build()
