"""The benchmark's timer and meter on a GPU: they agree with what must hold whatever the card is."""

from __future__ import annotations

from functools import partial
from threading import Event

import pytest

torch = pytest.importorskip("torch")

from qmeter_native.benchmark.bench import Chosen, choose_contenders, run_bench, run_tuning  # noqa: E402
from qmeter_native.benchmark.energy import PacedMeter  # noqa: E402
from qmeter_native.benchmark.gpu import energy_counter, find_gpu, l2_bytes  # noqa: E402
from qmeter_native.benchmark.graph_timer import GraphTimer  # noqa: E402
from qmeter_native.benchmark.peers import find_peers  # noqa: E402
from qmeter_native.benchmark.plan import BenchmarkPlan  # noqa: E402
from qmeter_native.calibration.microbenchmark import SmClock  # noqa: E402
from qmeter_native.kernels.autotune import TuningTable  # noqa: E402
from qmeter_native.kernels.catalog import format_named  # noqa: E402


def timer() -> GraphTimer:
    return GraphTimer(0, SmClock(find_gpu("cuda:0").uuid), burst_s=0.01, rest_share=1.0, seed=1)


def copies_of(num_bytes: int, count: int) -> list[object]:
    """Launches that read ``num_bytes`` each and write as many."""
    tensors = [torch.randn(num_bytes // 4, device="cuda") for _ in range(count)]
    return [partial(torch.neg, tensor, out=torch.empty_like(tensor)) for tensor in tensors]


def test_twice_the_work_takes_twice_the_time() -> None:
    size = 2 * l2_bytes(0)

    timings = timer().time({"one": copies_of(size, 2), "two": copies_of(2 * size, 2)}, 9)

    one, two = (timings[name].estimate().value for name in ("one", "two"))
    assert one is not None
    assert two == pytest.approx(2 * one, rel=0.1)


def test_the_gap_between_launches_is_no_part_of_a_calls_time() -> None:
    small = torch.randn(1 << 10, device="cuda")

    (timing,) = timer().time({"small": [partial(torch.neg, small), partial(torch.neg, small)]}, 9).values()

    assert timing.estimate().value is not None
    assert 0 < (timing.estimate().value or 0.0) < 10e-6  # a graph's launch alone takes as long


def test_a_kernel_that_cannot_be_captured_is_reported_and_the_others_are_timed() -> None:
    def synchronizes() -> None:
        torch.randn(4, device="cuda").sum().item()

    timings = timer().time({"bad": [synchronizes], "good": copies_of(1 << 20, 2)}, 9)

    assert timings["bad"].reason
    assert timings["good"].seconds


def test_a_copy_costs_joules_above_idle_about_in_proportion_to_its_bytes() -> None:
    gpu = find_gpu("cuda:0")
    read_mj = energy_counter(gpu.uuid)
    if read_mj is None:
        pytest.skip("no energy counter")
    size = 2 * l2_bytes(0)
    joules = []
    for factor in (1, 2):
        launches = copies_of(factor * size, 2)
        call_s = timer().time({"copy": launches}, 9)["copy"].estimate().value
        joules.append(PacedMeter(0, read_mj, seed=1).energy(launches, call_s).dynamic_j)

    assert joules[0].value is not None
    assert joules[0].value > 0
    assert joules[1].value == pytest.approx(2 * joules[0].value, rel=0.25)


def test_every_kernel_and_peer_that_is_here_is_right_at_small_and_large_numbers_of_tokens() -> None:
    gpu = find_gpu("cuda:0")
    labels = ("W4A16-INT g128", "W4A16-INT g128 zp", "W8A8-INT", "W8A8-FP tensor", "W4A16-NF4 g64")
    plan = BenchmarkPlan(tuple(map(format_named, labels)), ((4096, 4096),), (1, 33, 512))

    found = run_bench(gpu, plan, choose_contenders(None, None, None), "test", Event(), lambda *_: None)

    wrong = [row for row in found.rows if (row.time_s.reason or "").startswith("wrong")]
    assert wrong == []
    assert {row.kernel for row in found.rows if row.time_s.value} >= {"qmeter.weight_only_gemm", "cublas"}
    assert all(row.time_s.value > 0 for row in found.rows if row.time_s.value is not None)


def test_tinygemm_in_bfloat16_is_right() -> None:
    gpu = find_gpu("cuda:0")
    here, absent = find_peers(["torch.tinygemm", "cublas"])
    plan = BenchmarkPlan((format_named("W4A16-INT g128 zp"),), ((4096, 4096),), (1, 64), "bfloat16")

    found = run_bench(gpu, plan, Chosen(here, absent), "test", Event(), lambda *_: None)

    assert [row.time_s.reason for row in found.rows if row.kernel == "torch.tinygemm"] == [None, None]


def test_tuning_finds_tiles_that_run(tmp_path) -> None:  # type: ignore[no-untyped-def]
    gpu = find_gpu("cuda:0")
    table = TuningTable.of((9, 0), tmp_path / "table.json")
    plan = BenchmarkPlan((format_named("W8A8-INT"),), ((1024, 1024),), (16,))

    rows = list(run_tuning(gpu, plan, table, Event(), lambda *_: None))

    assert len(rows) == 1
    assert rows[0].time_s > 0
