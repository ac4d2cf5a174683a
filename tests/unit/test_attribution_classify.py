# ruff: noqa: E501
"""Names of real kernels and operators, and what they are for."""

from __future__ import annotations

import pytest

from qmeter_native.attribution.classify import display_name, op_family, scheme
from qmeter_native.model.op_family import OpFamily

GEMM, ATTENTION, NORM, ACTIVATION = OpFamily.GEMM, OpFamily.ATTENTION, OpFamily.NORM, OpFamily.ACTIVATION
MEMORY, SAMPLING, KV_CACHE, QUANTIZE = OpFamily.MEMORY, OpFamily.SAMPLING, OpFamily.KV_CACHE, OpFamily.QUANTIZE
NATIVE = "void at::native::"

KERNELS = [
    ("qmeter_step_marker", OpFamily.METER, None),
    ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_execute_segment_k_off_kernel__5x_cublas", GEMM, "bf16"),
    ("sm80_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize64x64x64_stage5_warpsize2x2x1_tensor16x8x16_kernel", GEMM, "fp16"),
    ("sm90_xmma_gemm_e4m3bf16_e4m3f32_f32_tn_n_tilesize64x64x128_cublas", GEMM, "W8A8-FP"),
    ("sm90_xmma_gemm_f32f32_tf32f32_f32_tn_n_tilesize128x128x32_cublas", GEMM, "tf32"),
    ("nvjet_tst_192x192_64x4_2x1_v_bz_coopA_TNT", GEMM, "bf16"),
    ("nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_TNN", GEMM, "fp16"),
    ("nvjet_sm100_qqtst_128x256_128x6_2x2_2cta_v_bz_Avec32UE8M0_Bvec32UE8M0_TNT", GEMM, "W8A8-FP"),
    ("void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16, float, __nv_bfloat16, true, false, false>(cublasLt::cublasSplitKParams<float>)", GEMM, "bf16"),
    ("std::enable_if<!(false), void>::type internal::gemvx::kernel<int, int, __nv_bfloat16, __nv_bfloat16, __nv_bfloat16, float, false, true, true, false, 7, false, cublasGemvParamsEx<int>>", GEMM, "bf16"),
    ("void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_16x16_128x1_tn_align8>(cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_16x16_128x1_tn_align8::Params)", GEMM, "bf16"),
    ("void cutlass::device_kernel<vllm::cutlass_3x_gemm<cutlass::float_e4m3_t, cutlass::bfloat16_t, vllm::c3x::ScaledEpilogue, cute::tuple<cute::C<64>>>::GemmKernel>", GEMM, "W8A8-FP"),
    ("void cutlass_scaled_mm_kernel<int8_t, cutlass::half_t>", GEMM, "W8A8-INT"),
    ("void marlin::Marlin<__nv_bfloat16, 1049600, 1125899906909960, 256, 1, 8, 8, true, 4, 8, false>(int4 const*, int4 const*)", GEMM, "W4A16-INT"),
    ("void marlin::Marlin<half, 2814749767172868, 1125899906910725, 256, 1, 8, 8, true, 4, 8, false>", GEMM, "W8A16-FP"),
    ("void marlin::Marlin<half, 16779264, 1125899906910725, 256, 1, 8, 8, true, 4, 8, false>", GEMM, "W8A16-INT"),
    ("void cutlass::device_kernel<machete::MacheteKernelTemplate<cutlass::half_t, cutlass::vllm_uint4b8_t, cutlass::half_t, float>::GemmKernel>", GEMM, "W4A16-INT"),
    ("void vllm::awq::gemm_forward_4bit_cuda_m16nXk32<128>", GEMM, None),
    ("awq_gemm_kernel", GEMM, "W4A16-INT"),
    ("void vllm::gptq::gemm_half_q_half_gptq_4bit_kernel<true, 1>(__half const*, unsigned int const*)", GEMM, "W4A16-INT"),
    ("triton_tem_fused_mm_3", GEMM, None),
    ("void gptq_marlin_repack_kernel<4, 256, 8, false>", QUANTIZE, "W4A16-INT"),
    ("void vllm::scaled_fp8_quant_kernel<c10::BFloat16, c10::Float8_e4m3fn>", QUANTIZE, "fp8"),
    ("void vllm::dynamic_per_token_scaled_fp8_quant_kernel<c10::BFloat16, c10::Float8_e4m3fn>", QUANTIZE, "fp8"),
    ("void kDequantizeBlockwise<__nv_bfloat16, 512, 64, 8, 2>", OpFamily.DEQUANTIZE, "bf16"),
    ("awq_dequantize_kernel", OpFamily.DEQUANTIZE, "W4A16-INT"),
    ("void flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64, 4, false, false, cutlass::bfloat16_t>, false, true>", ATTENTION, "bf16"),
    ("void flash::flash_fwd_splitkv_combine_kernel<Flash_fwd_kernel_traits<128, 64, 128, 4>>", ATTENTION, None),
    ("void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<flash::CollectiveMainloopFwdSm90<2, cute::tuple<>>>>>", ATTENTION, None),
    ("void flashinfer::BatchPrefillWithPagedKVCacheKernel<flashinfer::KernelTraits<1>>", ATTENTION, None),
    ("fmha_cutlassF_bf16_aligned_64x128_rf_sm80(PyTorchMemEffAttention::AttentionKernel<cutlass::bfloat16_t>::Params)", ATTENTION, "bf16"),
    ("pytorch_flash::flash_fwd_kernel", ATTENTION, None),
    ("void vllm::paged_attention_v2_kernel<unsigned short, unsigned short, 128, 16, 128>", ATTENTION, None),
    ("kernel_unified_attention_2d", ATTENTION, None),
    ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_3_64x128x128_4x1x1_kernel0_0", ATTENTION, None),
    ("void vllm::reshape_and_cache_flash_kernel<__nv_bfloat16, __nv_bfloat16, (vllm::Fp8KVCacheDataType)0>", KV_CACHE, "bf16"),
    ("void flashinfer::AppendPagedKVCacheKernel<128u, 8u>", KV_CACHE, None),
    (NATIVE + "index_elementwise_kernel<128, 4, at::native::gpu_index_kernel<at::native::index_put_kernel_impl<at::native::OpaqueType<2>>>>", KV_CACHE, None),
    ("std::enable_if<((8)>(0)), void>::type vllm::fused_add_rms_norm_kernel<c10::BFloat16, 8>", NORM, "bf16"),
    ("void flashinfer::norm::FusedAddRMSNormKernel<8u, __nv_bfloat16>", NORM, "bf16"),
    ("triton_red_fused_add_mean_mul_pow_rsqrt_1", NORM, None),
    ("void vllm::rotary_embedding_kernel<c10::BFloat16, true>", ACTIVATION, "bf16"),
    ("void vllm::act_and_mul_kernel<c10::BFloat16, &(c10::BFloat16 vllm::silu_kernel<c10::BFloat16>(c10::BFloat16 const&)), true>", ACTIVATION, "bf16"),
    ("triton_poi_fused_mul_silu_0", ACTIVATION, None),
    (NATIVE + "vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<c10::BFloat16>, std::array<char*, 3ul>>", ACTIVATION, "bf16"),
    (NATIVE + "elementwise_kernel<128, 4, at::native::gpu_kernel_impl_nocast<at::native::direct_copy_kernel_cuda(at::TensorIteratorBase&)::{lambda()#3}>>", MEMORY, None),
    (NATIVE + "vectorized_elementwise_kernel<4, at::native::FillFunctor<float>, std::array<char*, 1ul>>", MEMORY, "fp32"),
    (NATIVE + "(anonymous namespace)::CatArrayBatchedCopy<at::native::(anonymous namespace)::OpaqueType<2u>, unsigned int, 3, 64, 64>", MEMORY, None),
    (NATIVE + "(anonymous namespace)::indexSelectSmallIndex<c10::BFloat16, long, unsigned int, 2, 2, -2>", MEMORY, "bf16"),
    (NATIVE + "reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::ArgMaxOps<float>, unsigned int, long, 4, 4>>", SAMPLING, "fp32"),
    (NATIVE + "reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::MeanOps<float, float, float, float>, unsigned int>>", NORM, "fp32"),
    ("void (anonymous namespace)::softmax_warp_forward<float, float, float, 10, false, false>", SAMPLING, "fp32"),
    (NATIVE + "(anonymous namespace)::cunn_SoftMaxForward<4, float, float, float>", SAMPLING, "fp32"),
    (NATIVE + "sbtopk::gatherTopK<float, unsigned int, 2, false>", SAMPLING, "fp32"),
    (NATIVE + "(anonymous namespace)::distribution_elementwise_grid_stride_kernel<float, 4>", SAMPLING, "fp32"),
    ("fused_moe_kernel", OpFamily.MOE, None),
    ("void vllm::moe::topkGating<8, 64, 4, 16, 32>", OpFamily.MOE, None),
    ("ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)", OpFamily.COMMUNICATION, "bf16"),
    ("void vllm::cross_device_reduce_1stage<__nv_bfloat16, 2>", OpFamily.COMMUNICATION, "bf16"),
    ("Memcpy DtoH", MEMORY, None),
    ("Memset", MEMORY, None),
    ("aten::mm", GEMM, None),
    ("aten::addmm", GEMM, None),
    ("aten::bmm", GEMM, None),
    ("aten::linear", GEMM, None),
    ("mkldnn::_linear_pointwise", GEMM, None),
    ("aten::_scaled_dot_product_flash_attention_for_cpu", ATTENTION, None),
    ("aten::rms_norm", NORM, None),
    ("aten::rsqrt", NORM, None),
    ("aten::silu", ACTIVATION, None),
    ("aten::mul", ACTIVATION, None),
    ("aten::add_", ACTIVATION, None),
    ("aten::copy_", MEMORY, None),
    ("aten::cat", MEMORY, None),
    ("aten::index", MEMORY, None),
    ("aten::index_select", MEMORY, None),
    ("aten::embedding", MEMORY, None),
    ("aten::fill_", MEMORY, None),
    ("aten::t", MEMORY, None),
    ("aten::_unsafe_view", MEMORY, None),
    ("aten::unsqueeze", MEMORY, None),
    ("detach_", MEMORY, None),
    ("aten::index_copy_", KV_CACHE, None),
    ("aten::argmax", SAMPLING, None),
    ("aten::_softmax", SAMPLING, None),
    ("aten::multinomial", SAMPLING, None),
    ("my_own_thing", OpFamily.OTHER, None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "family", "expected_scheme"), KERNELS, ids=[name[:60] for name, _, _ in KERNELS])
def test_a_name_tells_its_family_and_scheme(name: str, family: OpFamily, expected_scheme: str | None) -> None:
    assert op_family(name) is family
    assert scheme(name) == expected_scheme


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("nvjet_tst_192x192_64x4_2x1_v_bz_coopA_TNT", "nvjet_tst_192x192_64x4_2x1_v_bz_coopA_TNT"),
        ("aten::copy_", "aten::copy_"),
        ("Memcpy DtoH", "Memcpy DtoH"),
        (NATIVE + "vectorized_elementwise_kernel<4, at::native::FillFunctor<float>, std::array<char*, 1ul>>(int)", "vectorized_elementwise_kernel<FillFunctor>"),
        (NATIVE + "elementwise_kernel<128, 4, at::native::gpu_kernel_impl_nocast<at::native::direct_copy_kernel_cuda(int)>>", "elementwise_kernel<direct_copy_kernel_cuda>"),
        ("void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_16x16_128x1_tn_align8>(int)", "cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_16x16_128x1_…"),
        ("void marlin::Marlin<__nv_bfloat16, 1049600, 256, 1, 8, 8, true, 4, 8, false>(int4 const*)", "Marlin"),
        ("void vllm::act_and_mul_kernel<c10::BFloat16, &(c10::BFloat16 vllm::silu_kernel<c10::BFloat16>(int)), true>", "act_and_mul_kernel<silu_kernel>"),
        ("std::enable_if<!(false), void>::type internal::gemvx::kernel<int, int, __nv_bfloat16, float, false, cublasGemvParamsEx<int>>", "gemvx::kernel"),
        ("ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "ncclDevKernel_AllReduce_Sum_bf16_RING_LL"),
    ],
)  # fmt: skip
def test_long_names_are_shortened_for_tables(name: str, short: str) -> None:
    assert display_name(name) == short
