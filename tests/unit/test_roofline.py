"""Roofs, points under them, and what another GPU would allow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmeter_native.devices.default_profile import default_profile
from qmeter_native.devices.gpu_database import find_chip, known_chips
from qmeter_native.model.device_profile import Ceiling, DeviceProfile
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.op_family import OpFamily
from qmeter_native.roofline.ceilings import DeviceCeilings, native_type
from qmeter_native.roofline.energy_floor import EnergyCosts
from qmeter_native.roofline.point import Bound, Demand, KernelRun, RooflinePoint, place
from qmeter_native.roofline.projection import project

H200 = DeviceCeilings.of_chip(find_chip("NVIDIA H200"))
H100 = DeviceCeilings.of_chip(find_chip("H100 SXM"))
A100 = DeviceCeilings.of_chip(find_chip("A100 SXM 80GB"))
B200 = DeviceCeilings.of_chip(find_chip("B200"))
COSTS = EnergyCosts(default_profile("NVIDIA H200").power_model)
GB, TFLOP = 1e9, 1e12

amounts = st.floats(1e3, 1e15)
devices = st.sampled_from([DeviceCeilings.of_chip(chip) for chip in known_chips()])


def run(
    flops: float, dram_bytes: float, time_s: float | Estimate, operand: str = "bf16", **changes: object
) -> KernelRun:
    time = time_s if isinstance(time_s, Estimate) else Estimate(time_s)
    demand = Demand(flops, operand if flops else None, dram_bytes, "work model", least_bytes=dram_bytes)
    values = {"launches": 1, "blocks": None, "energy_j": Estimate(1.0), **changes}
    return KernelRun("k", "k", None, OpFamily.GEMM, None, time_s=time, time_share=1.0, demand=demand, **values)  # type: ignore[arg-type]


def measured(name: str, fractions: dict[str, float]) -> DeviceCeilings:
    """Ceilings of a calibrated GPU that reaches these parts of its datasheet."""
    profile = default_profile(name)
    ceilings = tuple(_measured(one, fractions.get(one.name)) for one in profile.ceilings)
    return DeviceCeilings.of_profile(replace(profile, ceilings=ceilings, date="2026-11-24"))


def _measured(ceiling: Ceiling, fraction: float | None) -> Ceiling:
    if fraction is None or ceiling.datasheet is None:
        return ceiling
    rate = fraction * ceiling.datasheet
    return replace(ceiling, measured=Estimate(rate, 0.99 * rate, 1.01 * rate))


CALIBRATED = measured("NVIDIA H200", {"dram_read": 0.9, "dram_copy": 0.85, "bf16": 0.7, "fp8": 0.7})


def test_measured_rates_stand_above_the_datasheets_which_fill_the_gaps() -> None:
    assert CALIBRATED.roofs["dram_read"].value == pytest.approx(0.9 * 4800 * GB)
    assert CALIBRATED.roofs["dram_read"].is_measured
    assert CALIBRATED.roofs["int8"].value == pytest.approx(1978.9 * TFLOP)
    assert not CALIBRATED.roofs["int8"].is_measured
    assert CALIBRATED.is_measured
    assert not H200.is_measured


def test_a_gpu_without_datasheet_and_calibration_has_no_roofs() -> None:
    assert DeviceCeilings.of_profile(default_profile("NVIDIA Z9000")).roofs == {}


def test_the_ridge_is_where_both_roofs_meet() -> None:
    ridge = H200.ridge("bf16")
    assert ridge == pytest.approx(989.4 / 4.8)
    assert H200.attainable(ridge, "bf16") == pytest.approx(989.4 * TFLOP)
    assert H200.attainable(ridge / 2, "bf16") == pytest.approx(989.4 * TFLOP / 2)
    assert H200.ridge("fp4") is None
    assert H200.attainable(1.0, "fp4") is None


@given(devices, st.floats(1e-3, 1e6), st.floats(1.0, 1e3))
def test_what_is_attainable_never_falls_with_intensity(device: DeviceCeilings, low: float, factor: float) -> None:
    for operand in device.types:
        first, second = device.attainable(low, operand), device.attainable(low * factor, operand)
        assert first is not None
        assert second is not None
        assert first <= second <= device.roofs[operand].value


@given(devices, amounts, amounts, st.floats(1.0, 1e4))
def test_a_kernel_that_takes_no_less_than_its_roofs_allow_reaches_at_most_all_of_them(
    device: DeviceCeilings, flops: float, dram_bytes: float, slowness: float
) -> None:
    floor_s = max(flops / device.roofs["fp16"].value, dram_bytes / device.roofs["dram_read"].value)
    point = place(run(flops, dram_bytes, floor_s * slowness, "fp16"), device)

    assert point.fraction.value == pytest.approx(1 / slowness)
    assert point.fraction.value is not None
    assert point.fraction.value <= 1 + 1e-9
    assert point.attainable == pytest.approx(device.attainable(flops / dram_bytes, "fp16"))
    assert point.flops_per_s == pytest.approx(point.attainable / slowness)


def test_the_lowest_roof_says_what_binds() -> None:
    reads = place(run(2e9, 1e9, 300e-6), H200)
    multiplies = place(run(1e12, 1e9, 1.2e-3), H200)
    copies = place(run(0, 1e9, 300e-6), H200)

    assert (reads.bound, reads.roof) == (Bound.MEMORY, "dram_read")
    assert (multiplies.bound, multiplies.roof) == (Bound.COMPUTE, "bf16")
    assert (copies.bound, copies.flops_per_s, copies.intensity) == (Bound.MEMORY, None, None)
    assert reads.bytes_per_s == pytest.approx(1e9 / 300e-6)


def test_l2_binds_where_its_traffic_was_counted_and_its_rate_measured() -> None:
    profile = default_profile("NVIDIA H200")
    l2 = Ceiling("l2_read", "B/s", Estimate(8e12), None)
    device = DeviceCeilings.of_profile(replace(profile, ceilings=(*profile.ceilings, l2)))
    one = run(0, 1e8, 300e-6)
    assert one.demand is not None
    point = place(replace(one, demand=replace(one.demand, l2_bytes=2e9, source="counters")), device)

    assert point.bound is Bound.L2
    assert point.floor_s == pytest.approx(2e9 / 8e12)
    assert point.traffic == pytest.approx(1.0)


def test_traffic_that_is_written_too_goes_against_the_copys_roof() -> None:
    for share, name in ((None, "dram_read"), (0.0, "dram_read"), (0.5, "dram_copy"), (1.0, "dram_write")):
        roof = CALIBRATED.dram(share)
        assert roof is not None
        assert roof.name == name


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({"dram_bytes": 1e6, "time_s": 2.4e-6}, Bound.LATENCY),
        ({"dram_bytes": 1e6, "time_s": 0.25e-6}, Bound.MEMORY),
        ({"dram_bytes": 1e9, "time_s": 1e-3, "blocks": 4}, Bound.LATENCY),
        ({"dram_bytes": 1e9, "time_s": 1e-3, "blocks": 4096}, Bound.MEMORY),
        ({"dram_bytes": 1e9, "time_s": 1e-3, "launches": 1000, "blocks": 4096}, Bound.LATENCY),
    ],
)
def test_a_kernel_far_from_its_roof_is_bound_by_latency_if_it_is_short_or_small(
    changes: dict[str, float], bound: Bound
) -> None:
    assert place(run(0, **changes), H200).bound is bound  # type: ignore[arg-type]


def test_a_kernel_of_which_nothing_is_known_has_no_roof_but_a_reason() -> None:
    point = place(replace(run(1.0, 1.0, 1e-6), demand=None, unknown="it helps its role"), H200)

    assert point.bound is Bound.UNKNOWN
    assert point.fraction.value is None
    assert point.fraction.reason == "it helps its role"


def test_a_fraction_has_the_interval_of_the_roof_and_of_the_time() -> None:
    point = place(run(0, 1e9, Estimate(300e-6, 290e-6, 310e-6)), CALIBRATED)
    rate = 0.9 * 4800 * GB

    assert point.fraction.value == pytest.approx(1e9 / rate / 300e-6)
    assert point.fraction.low == pytest.approx(1e9 / (1.01 * rate) / 310e-6)
    assert point.fraction.high == pytest.approx(1e9 / (0.99 * rate) / 290e-6)


@given(amounts, amounts)
def test_the_energy_floor_adds_up_operations_and_bytes_and_meets_at_the_balance(
    flops: float, dram_bytes: float
) -> None:
    byte, operation = COSTS.byte_j.value, COSTS.operation_j("bf16").value
    assert byte is not None
    assert operation is not None
    assert COSTS.floor_j(flops, "bf16", dram_bytes).value == pytest.approx(flops * operation + dram_bytes * byte)
    assert COSTS.balance("bf16") == pytest.approx(byte / operation)


def test_a_type_that_the_power_model_has_no_cost_of_has_no_energy_floor() -> None:
    floor = COSTS.floor_j(1e9, "tf32", 1e9)
    assert floor.value is None
    assert floor.reason == "the power model has no cost of tf32 operations"


def test_fp8_costs_half_an_fp16_operation_where_the_model_was_not_fitted_to_it() -> None:
    model = COSTS.model
    kept = [position for position, feature in enumerate(model.features) if feature.value != "fp8_flop"]
    without = replace(
        model,
        features=tuple(model.features[position] for position in kept),
        coefficient=model.coefficient[kept],
        covariance=model.covariance[np.ix_(kept, kept)],
    )
    fp8, fp16 = EnergyCosts(without).operation_j("fp8").value, EnergyCosts(without).operation_j("fp16").value
    assert fp16 is not None
    assert fp8 == pytest.approx(fp16 / 2)


def some_points(device: DeviceCeilings) -> list[RooflinePoint]:
    return [
        place(run(2e9, 1e9, 300e-6), device),
        place(run(1e12, 1e9, 1.9e-3, "fp16"), device),
        place(run(0, 1e6, 2.4e-6), device),
        place(replace(run(1.0, 1.0, 5e-6), demand=None), device),
    ]


@given(devices, amounts, amounts, st.floats(0.5, 1e4))
def test_on_the_same_gpu_a_projection_is_what_was_measured(
    device: DeviceCeilings, flops: float, dram_bytes: float, slowness: float
) -> None:
    floor_s = max(flops / device.roofs["fp16"].value, dram_bytes / device.roofs["dram_read"].value)
    point = place(run(flops, dram_bytes, floor_s * slowness, "fp16"), device)
    (moved,) = project([point], device, device).points

    for end in (moved.time_s.low, moved.time_s.value, moved.time_s.high):
        assert end == pytest.approx(floor_s * slowness)


def test_a_calibrated_gpu_projected_to_its_own_datasheet_stays_under_the_roofs_it_had() -> None:
    points = some_points(CALIBRATED)
    projection = project(points, CALIBRATED, H200)

    assert projection.speedup.value == pytest.approx(1.0)
    assert projection.time_s.low == pytest.approx(projection.time_s.high)


@given(devices, devices, amounts, amounts, st.floats(0.8, 1e3))
def test_a_projections_interval_holds_its_value_and_sums_are_conserved(
    here: DeviceCeilings, there: DeviceCeilings, flops: float, dram_bytes: float, slowness: float
) -> None:
    floor_s = max(flops / here.roofs["fp16"].value, dram_bytes / here.roofs["dram_read"].value)
    points = [place(run(flops, dram_bytes, floor_s * slowness, "fp16"), here), *some_points(here)]
    projection = project(points, here, there)

    for moved in projection.points:
        assert moved.time_s.low is not None
        assert moved.time_s.value is not None
        assert moved.time_s.high is not None
        assert moved.time_s.low <= moved.time_s.value * (1 + 1e-9)
        assert moved.time_s.value <= moved.time_s.high * (1 + 1e-9)
    assert projection.time_s.value == pytest.approx(sum(moved.time_s.value or 0.0 for moved in projection.points))


def test_a_kernel_bound_by_memory_scales_with_bandwidth_and_one_by_arithmetic_with_peak() -> None:
    memory, compute, latency, unknown = project(some_points(H200), H200, A100).points

    assert memory.time_s.value == pytest.approx(300e-6 * 4800 / 2039)
    assert compute.time_s.value == pytest.approx(1.9e-3 * 989.4 / 312)
    assert latency.time_s.value == pytest.approx(2.4e-6)
    assert unknown.time_s.value == pytest.approx(5e-6)
    assert (memory.roof, compute.roof, unknown.roof) == ("dram_read", "fp16", None)


def test_where_another_roof_becomes_the_lowest_the_interval_reaches_to_all_of_it() -> None:
    """Just below the ridge here, far above the other's: nothing tells how well the kernel would use the pipes there."""
    point = place(run(100 * 1e9, 1e9, 1e-3), H200)
    slim = replace(
        H200, gpu="slim", chip=None, roofs={**H200.roofs, "bf16": replace(H200.roofs["bf16"], datasheet=1e14)}
    )
    (moved,) = project([point], H200, slim).points

    assert moved.roof == "bf16"
    assert moved.time_s.low is not None
    assert moved.time_s.low < 0.5 * (moved.time_s.value or 0.0)


def test_a_calibrated_gpu_lends_its_share_of_the_datasheet_to_one_that_is_not() -> None:
    (moved, *_) = project(some_points(CALIBRATED), CALIBRATED, H100).points

    assert moved.time_s.value == pytest.approx(300e-6 * 4800 / 3352)
    assert moved.time_s.low == pytest.approx(300e-6 * 4800 / 3352 * 0.9)
    assert moved.time_s.high == pytest.approx(300e-6 * 4800 / 3352 / 0.9)


def test_two_calibrated_gpus_are_compared_by_what_they_reach() -> None:
    other = measured("NVIDIA H100 80GB HBM3", {"dram_read": 0.8, "bf16": 0.6})
    (moved, *_) = project(some_points(CALIBRATED), CALIBRATED, other).points

    assert moved.time_s.value == pytest.approx(300e-6 * 0.9 * 4800 / (0.8 * 3352))


@pytest.mark.parametrize(
    ("operand", "device", "native"),
    [
        ("fp8", A100, "fp16"),
        ("fp8", H100, "fp8"),
        ("fp4", H100, "fp8"),
        ("fp4", A100, "fp16"),
        ("fp4", B200, "fp4"),
        ("bf16", DeviceCeilings.of_chip(find_chip("T4")), "fp16"),
        ("int8", DeviceCeilings.of_chip(find_chip("V100 SXM")), "fp16"),
        ("tf32", DeviceCeilings.of_chip(find_chip("T4")), "fp32"),
    ],
)
def test_a_type_without_pipes_falls_back_to_a_wider_one(operand: str, device: DeviceCeilings, native: str) -> None:
    assert native_type(device, operand) == native


def test_a_projection_says_what_a_missing_type_runs_as() -> None:
    point = place(run(1e12, 1e9, 1e-3, "fp8"), H200)
    projection = project([point], H200, A100)

    assert projection.points[0].fallback == "fp16"
    assert projection.points[0].time_s.value == pytest.approx(1e-3 * 1978.9 / 312)
    assert any("has no tensor pipes for some types" in sentence for sentence in projection.assumptions)
    assert project([point], H200, H100).points[0].fallback is None


def test_ceilings_of_a_profile_keep_when_it_was_made() -> None:
    profile: DeviceProfile = replace(default_profile("NVIDIA H200"), date="2026-11-24T10:00:00")
    assert DeviceCeilings.of_profile(profile).date == "2026-11-24T10:00:00"
