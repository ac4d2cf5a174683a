# ruff: noqa: E501
"""Names of real kernels, shortened for tables."""

from __future__ import annotations

import pytest

from qmeter_native.attribution.display_name import display_name

NATIVE = "void at::native::"
TILE_A = "cute::tuple<cute::C<128>, cute::C<256>, cute::C<64> >"
TILE_B = "cute::tuple<cute::C<256>, cute::C<16>, cute::C<64> >"
CLUSTER = "cute::tuple<cute::C<2>, cute::C<1>, cute::C<1> >"
ONE_BLOCK = "cute::tuple<cute::C<1>, cute::C<1>, cute::C<1> >"
MACHETE = (
    "void cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<cute::tuple<int, int, int, int>, "
    "machete::MacheteCollectiveMma<cute::tuple<cutlass::vllm_biased_integer_subbyte<4, 8, false>, cutlass::bfloat16_t>, "
    "32, cutlass::bfloat16_t, cutlass::layout::ColumnMajor, 8, float, "
)
FLASH_3 = (
    "void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<flash::CollectiveMainloopFwdSm90<2, "
    "cute::tuple<cute::C<1>, cute::C<1>, cute::C<1> >, cute::tuple<cute::C<128>, cute::C<128>, cute::C<128> >, 128, "
    "cutlass::bfloat16_t, float, cutlass::arch::Sm90, true, false, false, true, true, false, false, true, true, true, "
    "%s, false, cutlass::bfloat16_t, 4>, flash::CollectiveEpilogueFwd<128> > >(int)"
)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("nvjet_tst_192x192_64x4_2x1_v_bz_coopA_TNT", "nvjet_tst_192x192_64x4_2x1_v_bz_coopA_TNT"),
        ("aten::copy_", "aten::copy_"),
        ("Memcpy DtoH", "Memcpy DtoH"),
        (NATIVE + "vectorized_elementwise_kernel<4, at::native::FillFunctor<float>, std::array<char*, 1ul>>(int)", "vectorized_elementwise_kernel<FillFunctor>"),
        (NATIVE + "elementwise_kernel<128, 4, at::native::gpu_kernel_impl_nocast<at::native::direct_copy_kernel_cuda(int)>>", "elementwise_kernel<direct_copy_kernel_cuda>"),
        ("void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_16x16_128x1_tn_align8>(int)", "cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_16x16_128x1_…"),
        ("void marlin::Marlin<__nv_bfloat16, 1049600, 256, 1, 8, 8, true, 4, 8, false>(int4 const*)", "Marlin 8x128x128"),
        ("void marlin::Marlin<1125899906909960l, 1125899907892224l, 1125899906909960l, 1125899906909960l, 128, 1, 4, 8, false, 4, 2, false>(int4 const*)", "Marlin 16x64x128"),
        ("void marlin::Marlin<1125899906909960l, 1125899907892224l, 1125899906909960l, 1125899906909960l, 256, 4, 16, 4, false, 4, -1, false>(int4 const*)", "Marlin 64x256x64"),
        (MACHETE + TILE_A + ", " + CLUSTER + ", cutlass::gemm::collective::StageCountAutoCarveout<18432>>>>", "machete 128x256x64 2x1"),
        (MACHETE + TILE_B + ", " + ONE_BLOCK + ", cutlass::gemm::collective::StageCountAutoCarveout<6144>>>>", "machete 256x16x64"),
        ("void machete::prepack_B_kernel<128, machete::PrepackedLayoutBTemplate<cutlass::bfloat16_t>>", "prepack_B_kernel<machete>"),
        (FLASH_3 % "false", "FA3 fwd 128x128x128"),
        (FLASH_3 % "true", "FA3 fwd split 128x128x128"),
        ("void cutlass::device_kernel<flash::FlashAttnFwdCombine<cute::tuple<cute::C<8>, cute::C<128> >, 5, 256, 1, false, true, cutlass::bfloat16_t, float, cutlass::arch::Sm90> >(int)", "FA3 combine 8x128"),
        ("void flash::prepare_varlen_num_blocks_kernel<2, false>(int, int, cutlass::FastDivmod)", "FA3 prepare_varlen_num_blocks<2>"),
        ("void cutlass::device_kernel<vllm::cutlass_3x_gemm_sm90_fp8<cutlass::float_e4m3_t, cutlass::bfloat16_t, vllm::c3x::ScaledEpilogue, " + TILE_A + ", " + CLUSTER + ">::GemmKernel>", "cutlass_3x_gemm_sm90_fp8 128x256x64 2x1"),
        ("void cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<cute::tuple<int, int, int, int>, cutlass::gemm::collective::CollectiveMma<cutlass::gemm::MainloopSm90TmaGmmaWarpSpecialized<4, " + CLUSTER + ">, " + TILE_A + ">>>", "cutlass gemm 128x256x64 2x1"),
        ("void cutlass::device_kernel<vllm::enable_sm90_or_later<cutlass::gemm::kernel::GemmUniversal<cute::tuple<int, int, int, int>, cutlass::gemm::collective::CollectiveMma<cutlass::gemm::MainloopSm90TmaGmmaWarpSpecialized<4, " + CLUSTER + ">, " + TILE_A + ">>>>", "cutlass gemm 128x256x64 2x1"),
        ("void cutlass::Kernel2<cutlass::gemm::kernel::DefaultGemmUniversal<cutlass::half_t>>(int)", "DefaultGemmUniversal"),
        ("void vllm::reshape_and_cache_flash_kernel<__nv_bfloat16, __nv_bfloat16, (vllm::Fp8KVCacheDataType)0>(__nv_bfloat16 const*)", "reshape_and_cache_flash_kernel"),
        (NATIVE + "reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::ArgMaxOps<float>, unsigned int, long, 4, 4> >(int)", "reduce_kernel<ArgMaxOps>"),
        (NATIVE + "vectorized_elementwise_kernel<8, at::native::bfloat16_copy_kernel_cuda(at::TensorIteratorBase&)::{lambda(float)#1}, std::array<char*, 2ul> >(int)", "vectorized_elementwise_kernel<bfloat16_copy_kernel_cuda>"),
        (NATIVE + "vectorized_gather_kernel<16, long>(char*, char*, long*, int, long, bool)", "vectorized_gather_kernel"),
        ("void vllm::act_and_mul_kernel<c10::BFloat16, &(c10::BFloat16 vllm::silu_kernel<c10::BFloat16>(int)), true>", "act_and_mul_kernel<silu_kernel>"),
        ("std::enable_if<!(false), void>::type internal::gemvx::kernel<int, int, __nv_bfloat16, float, false, cublasGemvParamsEx<int>>", "gemvx::kernel"),
        ("ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "ncclDevKernel_AllReduce_Sum_bf16_RING_LL"),
    ],
)  # fmt: skip
def test_long_names_are_shortened_for_tables(name: str, short: str) -> None:
    assert display_name(name) == short
