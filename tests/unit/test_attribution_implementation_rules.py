# ruff: noqa: E501
"""Every rule for who wrote a kernel knows a real name of theirs."""

from __future__ import annotations

import pytest

from qmeter_native.attribution.implementation_rules import (
    FORMAT_OF_METHOD,
    FORMATS,
    IMPLEMENTATION_RULES,
    implementation,
)

KERNELS = [
    ("qmeter_step_marker", "qmeter"),
    ("weight_only_kernel", "qmeter"),
    ("dequantize_tile_kernel", "qmeter"),
    ("scaled_product", "qmeter"),
    ("w4a8_product", "qmeter"),
    ("_quantize_rows_kernel", "qmeter"),
    ("_quantize_groups_kernel", "qmeter"),
    ("_rms_norm_kernel", "qmeter"),
    ("void marlin::Marlin<__nv_bfloat16, 1125899906909960, 256, 1, 8, 8, true, 4, 8, false>(int4 const*, int4 const*)", "Marlin"),
    ("void marlin_moe_wna16::Marlin<__half, 1125899906909960, 256, 1, 8, 8, false, 4, 8, false>", "Marlin"),
    ("void awq_marlin_repack_kernel<4, 256, 4>(unsigned int const*, unsigned int*, int, int)", "Marlin"),
    ("void cutlass::device_kernel<machete::MacheteKernelTemplate<cutlass::half_t, cutlass::vllm_uint4b8_t, cutlass::half_t, float>::GemmKernel>", "Machete"),
    ("void allspark::ampere_hgemm_W8A16_perc_f16_f16_64x128x32_hgemm_kernel<__half, unsigned char, false>", "AllSpark"),
    ("void vllm::awq::gemm_forward_4bit_cuda_m16nXk32<128>(int, int, __half*, int*)", "AWQ"),
    ("awq_gemm_kernel", "AWQ"),
    ("awq_dequantize_kernel", "AWQ"),
    ("void vllm::gptq::gemm_half_q_half_gptq_4bit_kernel<true, 1>(__half const*, unsigned int const*)", "ExLlama"),
    ("void vllm::gptq::reconstruct_exllama_4bit_kernel(unsigned int const*, int const*)", "ExLlama"),
    ("void kgemm_4bit_inference_naive<__nv_bfloat16, 128, 16>(int, int, int, __nv_bfloat16*)", "bitsandbytes"),
    ("void kDequantizeBlockwise<__nv_bfloat16, 512, 64, 8, 2>(float*, unsigned char*)", "bitsandbytes"),
    ("gemm_splitK_INT_kernel", "gemlite"),
    ("gemv_INT_revsplitK_kernel", "gemlite"),
    ("void humming::gemm_kernel<humming::Config<128, 64>>(void const*)", "Humming"),
    ("_mixed_precision_gemm_kernel", "Conch"),
    ("void deep_gemm::sm90_fp8_gemm_1d2d_impl<0u, 4096u, 4096u, 1u, 128u, 128u, 128u>(float*, int*)", "DeepGEMM"),
    ("void flash_mla::flash_fwd_splitkv_mla_kernel<Flash_fwd_kernel_traits_mla<576, 64, 64, 8>>", "FlashMLA"),
    ("void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<flash::CollectiveMainloopFwdSm90<2, cute::tuple<>>>>>", "FlashAttention 3"),
    ("void cutlass::device_kernel<flash::FlashAttnFwdCombine<cute::tuple<cute::C<8>, cute::C<128>>, 5, 256, 1>>", "FlashAttention 3"),
    ("kernel_cutlass_kernel_flash_attn_cute_flash_fwd_FlashAttentionForwardSm100_object_at", "FlashAttention 4"),
    ("void flashinfer::BatchPrefillWithPagedKVCacheKernel<flashinfer::KernelTraits<1>>", "FlashInfer attention"),
    ("void flashinfer::BatchDecodeWithPagedKVCacheKernel<(flashinfer::PosEncodingMode)0, 2u, 4u>", "FlashInfer attention"),
    ("void flashinfer::gemm::CutlassFp8GemmKernel<float_e4m3_t>(int)", "FlashInfer GEMM"),
    ("bmm_E4m3_E4m3E4m3_Fp32_t128x8x128u2_s8_et128x8_m64x8x32_sm90", "FlashInfer GEMM"),
    ("void flashinfer::norm::FusedAddRMSNormKernel<8u, __nv_bfloat16>", "FlashInfer"),
    ("void flash::flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<128, 64, 128, 4, cutlass::bfloat16_t>>", "FlashAttention 2"),
    ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_3_64x128x128_4x1x1_kernel0_0", "cuDNN attention"),
    ("fmha_cutlassF_bf16_aligned_64x128_rf_sm80(PyTorchMemEffAttention::AttentionKernel<cutlass::bfloat16_t>::Params)", "memory-efficient attention"),
    ("void vllm::paged_attention_v2_kernel<unsigned short, unsigned short, 128, 16, 128>", "vLLM paged attention"),
    ("kernel_unified_attention", "Triton attention"),
    ("reduce_segments", "Triton attention"),
    ("_fwd_grouped_kernel_stage1", "Triton attention"),
    ("void cutlass::device_kernel<vllm::cutlass_w4a8::W4A8GemmKernel<cute::tuple<cute::C<128>>>>", "CUTLASS W4A8"),
    ("void cutlass::device_kernel<vllm::cutlass_3x_gemm<cutlass::float_e4m3_t, cutlass::bfloat16_t, vllm::c3x::ScaledEpilogue, cute::tuple<cute::C<64>>>::GemmKernel>", "CUTLASS scaled-mm"),
    ("void cutlass::Kernel<vllm::enable_sm89_to_sm90<cutlass_2x_gemm<cutlass::arch::Sm89, signed char>>>", "CUTLASS scaled-mm"),
    ("void cutlass::device_kernel<enable_sm90_or_later<cutlass::gemm::kernel::GemmUniversal<cute::tuple<int, int, int, int>, cutlass::float_e4m3_t>>>", "CUTLASS scaled-mm"),
    ("void cutlass::device_kernel<vllm::enable_sm100_only<cutlass::gemm::kernel::GemmUniversal<cute::tuple<int, int, int, int>>>>", "CUTLASS scaled-mm"),
    ("void fbgemm_gpu::f8f8bf16_rowwise_kernel<128, 128, 128>(int)", "FBGEMM"),
    ("scaled_mm_kernel", "Triton scaled-mm"),
    ("_w8a8_triton_block_scaled_mm", "Triton scaled-mm"),
    ("triton_w4a16_gemm_kernel", "Triton W4A16"),
    ("fused_moe_kernel_gptq_awq", "Triton MoE W4A16"),
    ("fused_moe_kernel", "Triton MoE"),
    ("triton_poi_fused_mul_silu_0", "Inductor"),
    ("triton_red_fused_fused_add_rms_norm_machete_mm_2", "Inductor"),
    ("triton_tem_fused_mm_3", "Inductor"),
    ("nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_TNN", "cuBLAS"),
    ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_execute_segment_k_off_kernel__5x_cublas", "cuBLAS"),
    ("void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_16x16_128x1_tn_align8>(int)", "cuBLAS"),
    ("ampere_fp16_s16816gemm_fp16_128x64_ldg8_f2f_stages_32x6_tn", "cuBLAS"),
    ("void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16, float, __nv_bfloat16, true, false, false>", "cuBLAS"),
    ("std::enable_if<!(false), void>::type internal::gemvx::kernel<int, int, __nv_bfloat16, __nv_bfloat16, cublasGemvParamsEx<int>>", "cuBLAS"),
    ("void cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<cute::tuple<int, int, int, int>>>", "CUTLASS"),
    ("ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "NCCL"),
    ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64_execute_segment_k_off_kernel__5x_cudnn", "cuDNN"),
    ("void vllm::merge_attn_states_kernel<__nv_bfloat16, 128u>(int)", "vLLM"),
    ("merge_attn_states_kernel", "Triton attention"),
    ("void cudnn::ops::nchwToNhwcKernel<__half, __half, float, false, true>", "cuDNN"),
    ("matmul_kernel", "Triton"),
    ("_matmul_ogs_NNT_bf16xbf16xmxfp4_128x256x64x1", "Triton"),
    ("void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<c10::BFloat16>>", "PyTorch"),
    ("aten::mm", "PyTorch"),
    ("void vllm::act_and_mul_kernel<c10::BFloat16, &vllm::silu_kernel>", "vLLM"),
    ("_gumbel_sample_kernel", "vLLM"),
    ("_prepare_pos_seq_lens_kernel", "vLLM"),
    ("my_own_thing", None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), KERNELS, ids=[name[:60] for name, _ in KERNELS])
def test_a_name_tells_who_wrote_the_kernel(name: str, expected: str | None) -> None:
    assert implementation(name) == expected


def test_every_rule_has_a_name_of_its_own() -> None:
    assert {expected for _, expected in KERNELS} - {None} == {name for name, _ in IMPLEMENTATION_RULES}


def test_methods_and_formats_name_what_there_is() -> None:
    known = {name for name, _ in IMPLEMENTATION_RULES}
    assert all(set(kind.implementations) <= known for kind in FORMATS.values())
    assert set(FORMAT_OF_METHOD.values()) <= set(FORMATS)
