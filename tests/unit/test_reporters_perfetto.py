from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace import perfetto_trace_pb2

from qmeter_native.errors import CaptureError, UsageError
from qmeter_native.model.activity_kind import ActivityKind
from qmeter_native.model.capture import Capture
from qmeter_native.model.energy_source import EnergySource
from qmeter_native.model.manifest import ProcessInfo
from qmeter_native.model.phase import Phase
from qmeter_native.model.tables import ClockTable, RangeTable
from qmeter_native.reporters import perfetto as exporter
from qmeter_native.reporters.perfetto import Window, write_perfetto
from qmeter_native.reporters.perfetto.lanes import pack_lanes
from tests.factories import ATTENTION, GEMM, T0, CaptureBuilder, capture_of_intervals, device, synthetic_capture


@dataclass
class Slice:
    track: str
    parent: str
    name: str
    start: int
    end: int
    depth: int
    args: dict[str, Any]


@dataclass
class Trace:
    slices: list[Slice]
    counters: dict[tuple[str, str, str], list[tuple[int, float]]]

    def on(self, track: str) -> list[Slice]:
        return [entry for entry in self.slices if entry.track == track]


def decoded(path: Path) -> Trace:
    """Read a trace with Perfetto's own message classes, as its trace processor does: by time, slices on stacks."""
    message = perfetto_trace_pb2.Trace.FromString(path.read_bytes())
    interned = next(packet.interned_data for packet in message.packet if packet.HasField("interned_data"))
    names = {entry.iid: entry.name for entry in interned.event_names}
    keys = {entry.iid: entry.name for entry in interned.debug_annotation_names}
    values = {entry.iid: entry.str.decode() for entry in interned.debug_annotation_string_values}
    tracks = {p.track_descriptor.uuid: p.track_descriptor for p in message.packet if p.HasField("track_descriptor")}
    assert 0 not in tracks

    def parent_of(track: Any) -> str:
        return tracks[track.parent_uuid].name if track.parent_uuid else ""

    slices: list[Slice] = []
    counters: dict[tuple[str, str, str], list[tuple[int, float]]] = defaultdict(list)
    stacks: dict[int, list[Slice]] = defaultdict(list)
    for packet in sorted((p for p in message.packet if p.HasField("track_event")), key=lambda p: p.timestamp):
        event, track = packet.track_event, tracks[packet.track_event.track_uuid]
        stack = stacks[track.uuid]
        if event.type == event.TYPE_COUNTER:
            key = (parent_of(track), track.name, track.counter.unit_name)
            counters[key].append((packet.timestamp - T0, event.double_counter_value))
        elif event.type == event.TYPE_SLICE_BEGIN:
            args = {
                keys[arg.name_iid]: values[arg.string_value_iid] if arg.HasField("string_value_iid") else arg.uint_value
                for arg in event.debug_annotations
            }
            start = packet.timestamp - T0
            slices.append(Slice(track.name, parent_of(track), names[event.name_iid], start, -1, len(stack), args))
            stack.append(slices[-1])
        else:
            stack.pop().end = packet.timestamp - T0
    assert not any(stacks.values())
    return Trace(slices, counters)


def exported(capture: Capture, tmp_path: Path, window: Window | None = None) -> Trace:
    path = tmp_path / "run.perfetto-trace"
    write_perfetto(capture, path, window or Window())
    return decoded(path)


def serving() -> CaptureBuilder:
    """One request through a prefill and a decode step, with markers; a power sample and a clock reading."""
    builder = CaptureBuilder(length_ns=10_000)
    builder.request(0, send=100, first=2_100, last=3_900)
    builder.step(0, 1_000, 1_900, num_markers=2, stream=7).step(1, 2_900, 3_700, num_markers=2, stream=7)
    builder.ride(0, 0, Phase.PREFILL, num_scheduled=4).ride(1, 0)
    for step, at in ((0, 1_100), (1, 3_000)):
        builder.marker(at, 2 * step).kernel(at + 100, at + 500, GEMM).kernel(at + 500, at + 600, ATTENTION)
        builder.marker(at + 650, 2 * step + 1)
    builder.kernel(5_000, 5_100, "Memcpy DtoH", kind=ActivityKind.MEMCPY, stream=13)
    builder.power(2_000, 417_300)
    builder.add(ClockTable, time_ns=T0 + 2_000, sm_mhz=1_980, memory_mhz=-1, temperature_c=54)
    return builder


def test_every_kernel_is_on_its_stream_with_its_times(tmp_path: Path) -> None:
    trace = exported(serving().build(), tmp_path)
    gemms = [entry for entry in trace.on("stream 7") if entry.args["kernel"] == GEMM]
    assert [(entry.start, entry.end) for entry in gemms] == [(1_200, 1_600), (3_100, 3_500)]
    assert [entry.track for entry in trace.slices if entry.name == "Memcpy DtoH"] == ["stream 13"]
    assert {entry.parent for entry in trace.on("stream 7")} == {"cuda:0 NVIDIA Test"}


def test_a_kernel_says_family_phase_step_grid_and_block(tmp_path: Path) -> None:
    trace = exported(serving().build(), tmp_path)
    first = next(entry for entry in trace.on("stream 7") if entry.args["kernel"] == GEMM)
    copy = next(entry for entry in trace.slices if entry.name == "Memcpy DtoH")
    assert first.args == {
        "kernel": GEMM, "family": "gemm", "phase": "prefill", "step": "0", "grid": "1 × 1 × 1", "block": "128 × 1 × 1",
    }  # fmt: skip
    assert (copy.args["phase"], copy.args["step"], copy.args["family"]) == ("none", "none", "memory")


def test_steps_lie_where_their_markers_were(tmp_path: Path) -> None:
    steps = exported(serving().build(), tmp_path).on("engine steps")
    assert [(entry.name, entry.start, entry.end) for entry in steps] == [
        ("step: prefill", 1_100, 1_751),
        ("step: decode", 3_000, 3_651),
    ]
    assert steps[0].args == {"step": 0, "requests": 1, "tokens": 4}


def test_a_request_holds_its_queue_prefill_and_decode(tmp_path: Path) -> None:
    request = exported(serving().build(), tmp_path).on("request")
    assert [(entry.name, entry.depth, entry.start, entry.end) for entry in request] == [
        ("request r0", 0, 100, 3_900),
        ("queue", 1, 100, 1_100),
        ("prefill", 1, 1_100, 2_100),
        ("decode", 1, 2_100, 3_900),
    ]
    assert request[0].args == {"prompt tokens": 4, "output tokens": 2}


def test_a_request_that_was_cut_off_ends_with_the_measurement(tmp_path: Path) -> None:
    builder = serving()
    builder.request(1, send=500, first=-T0, last=-T0, tokens=0, is_finished=False)
    cut = [entry for entry in exported(builder.build(), tmp_path).on("request") if entry.start == 500]
    assert [(entry.name, entry.end) for entry in cut] == [("request r1", 10_000), ("queue", 10_000)]


def test_power_is_in_watts_and_unreadable_clocks_are_left_out(tmp_path: Path) -> None:
    counters = exported(serving().build(), tmp_path).counters
    root = "cuda:0 NVIDIA Test"
    assert counters[root, "power", "W"] == [(2_000, pytest.approx(417.3))]
    assert counters[root, "SM clock", "MHz"] == [(2_000, 1_980.0)]
    assert counters[root, "temperature", "°C"] == [(2_000, 54.0)]
    assert not any("memory clock" in name for _, name, _ in counters)


def test_a_counter_of_energy_becomes_mean_power_between_its_edges(tmp_path: Path) -> None:
    builder = CaptureBuilder(length_ns=3_000_000_000)
    for second, joules in enumerate((0, 20, 50)):
        builder.tick(second * 1_000_000_000, joules * 1_000_000, source=EnergySource.RAPL)
    counters = exported(builder.build(), tmp_path).counters
    assert counters["cuda:0 NVIDIA Test", "mean power, rapl", "W"] == [(0, 20.0), (1_000_000_000, 30.0)]


def test_kernels_that_overlap_on_one_stream_get_lanes(tmp_path: Path) -> None:
    capture = capture_of_intervals([(0, 100, 7), (50, 150, 7), (100, 200, 7), (150, 150, 7)])
    slices = exported(capture, tmp_path).on("stream 7")
    assert sorted((entry.start, entry.end) for entry in slices) == [(0, 100), (50, 150), (100, 200), (150, 150)]
    assert {entry.depth for entry in slices} == {0}


def test_ranges_nest_under_their_process_and_thread(tmp_path: Path) -> None:
    builder = CaptureBuilder()
    for depth, (start, end, name) in enumerate([(10, 90, "outer"), (20, 90, "inner")]):
        builder.add(RangeTable, start_ns=T0 + start, end_ns=T0 + end, name=name, thread=42, depth=depth)
    ranges = exported(builder.build(), tmp_path).on("ranges of thread 42")
    assert [(entry.name, entry.depth, entry.start, entry.end) for entry in ranges] == [
        ("outer", 0, 10, 90),
        ("inner", 1, 20, 90),
    ]
    assert ranges[0].parent == "process 100 on host"


def test_devices_and_processes_have_tracks_of_their_own(tmp_path: Path) -> None:
    processes = (ProcessInfo(0, "host", "boot", 100), ProcessInfo(1, "host", "boot", 101))
    builder = CaptureBuilder(changes={"devices": (device(0), device(1)), "processes": processes})
    builder.kernel(0, 10).kernel(0, 10, process=1).kernel(0, 10, device=1)
    places = Counter((entry.parent, entry.track) for entry in exported(builder.build(), tmp_path).slices)
    assert places == {
        ("cuda:0 NVIDIA Test", "stream 7 of process 100"): 1,
        ("cuda:0 NVIDIA Test", "stream 7 of process 101"): 1,
        ("cuda:1 NVIDIA Test", "stream 7 of process 100"): 1,
    }


def test_a_window_takes_whole_what_touches_it(tmp_path: Path) -> None:
    trace = exported(serving().build(), tmp_path, Window(T0 + 1_300, T0 + 1_400))
    assert [entry.args["kernel"] for entry in trace.on("stream 7")] == [GEMM]
    assert [entry.name for entry in trace.on("engine steps")] == ["step: prefill"]
    assert trace.counters == {}


def test_counts_and_times_of_a_large_capture_survive(tmp_path: Path) -> None:
    capture = synthetic_capture(20_000)
    path = tmp_path / "large"
    written = write_perfetto(capture, path, Window())
    trace = decoded(path)
    kernels = [entry for entry in trace.slices if entry.track.startswith("stream")]
    assert written.num_bytes == path.stat().st_size
    assert written.num_kernels == len(kernels) == len(capture.kernels)
    assert written.num_steps == len(trace.on("engine steps")) == len(capture.steps)
    assert written.num_requests == sum(entry.depth == 0 for entry in trace.on("request")) == len(capture.requests)
    assert sum(entry.end - entry.start for entry in kernels) == int(
        (capture.kernels.end_ns - capture.kernels.start_ns).sum()
    )
    power = trace.counters["cuda:0 NVIDIA Test", "power", "W"]
    assert np.allclose([watts for _, watts in power], capture.power.power_mw / 1_000)


def test_an_empty_capture_is_an_empty_trace(tmp_path: Path) -> None:
    trace = exported(CaptureBuilder().build(), tmp_path)
    assert trace == Trace([], {})


def test_a_trace_that_no_browser_opens_is_refused_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "MAX_BYTES", 1_000)
    with pytest.raises(UsageError, match=r"ui\.perfetto\.dev") as raised:
        write_perfetto(serving().build(), tmp_path / "out", Window())
    assert "--window" in str(raised.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="cannot be written"):
        write_perfetto(serving().build(), tmp_path / "no" / "folder", Window())
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(CaptureError, match="cannot be written"):
        write_perfetto(serving().build(), target, Window())
    assert list(tmp_path.iterdir()) == [target]


def test_a_new_trace_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_bytes(b"old")
    write_perfetto(replace(serving().build()), path, Window())
    assert decoded(path).slices


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=30), st.booleans())
def test_slices_of_a_lane_never_overlap_and_nest_only_if_they_may(spans: list[tuple[int, int]], may_nest: bool) -> None:
    spans.sort()
    start = np.array([begin for begin, _ in spans], np.int64)
    end = np.array([begin + length for begin, length in spans], np.int64)
    lanes = pack_lanes(start, end, may_nest=may_nest)
    for lane in set(lanes.tolist()):
        rows = np.flatnonzero(lanes == lane).tolist()
        for first in rows:
            for second in (row for row in rows if row > first):
                apart = start[second] >= end[first]
                assert apart or (may_nest and end[second] <= end[first])
