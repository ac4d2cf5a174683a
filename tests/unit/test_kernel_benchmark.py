"""The benchmark of kernels without a GPU: documents, metrics, roofs, and runs by a timer that knows the times."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from qmeter_native.benchmark.document import joined, load_benchmark, save_benchmark
from qmeter_native.benchmark.metrics import METRICS, benchmark_metrics
from qmeter_native.benchmark.plan import MAX_ENERGY_ROWS, BenchmarkPlan, energy_points
from qmeter_native.benchmark.roof import find_roof, roof_time
from qmeter_native.benchmark.shapes import find_shapes, parse_m
from qmeter_native.benchmark.timer import Launch, Timing, call_seconds, num_launches
from qmeter_native.devices import chip_info, default_profile
from qmeter_native.errors import BenchmarkError, UsageError
from qmeter_native.kernels.catalog import FORMATS, format_named
from qmeter_native.model.device_profile import Ceiling
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.kernel_benchmark import (
    AbsentKernel,
    BenchmarkRow,
    Device,
    KernelBenchmark,
    Protocol,
    Roof,
    benchmark_to_dict,
)

W4A16 = "W4A16-INT g128"
H200_ROOF = Roof("measured", 4.3e12, {"fp16": 780e12, "bf16": 790e12, "fp8": 1500e12, "int8": 1400e12})


def row(kernel: str, us: float | None, m: int = 1, n: int = 8192, k: int = 8192, **changes: Any) -> BenchmarkRow:
    spread = 0.01
    time_s = (
        Estimate.missing("wrong: no number")
        if us is None
        else Estimate(us * 1e-6, us * 1e-6 * (1 - spread), us * 1e-6 * (1 + spread))
    )
    fields: dict[str, Any] = {"format": W4A16, "dtype": "float16", "roof_s": 8e-6, "bound": "memory", **changes}
    return BenchmarkRow(m=m, n=n, k=k, kernel=kernel, time_s=time_s, **fields)


def benchmark(*rows: BenchmarkRow, **changes: Any) -> KernelBenchmark:
    whole = KernelBenchmark(
        date="2026-11-24",
        command="qmeter-native kernels bench",
        device=Device("NVIDIA H200", "GPU-1", "9.0"),
        software={"torch": "2.11"},
        roof=H200_ROOF,
        protocol=Protocol(9, 0.01, 4.0, 4 * (60 << 20), 1),
        idle_w=Estimate.missing("energy was not asked for"),
        rows=rows,
        absent=(AbsentKernel("gemlite", "it is not installed"),),
        num_points=3,
        metrics=benchmark_metrics(rows),
        notes=("One board.",),
    )
    return replace(whole, **changes)


def some_rows() -> tuple[BenchmarkRow, ...]:
    energy = {"energy_j": Estimate(0.012, 0.011, 0.013), "dynamic_j": Estimate(0.009, 0.008, 0.010)}
    return (
        row("qmeter.weight_only_linear", 20.0, clock_mhz=1980.0, error=0.3, **energy),
        row("vllm.marlin", 22.0),
        row("gemlite", None),
    )


def test_a_document_is_read_back_as_it_was_and_fits_its_schema(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    original = benchmark(*some_rows())
    save_benchmark(original, tmp_path / "deep" / "bench.json")

    document = json.loads((tmp_path / "deep" / "bench.json").read_text())
    read = load_benchmark(tmp_path / "deep" / "bench.json")

    schema = json.loads((files("qmeter_native.model") / "kernel_benchmark.schema.json").read_text())
    jsonschema.validate(document, schema)
    again = benchmark_to_dict(read)
    for one, other in zip(again["rows"], document["rows"], strict=True):
        assert one == pytest.approx(other)
    assert {**again, "rows": []} == {**document, "rows": []}
    assert read.rows[0].is_ours
    assert not read.rows[1].is_ours
    assert read.num_measured == 1


def test_a_run_of_which_nothing_was_measured_is_a_valid_document_too(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    save_benchmark(benchmark(), tmp_path / "bench.json")

    schema = json.loads((files("qmeter_native.model") / "kernel_benchmark.schema.json").read_text())
    jsonschema.validate(json.loads((tmp_path / "bench.json").read_text()), schema)
    assert load_benchmark(tmp_path / "bench.json").rows == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("not json", "is no JSON"),
        ("[]", "is no kernel benchmark"),
        ('{"document": "qmeter-native kernel benchmark", "schema_version": 2}', "schema version 2"),
        ('{"document": "qmeter-native kernel benchmark", "schema_version": 1}', "is damaged"),
    ],
)
def test_files_that_are_no_benchmark_are_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bench.json").write_text(text)

    with pytest.raises(BenchmarkError, match=says):
        load_benchmark(tmp_path / "bench.json")


def test_a_file_that_is_not_there_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"kernels bench -o"):
        load_benchmark(tmp_path / "none.json")


def test_a_ratio_is_the_smallest_over_the_points_it_is_about_with_that_points_interval() -> None:
    rows = (
        row("qmeter.weight_only_linear", 20.0, m=1),
        row("vllm.marlin", 30.0, m=1),
        row("qmeter.weight_only_linear", 25.0, m=16),
        row("vllm.marlin", 24.0, m=16),
        row("qmeter.weight_only_linear", 100.0, m=32),
        row("vllm.marlin", 50.0, m=32),
    )

    ratio = benchmark_metrics(rows)["w4a16_vs_marlin_m_le_16"]

    assert ratio.value == pytest.approx(24 / 25)
    assert ratio.low == pytest.approx(24 * 0.99 / (25 * 1.01))
    assert ratio.high == pytest.approx(24 * 1.01 / (25 * 0.99))
    assert "2 points" in ratio.method
    assert "16x8192x8192" in ratio.method
    assert benchmark_metrics(rows)["w4a16_vs_marlin_m_32_256"].value == pytest.approx(0.5)


def test_the_better_of_two_peers_is_compared_with_point_by_point() -> None:
    rows = (
        row("qmeter.weight_only_linear", 40.0, m=64),
        row("vllm.marlin", 50.0, m=64),
        row("vllm.machete", 44.0, m=64),
    )

    assert benchmark_metrics(rows)["w4a16_vs_best_m_32_256"].value == pytest.approx(1.1)


def test_fused_and_dispatched_products_have_ratios_of_their_own() -> None:
    rows = (
        row("qmeter.weight_only_gemm", 200.0, m=1024),
        row("qmeter.weight_only_linear", 150.0, m=1024),
        row("cublas", 120.0, m=1024),
    )

    metrics = benchmark_metrics(rows)

    assert metrics["w4a16_fused_vs_fp16_m_ge_1024"].value == pytest.approx(0.6)
    assert metrics["w4a16_dispatch_vs_fp16_m_ge_1024"].value == pytest.approx(0.8)


def test_the_roof_metric_is_the_fraction_at_16384_and_one_token() -> None:
    rows = (row("qmeter.weight_only_linear", 50.0, n=16384, k=16384, roof_s=32e-6),)

    assert benchmark_metrics(rows)["w4a16_roof_16384_m1"].value == pytest.approx(0.64)


def test_metrics_without_rows_are_missing_with_the_reason_and_wrong_kernels_do_not_count() -> None:
    metrics = benchmark_metrics((row("qmeter.weight_only_linear", 20.0), row("vllm.marlin", None)))

    assert set(metrics) == set(METRICS)
    assert all(metric.value is None and metric.reason for metric in metrics.values())


def test_rows_of_different_types_are_not_compared() -> None:
    rows = (row("qmeter.weight_only_linear", 20.0), row("vllm.marlin", 30.0, dtype="bfloat16"))

    assert benchmark_metrics(rows)["w4a16_vs_marlin_m_le_16"].value is None


def test_runs_are_joined_row_by_row_and_their_metrics_computed_anew() -> None:
    one = benchmark(row("qmeter.weight_only_linear", 20.0), row("vllm.marlin", 22.0))
    other = benchmark(row("qmeter.weight_only_linear", 90.0), row("vllm.marlin", 30.0, m=8), notes=("Another day.",))

    whole = joined([one, other])

    assert [entry.time_s.value for entry in whole.rows] == pytest.approx([20e-6, 22e-6, 30e-6])
    assert whole.metrics["w4a16_vs_marlin_m_le_16"].value == pytest.approx(1.1)
    assert whole.notes == ("One board.", "Another day.")


def test_joules_and_times_that_one_run_lacks_come_from_the_other() -> None:
    joules = {"energy_j": Estimate(0.012), "dynamic_j": Estimate(0.009)}
    one = benchmark(row("qmeter.weight_only_linear", 20.0), row("vllm.marlin", None))
    other = benchmark(row("qmeter.weight_only_linear", 21.0, **joules), row("vllm.marlin", 25.0))

    first, second = joined([one, other]).rows

    assert (first.time_s.value, first.energy_j.value, first.dynamic_j.value) == (pytest.approx(20e-6), 0.012, 0.009)
    assert second.time_s.value == pytest.approx(25e-6)


def test_runs_of_different_gpus_are_not_joined() -> None:
    other = benchmark(device=Device("NVIDIA H100", "GPU-2", "9.0"))

    with pytest.raises(BenchmarkError, match="H100 and NVIDIA H200"):
        joined([benchmark(), other])


def test_the_roof_is_the_calibrated_read_bandwidth_where_there_is_one() -> None:
    measured = (
        Ceiling("dram_read", "B/s", Estimate(4.2e12), 4.8e12),
        Ceiling("fp16", "FLOP/s", Estimate(700e12), 990e12),
        Ceiling("int8", "OP/s", Estimate.missing("no"), 1979e12),
    )
    profile = replace(default_profile("NVIDIA H200", "GPU-1"), ceilings=measured)

    roof = find_roof(profile, chip_info("NVIDIA H200"))

    assert roof == Roof("measured", 4.2e12, {"fp16": 700e12})


def test_without_a_profile_the_roof_is_the_datasheets_and_without_that_unknown() -> None:
    assert find_roof(None, chip_info("NVIDIA H200")).source == "datasheet"
    assert find_roof(None, None) == Roof("unknown", None, {})


def test_one_token_is_bound_by_memory_and_many_by_arithmetic() -> None:
    form = format_named(W4A16)

    small_s, small = roof_time(H200_ROOF, form.work(1, 8192, 8192), form.ceiling, "float16")
    large_s, large = roof_time(H200_ROOF, form.work(4096, 8192, 8192), form.ceiling, "bfloat16")

    assert small == "memory"
    assert small_s == pytest.approx((8192 * 8192 * (0.5 + 2 / 128) + 4 * 8192) / 4.3e12)
    assert large == "compute"
    assert large_s == pytest.approx(2 * 4096 * 8192**2 / 790e12)


def test_a_roof_without_the_rate_that_is_needed_bounds_nothing() -> None:
    form = format_named("W8A8-FP")

    assert roof_time(Roof("measured", 4e12, {"fp16": 1e15}), form.work(1, 128, 128), form.ceiling, "float16") == (
        None,
        None,
    )


@pytest.mark.parametrize(("copies", "call_us"), [(1, 3000.0), (20, 10.0), (7, 25.0), (500, 1.0), (2, 1.0), (30, 300.0)])
def test_graphs_use_every_copy_equally_often_in_bursts_of_about_the_same_length(copies: int, call_us: float) -> None:
    count = num_launches(call_us * 1e-6, copies, burst_s=0.01)

    assert count % copies == 0
    assert count == copies or count * call_us * 1e-6 * 4 < 0.02


def test_calls_that_take_longer_than_a_burst_do_not_use_every_copy() -> None:
    assert num_launches(30e-3, 30, burst_s=0.01) == 1
    assert num_launches(0.5e-3, 30, burst_s=0.01) == 5


def test_the_gap_of_a_launch_drops_out_of_the_time_of_a_call() -> None:
    gap_s, call_s = 9e-6, 20e-6

    assert call_seconds(gap_s + 50 * call_s, gap_s + 100 * call_s, 50) == pytest.approx(call_s)
    assert call_seconds(1e-3, 0.9e-3, 50) is None


def test_times_are_medians_with_an_interval_that_leaves_out_the_extremes() -> None:
    estimate = Timing(tuple(float(number) for number in range(1, 10))).estimate()

    assert (estimate.value, estimate.low, estimate.high) == (5.0, 2.0, 8.0)
    assert Timing((), reason="it would not start").estimate().reason == "it would not start"


def test_shapes_are_found_by_set_and_by_size_each_once() -> None:
    shapes = find_shapes("llama-70b,square,5120x1024")

    assert shapes == (
        (10240, 8192),
        (8192, 8192),
        (57344, 8192),
        (8192, 28672),
        (16384, 16384),
        (5120, 1024),
    )
    assert parse_m("16,1,16") == (1, 16)


@pytest.mark.parametrize("text", ["llama-9b", "4096", "0x4096", "4096x", ""])
def test_shapes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no shape"):
        find_shapes(text)


@pytest.mark.parametrize("text", ["", "0", "1,a", "-3"])
def test_numbers_of_tokens_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="are no numbers of tokens"):
        parse_m(text)


def test_energy_is_measured_at_whole_points_within_forty_rows_decoding_first() -> None:
    plan = BenchmarkPlan(FORMATS[:2], ((16384, 16384), (8192, 8192)), (1, 2, 16, 128, 1024), has_energy=True)

    points = energy_points(plan, {FORMATS[0].label: 9, FORMATS[1].label: 4})

    assert {point[2:] for point in points} == {(8192, 8192)}
    assert {point[:2] for point in points} == {(form.label, m) for form in FORMATS[:2] for m in (1, 16, 1024)}
    rows = sum(9 if label == FORMATS[0].label else 4 for label, *_ in points)
    assert rows <= MAX_ENERGY_ROWS
    assert energy_points(replace(plan, has_energy=False), {}) == frozenset()


@pytest.mark.parametrize("changes", [{"num_repeats": 8}, {"budget_s": 0.0}, {"budget_s": float("nan")}])
def test_plans_that_measure_too_little_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        BenchmarkPlan(FORMATS[:1], ((128, 128),), (1,), **changes)


class KnownTimer:
    """A timer by whose clock each kernel takes a time that is known; a number below zero is a failure.

    Sets ``stop`` after so many points.
    """

    def __init__(self, us: Mapping[str, float], stop: Event | None = None, num_points: int = 0) -> None:
        self.us = us
        self.stop = stop
        self.left = num_points
        self.copies: list[dict[str, int]] = []

    def time(self, launches: Mapping[str, Sequence[Launch]], num_repeats: int) -> dict[str, Timing]:
        self.copies.append({name: len(copies) for name, copies in launches.items()})
        for copies in launches.values():
            copies[-1]()
        self.left -= 1
        if self.stop is not None and self.left == 0:
            self.stop.set()
        return {name: self._timing(self.us[name], num_repeats) for name in launches}

    @staticmethod
    def _timing(us: float, num_repeats: int) -> Timing:
        if us < 0:
            return Timing((), reason="RuntimeError: out of memory")
        return Timing(tuple(us * 1e-6 * (1 + 0.001 * number) for number in range(num_repeats)), 1980.0)


def torch_contender(name: str = "torch.reference", wrong_from_m: int = 1 << 30, **changes: Any) -> Any:
    """Multiplies right on a CPU, and from so many tokens on wrong."""
    import torch

    from qmeter_native.benchmark.contender import Contender

    def prepare(weight: Any, dtype: Any) -> Any:
        matrix = weight.dequantize(torch.float32)

        def product(activation: Any) -> Any:
            exact = activation.half.float() @ matrix.T
            return (exact + (activation.half.shape[0] >= wrong_from_m)).to(dtype)

        return product

    fields = {"formats": (W4A16,), "minimum": (0, 0), **changes}
    return Contender(name, prepare=prepare, **fields)


def bench_of(timer: KnownTimer, *contenders: Any, meter: Any = None) -> Any:
    from qmeter_native.benchmark.run import Bench

    return Bench("cpu", (9, 0), contenders, timer, H200_ROOF, meter)


def run(plan: BenchmarkPlan, bench: Any, stop: Event | None = None) -> list[BenchmarkRow]:
    pytest.importorskip("torch")
    from qmeter_native.benchmark.run import measure_rows

    return list(measure_rows(plan, bench, stop or Event(), lambda *_: None))


SMALL = BenchmarkPlan((format_named(W4A16),), ((64, 128), (128, 256)), (1, 4), working_set_bytes=20_000)


def test_every_kernel_has_a_row_at_every_point_with_its_time_its_roof_and_its_error() -> None:
    timer = KnownTimer({"torch.reference": 20.0, "other": 40.0})

    rows = run(SMALL, bench_of(timer, torch_contender(), torch_contender("other")))

    assert [(row.n, row.k, row.m, row.kernel) for row in rows] == [
        (n, k, m, name) for n, k in SMALL.shapes for m in SMALL.tokens for name in ("torch.reference", "other")
    ]
    assert rows[0].time_s.value == pytest.approx(20e-6 * 1.004)
    assert rows[0].clock_mhz == 1980.0
    assert rows[0].bound == "memory"
    assert rows[0].roof_s == pytest.approx(format_named(W4A16).work(1, 64, 128).bytes / 4.3e12)
    assert rows[0].error is not None
    assert 0 < rows[0].error <= 1


def test_weights_rotate_over_more_than_the_working_set() -> None:
    timer = KnownTimer({"torch.reference": 20.0})

    run(SMALL, bench_of(timer, torch_contender()))

    layout = format_named(W4A16).layout
    for copies, (n, k) in zip(timer.copies[::2], SMALL.shapes, strict=True):
        assert copies["torch.reference"] * layout.num_bytes(n, k) >= SMALL.working_set_bytes
        assert copies["torch.reference"] >= 2


def test_a_kernel_that_is_wrong_is_reported_and_not_timed() -> None:
    timer = KnownTimer({"torch.reference": 20.0, "bad": 5.0})

    rows = run(SMALL, bench_of(timer, torch_contender(), torch_contender("bad", wrong_from_m=4)))

    bad = {(row.m, row.n): row for row in rows if row.kernel == "bad"}
    assert "bad" not in timer.copies[1]
    assert bad[4, 64].time_s.value is None
    assert (bad[4, 64].time_s.reason or "").startswith("wrong: ")
    assert (bad[4, 64].error or 0) > 1


def test_a_kernel_that_refuses_a_weight_or_fails_keeps_its_row_with_the_reason() -> None:
    from qmeter_native.benchmark.contender import Contender, require

    def refuse(weight: Any, dtype: Any) -> Any:
        require(False, "it takes N in multiples of 4096")

    timer = KnownTimer({"torch.reference": 20.0, "late": -1.0})
    picky = Contender("picky", (W4A16,), refuse, (0, 0))

    rows = run(SMALL, bench_of(timer, torch_contender(), picky, torch_contender("late")))

    reasons = {row.kernel: row.time_s.reason for row in rows if row.m == 1}
    assert reasons["picky"] == "it takes N in multiples of 4096"
    assert reasons["late"] == "RuntimeError: out of memory"


def test_contenders_of_other_formats_types_and_gpus_take_no_part() -> None:
    timer = KnownTimer({"torch.reference": 20.0})
    others = (
        torch_contender("fp8", formats=("W8A8-FP",)),
        torch_contender("bf16", dtypes=("bfloat16",)),
        torch_contender("ampere", maximum=(8, 6)),
        torch_contender("blackwell", minimum=(10, 0)),
    )

    rows = run(SMALL, bench_of(timer, torch_contender(), *others))

    assert {row.kernel for row in rows} == {"torch.reference"}
    from qmeter_native.benchmark.run import unable_contenders

    reasons = unable_contenders(SMALL, bench_of(timer, torch_contender(), *others))
    assert set(reasons) == {"bf16", "ampere", "blackwell"}
    assert "bfloat16 only" in reasons["bf16"]
    assert "10.0 and newer" in reasons["blackwell"]


def test_a_stop_keeps_the_points_that_were_measured() -> None:
    stop = Event()
    timer = KnownTimer({"torch.reference": 20.0}, stop, num_points=3)

    rows = run(SMALL, bench_of(timer, torch_contender()), stop)

    assert len(rows) == 3
    assert all(row.time_s.value is not None for row in rows)


def test_a_spent_budget_begins_no_further_point() -> None:
    rows = run(replace(SMALL, budget_s=1e-9), bench_of(KnownTimer({"torch.reference": 20.0}), torch_contender()))

    assert rows == []


def test_a_shape_that_a_format_does_not_divide_has_rows_that_say_so() -> None:
    plan = replace(SMALL, shapes=((64, 100), (64, 128)))

    rows = run(plan, bench_of(KnownTimer({"torch.reference": 20.0}), torch_contender()))

    assert [row.time_s.value is None for row in rows] == [True, True, False, False]
    assert "does not divide" in (rows[0].time_s.reason or "")


class KnownMeter:
    """Joules that are known; calls are counted."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.calls: list[float] = []

    def energy(self, launches: Sequence[Launch], call_s: float) -> Any:
        from qmeter_native.benchmark.energy import CallEnergy

        if self.fails:
            raise RuntimeError("no graph")
        self.calls.append(call_s)
        return CallEnergy(Estimate(0.02), Estimate(0.015), 125.0)


def test_energy_is_measured_where_the_plan_chose_to_and_its_failure_keeps_the_time() -> None:
    plan = replace(SMALL, has_energy=True)
    timer = KnownTimer({"torch.reference": 20.0})
    meter = KnownMeter()

    rows = run(plan, bench_of(timer, torch_contender(), meter=meter))
    failed = run(plan, bench_of(timer, torch_contender(), meter=KnownMeter(fails=True)))

    assert [row.energy_j.value for row in rows] == [None, None, 0.02, 0.02]
    assert rows[0].energy_j.reason == "energy was not asked for at this point"
    assert meter.calls == pytest.approx([20e-6 * 1.004] * 2)
    assert failed[2].time_s.value is not None
    assert failed[2].energy_j.reason == "RuntimeError: no graph"


def test_a_run_that_was_stopped_says_so_in_its_document(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from qmeter_native.benchmark.bench import Chosen, document_of

    bench = bench_of(KnownTimer({"torch.reference": 20.0}), torch_contender())
    rows = run(SMALL, bench)[:1]

    found = document_of(
        SMALL, bench, Chosen((), ()), Device("NVIDIA H200", "GPU-1", "9.0"), "x", rows, Estimate.missing("not asked")
    )

    assert found.notes[0].startswith("Only 1 of 4 points")
    save_benchmark(found, tmp_path / "partial.json")
    assert load_benchmark(tmp_path / "partial.json").num_measured == 1


def test_clocks_that_fell_are_noted_with_the_kernel_at_which_they_did() -> None:
    pytest.importorskip("torch")
    from qmeter_native.benchmark.bench import Chosen, document_of

    bench = bench_of(KnownTimer({}), torch_contender())
    rows = [row("cublas", 20.0, clock_mhz=1980.0), row("cublas", 900.0, m=4096, clock_mhz=1755.0)]

    found = document_of(
        SMALL, bench, Chosen((), ()), Device("NVIDIA H200", "GPU-1", "9.0"), "x", rows, Estimate.missing("not asked")
    )

    assert any("1755 to 1980 MHz" in note and "M=4096" in note for note in found.notes)
