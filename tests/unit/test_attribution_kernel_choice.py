"""A quantization method that silently ran something else is caught."""

from __future__ import annotations

from typing import Any

import pytest

from qmeter_native.attribution.report import attribute
from qmeter_native.model.kernel_choice import KernelChoice
from qmeter_native.model.manifest import EngineInfo
from qmeter_native.model.report import AttributionReport
from qmeter_native.quantization.methods import METHODS
from tests.factories import ATTENTION, CaptureBuilder

FP16 = "nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_TNN"
FP8_CUBLAS = "nvjet_sm100_qqtst_128x256_128x6_2x2_2cta_v_bz_Avec32UE8M0_Bvec32UE8M0_TNT"
MARLIN = "void marlin::Marlin<__nv_bfloat16, 1049600, 1125899906909960, 256, 1, 8, 8, true, 4, 8, false>(int4 const*)"
MACHETE = (
    "void cutlass::device_kernel<machete::MacheteKernelTemplate<cutlass::half_t, cutlass::vllm_uint4b8_t>::GemmKernel>"
)
SCALED_MM = (
    "void cutlass::device_kernel<vllm::cutlass_3x_gemm<cutlass::float_e4m3_t, vllm::c3x::ScaledEpilogue>::GemmKernel>"
)
ONE_ARCHITECTURE = (
    "void cutlass::device_kernel<enable_sm90_or_later<cutlass::gemm::kernel::GemmUniversal<cutlass::float_e4m3_t> > >"
)
W4A8 = "void cutlass::device_kernel<vllm::cutlass_w4a8::W4A8GemmKernel<cute::tuple<cute::C<128>>>>"
MARLIN_W4A8 = (
    "void marlin::Marlin<2814749767172868l, 1125899907892224l, 1125899906909960l, 256, 1, 8, 8, true, 4, 8, false>"
)
MXFP4 = "_matmul_ogs_NNT_bf16xbf16xmxfp4_128x256x64x1_swiglu"
UNPACK = "void kDequantizeBlockwise<__half, 512, 64, 8, 2>(float*, unsigned char*)"
MOE = "fused_moe_kernel"


def report_of(kernels: dict[str, int], effective: dict[str, Any] | None, **engine: Any) -> AttributionReport:
    """A report in which each kernel ran for so many nanoseconds; ``effective`` None: no engine."""
    info = None if effective is None else EngineInfo("vllm", "0.26.0", "m", effective=effective, **engine)
    builder = CaptureBuilder(10_000, {"engine": info})
    start = 0
    for name, length in kernels.items():
        builder.kernel(start, start + length, name)
        start += length
    return attribute(builder.build(), "test")


def choice_of(kernels: dict[str, int], effective: dict[str, Any] | None, **engine: Any) -> KernelChoice:
    choice = report_of(kernels, effective, **engine).kernel_choice
    assert choice is not None
    return choice


def weights(kind: str, bits: int, activations: dict[str, Any] | None = None) -> dict[str, Any]:
    group = {"weights": {"type": kind, "num_bits": bits}, "input_activations": activations}
    return {
        "quantization": "compressed-tensors",
        "quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}},
    }


def test_gptq_that_runs_fp16_cublas_is_a_fallback() -> None:
    report = report_of({FP16: 900, ATTENTION: 5_000}, {"quantization": "auto_gptq"})
    choice = report.kernel_choice
    assert choice is not None
    assert choice.is_fallback is True
    assert "Machete" in choice.expected
    assert "cuBLAS (fp16)" in choice.message
    assert report.validity[0].code == "quantization_fallback"
    assert report.validity[0].message == choice.message


def test_gptq_in_marlin_or_machete_is_fine_with_an_unquantized_lm_head() -> None:
    for kernel in (MARLIN, MACHETE):
        report = report_of({kernel: 780, FP16: 220}, {"quantization": "gptq"})
        assert report.kernel_choice is not None
        assert report.kernel_choice.is_fallback is False
        assert [entry.code for entry in report.validity if "quantization" in entry.code] == []


def test_what_ran_is_listed_by_time() -> None:
    choice = choice_of({MARLIN: 600, FP16: 400, ATTENTION: 900}, {"quantization": "gptq_marlin"})
    assert [(each.implementation, each.scheme, each.calls) for each in choice.observed] == [
        ("Marlin", "W4A16-INT", 1),
        ("cuBLAS", "fp16", 1),
    ]
    assert [each.time_share for each in choice.observed] == pytest.approx([0.6, 0.4])


def test_a_part_in_the_format_is_said() -> None:
    choice = choice_of({MARLIN: 200, FP16: 800}, {"quantization": "awq"})
    assert choice.is_fallback is False
    assert "in part" in choice.message
    assert "20 %" in choice.message


@pytest.mark.parametrize(
    ("effective", "kernel"),
    [
        ({"quantization": "fp8"}, SCALED_MM),
        ({"quantization": "fp8"}, FP8_CUBLAS),
        ({"quantization": "bitsandbytes"}, UNPACK),
        (weights("int", 4), MACHETE),
        (weights("float", 8, {"type": "float", "num_bits": 8}), SCALED_MM),
    ],
)
def test_each_format_is_known_by_its_kernels(effective: dict[str, Any], kernel: str) -> None:
    assert choice_of({kernel: 600, FP16: 400}, effective).is_fallback is False
    other = MARLIN if kernel is UNPACK else FP16
    assert choice_of({other: 600}, effective).is_fallback is True


def test_a_group_of_integer_activations_is_int8() -> None:
    choice = choice_of({FP16: 10}, weights("int", 8, {"type": "int", "num_bits": 8}))
    assert choice.is_fallback is True
    assert "CUTLASS scaled-mm" in choice.expected


@pytest.mark.parametrize("kernel", [W4A8, MARLIN_W4A8])
def test_four_bit_weights_with_eight_bit_activations_are_integer_weights(kernel: str) -> None:
    asked = weights("int", 4, {"type": "float", "num_bits": 8})
    assert choice_of({kernel: 600, FP16: 400}, asked).is_fallback is False
    assert choice_of({FP16: 600}, asked).is_fallback is True


def test_products_that_vllm_compiles_for_one_architecture_are_cutlass_scaled_mm() -> None:
    choice = choice_of({ONE_ARCHITECTURE: 900, FP16: 100}, {"quantization": "fp8"})
    assert choice.message == "fp8 was asked for, and 90 % of GEMM time ran in CUTLASS scaled-mm."


def test_mxfp4_in_tritons_kernels_is_no_fallback() -> None:
    assert choice_of({MXFP4: 900, FP16: 100}, {"quantization": "mxfp4"}).is_fallback is False


def test_weights_that_are_unpacked_first_are_no_fallback() -> None:
    choice = choice_of({UNPACK: 3, FP16: 997}, {"quantization": "bitsandbytes"})
    assert choice.is_fallback is False
    assert "unpacked" in choice.message


def test_names_that_do_not_tell_their_format_accuse_nobody() -> None:
    assert choice_of({MOE: 900, FP16: 100}, {"quantization": "fp8"}).is_fallback is None


@pytest.mark.parametrize(
    ("method", "kernel"),
    [("nf4", "weight_only_kernel"), ("gptq-w8a16", "weight_only_kernel"), ("rtn-w8a8", "scaled_product")],
)
def test_a_method_of_ours_is_carried_out_by_our_kernels(method: str, kernel: str) -> None:
    effective = {"quantization": method, "quantization_config": dict(METHODS[method].config)}
    choice = choice_of({kernel: 900, FP16: 100}, effective)
    assert choice.is_fallback is False
    assert method in choice.message
    assert choice_of({FP16: 1000}, effective).is_fallback is True


@pytest.mark.parametrize("effective", [{"quantization": None}, {"quantization": "none"}, {"quantization": "bfloat16"}])
def test_no_method_cannot_fall_back(effective: dict[str, Any]) -> None:
    choice = choice_of({FP16: 10}, effective)
    assert (choice.method, choice.expected, choice.is_fallback) == (None, (), False)


def test_a_method_that_was_asked_for_and_not_taken_is_a_fallback() -> None:
    choice = choice_of({FP16: 10}, {"quantization": None}, requested={"quantization": "gptq"})
    assert (choice.method, choice.is_fallback) == ("gptq", True)


@pytest.mark.parametrize(
    ("effective", "method"), [(None, "unknown"), ({}, "unknown"), ({"quantization": "quark"}, "quark")]
)
def test_what_nobody_said_or_knows_is_not_judged(effective: dict[str, Any] | None, method: str) -> None:
    choice = choice_of({FP16: 10}, effective)
    assert (choice.method, choice.expected, choice.is_fallback) == (method, (), None)


def test_without_matrix_products_there_is_nothing_to_say() -> None:
    assert report_of({ATTENTION: 10}, {"quantization": "fp8"}).kernel_choice is None


def test_joules_of_dummy_weights_are_invalid_wherever_they_stand() -> None:
    info = EngineInfo("vllm", "0.26.0", "m", weights_source="dummy")
    builder = CaptureBuilder(1_000, {"engine": info}).kernel(0, 500).tick(0, 0).tick(1_000, 500)
    report = attribute(builder.build(), "test")
    assert [entry.code for entry in report.validity] == ["dummy_weights_energy"]
    figures = [report.totals.energy_gross_j, report.totals.j_per_request, report.kernels[0].energy_j]
    figures += [report.kernels[0].dynamic_j, report.phases[2].energy_j, report.totals.energy_active_j]
    assert all("dummy weights" in (figure.reason or "") for figure in figures if figure.value is not None)
    assert report.kernels[0].energy_j.value is not None


def test_random_codes_are_good_for_energy() -> None:
    info = EngineInfo("vllm", "0.26.0", "m", weights_source="random_codes")
    builder = CaptureBuilder(1_000, {"engine": info}).kernel(0, 500).tick(0, 0).tick(1_000, 500)
    report = attribute(builder.build(), "test")
    assert report.validity == ()
    assert report.kernels[0].energy_j.reason is None
