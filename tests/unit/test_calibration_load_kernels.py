"""Loads run as one kernel each, or are left out with a reason."""

from __future__ import annotations

import pytest

from qmeter_native.calibration.load_kernel import LoadKernel, rotating
from qmeter_native.calibration.load_kernels import LoadCheck, all_loads, check_loads, chosen_loads
from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.power_model import PowerFeature
from qmeter_native.model.tables import RangeTable
from tests.factories import T0, CaptureBuilder


def load(name: str) -> LoadKernel:
    def build(device: int) -> None:
        raise AssertionError("nothing is built here")

    return LoadKernel(name, OpFamily.GEMM, "M=1", {PowerFeature.DRAM_BYTES: 1.0}, build, "")  # type: ignore[arg-type]


def checks(*kernels_of_load: list[str], failures: dict[int, str] | None = None) -> list[LoadCheck]:
    """Each load launched what is named, 100 ns apart, in a range of its own."""
    builder = CaptureBuilder(10_000)
    for position, names in enumerate(kernels_of_load):
        begin = position * 1_000
        builder.add(RangeTable, start_ns=T0 + begin, end_ns=T0 + begin + 900, name=f"check:{position}")
        for number, name in enumerate(names):
            builder.kernel(begin + 100 * number + 10, begin + 100 * number + 60 + number, name)
    loads = [load(f"load{position}") for position in range(len(kernels_of_load))]
    return check_loads(builder.build(), loads, failures or {})


def test_there_are_kinds_of_every_sort_that_serving_runs() -> None:
    loads = {kernel.name: kernel for kernel in all_loads()}
    assert len(loads) >= 13
    assert sum(kernel.is_quantized for kernel in loads.values()) >= 4
    families = {kernel.family for kernel in loads.values()}
    assert {OpFamily.GEMM, OpFamily.ATTENTION, OpFamily.NORM, OpFamily.ACTIVATION, OpFamily.MEMORY} <= families
    assert all(amount > 0 for kernel in all_loads() for amount in kernel.work.values())
    assert all(
        "normal" in kernel.data or "uniform" in kernel.data or "chaotic" in kernel.data for kernel in all_loads()
    )


def test_large_products_have_shapes_of_whole_waves_and_a_kernel_of_our_own_to_fall_back_to() -> None:
    for name in ("fp16_gemm_large", "fp8_gemm_large"):
        shapes = [kernel.shape for kernel in all_loads() if kernel.name == name]
        sizes = [[int(size[2:]) for size in shape.split()] for shape in shapes[1:-1]]
        assert len(sizes) >= 3
        assert all(m * n % (132 * 128 * 128) == 0 for m, n, _ in sizes)
        assert "Triton" in shapes[-1]


def test_weights_of_fewer_bits_are_fewer_bytes() -> None:
    loads = {kernel.name: kernel.work.get(PowerFeature.DRAM_BYTES, 0.0) for kernel in reversed(all_loads())}
    assert loads["fp16_gemm_m16"] > 1.9 * loads["fp8_gemm_m16"] > 1.9 * 1.9 * loads["w4a16_gemm_m16"]


def test_a_load_of_one_kernel_passes_with_its_class_and_median_time() -> None:
    (check,) = checks(["gemm"] * 4)
    assert check.reason is None
    assert check.class_key == "gemm <1x1x1, 128x1x1, 0>"
    assert check.time_s == pytest.approx(51.5e-9)


@pytest.mark.parametrize("kernels", [["gemm", "reduce"] * 4, ["gemm"] * 3, [], ["gemm", "gemm", "gemm", "other"]])
def test_a_load_that_does_not_run_as_one_kernel_is_left_out_with_what_it_ran(kernels: list[str]) -> None:
    (check,) = checks(kernels)
    assert check.reason is not None
    assert f"ran {len(kernels)} kernels" in check.reason
    assert all(name in check.reason for name in kernels)


def test_a_load_that_failed_keeps_its_reason() -> None:
    first, second = checks(["gemm"] * 4, [], failures={1: "RuntimeError: no fp8 here"})
    assert first.reason is None
    assert second.reason == "RuntimeError: no fp8 here"


def test_a_load_that_was_never_traced_is_left_out() -> None:
    capture = CaptureBuilder(100).build()
    (check,) = check_loads(capture, [load("x")], {})
    assert check.reason == "nothing was traced"


def test_the_first_load_of_a_name_that_passes_stands_for_it() -> None:
    found = [LoadCheck(load("a"), reason="two"), LoadCheck(load("a"), "k1", 1.0), LoadCheck(load("a"), "k2", 2.0)]
    chosen, reasons = chosen_loads(found)
    assert [check.class_key for check in chosen] == ["k1"]
    assert reasons == {}


def test_two_kinds_that_are_one_kernel_class_cannot_be_told_apart() -> None:
    chosen, reasons = chosen_loads([LoadCheck(load("a"), "k", 1.0), LoadCheck(load("b"), "k", 1.0)])
    assert [check.kernel.name for check in chosen] == ["a"]
    assert reasons == {"b": "it runs the same kernel with the same grid as a"}


def test_launches_take_turns() -> None:
    calls: list[int] = []
    launch = rotating([lambda: calls.append(1), lambda: calls.append(2)])
    for _ in range(3):
        launch()
    assert calls == [1, 2, 1]
