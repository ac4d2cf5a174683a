"""Tuning without a GPU: which tiles win, what the table keeps, how a run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from qmeter_native.benchmark.plan import BenchmarkPlan  # noqa: E402
from qmeter_native.benchmark.timer import Launch, Timing  # noqa: E402
from qmeter_native.benchmark.tuning import Tunable, tune  # noqa: E402
from qmeter_native.errors import BenchmarkError  # noqa: E402
from qmeter_native.kernels.autotune import TunedRow, TuningTable, fastest  # noqa: E402
from qmeter_native.kernels.catalog import format_named  # noqa: E402
from qmeter_native.kernels.gemm_config import GemmConfig, _table, tuned_config, tuned_limit, user_table  # noqa: E402

CANDIDATES = tuple(GemmConfig(16, 64, 64, split_k) for split_k in range(1, 21))
PLAN = BenchmarkPlan((format_named("W4A16-INT g128"),), ((64, 128),), (1, 16), working_set_bytes=9_000)


def test_the_fastest_is_found_among_finalists_that_are_timed_again() -> None:
    rounds: list[tuple[int, int]] = []

    def times(configs: Sequence[GemmConfig], num_repeats: int) -> Mapping[GemmConfig, float]:
        rounds.append((len(configs), num_repeats))
        noise = 3.5 if num_repeats == 1 else 0.0  # the winner is not the first round's
        return {one: abs(one.split_k - 7) + noise * (one.split_k == 7) + 1.0 for one in configs if one.split_k != 6}

    found = fastest(CANDIDATES, times, 9)

    assert found == (CANDIDATES[6], 1.0)
    assert rounds == [(12, 1), (8, 1), (6, 9)]


def test_candidates_of_which_none_runs_have_no_winner() -> None:
    assert fastest(CANDIDATES, lambda configs, num_repeats: {}, 9) is None
    assert fastest((), lambda configs, num_repeats: {}, 9) is None


def test_a_table_is_written_row_by_row_and_read_back(tmp_path: Path) -> None:
    table = TuningTable.of((9, 0), tmp_path / "deep" / "sm_90.json")
    table.add(TunedRow("weight_only_int4", 16, 64, 128, CANDIDATES[2], 20e-6))
    table.add(TunedRow("weight_only_int4", 1, 64, 128, CANDIDATES[1], 10e-6))
    table.add(TunedRow("weight_only_int4", 1, 64, 128, CANDIDATES[3], 9e-6))

    document = json.loads(table.path.read_text())
    again = TuningTable.of((9, 0), table.path)

    assert [(row["m"], row["split_k"], row["us"]) for row in document["rows"]] == [(1, 4, 9.0), (16, 3, 20.0)]
    assert again.rows == table.rows


def test_the_limit_of_a_kernel_is_where_dequantizing_first_wins_anywhere(tmp_path: Path) -> None:
    table = TuningTable.of((9, 0), tmp_path / "sm_90.json")
    for m, n, fused_us, other_us in ((64, 64, 10, 30), (256, 64, 30, 40), (256, 128, 50, 60), (512, 128, 90, 80)):
        table.add(TunedRow("weight_only_int4", m, n, 128, CANDIDATES[0], fused_us * 1e-6, other_us * 1e-6))
    table.add(TunedRow("weight_only_int4", 1024, 64, 128, CANDIDATES[0], 10e-6, 20e-6))

    limits = [row["m_limit"] for row in table.rows.values() if "m_limit" in row]

    assert limits == [256]


@pytest.mark.parametrize("text", ["no json", '{"schema_version": 9, "rows": []}', "[]"])
def test_what_is_no_table_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "sm_90.json").write_text(text)

    with pytest.raises(BenchmarkError, match=r"sm_90\.json is no table of tiles"):
        TuningTable.of((9, 0), tmp_path / "sm_90.json")


def test_kernels_read_the_users_table_before_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QMETER_KERNELS", str(tmp_path))
    _table.cache_clear()
    table = TuningTable.of((9, 9))
    assert table.path == user_table((9, 9)) == tmp_path / "sm_99.json"
    table.add(TunedRow("weight_only_int4", 16, 64, 128, CANDIDATES[2], 20e-6, 30e-6))

    assert tuned_config("weight_only_int4", (9, 9), 5, 64, 128) == CANDIDATES[2]
    assert tuned_limit("weight_only_int4", (9, 9)) == 16
    assert tuned_config("scaled_int8", (9, 9), 5, 64, 128) is None
    _table.cache_clear()


class SplitTimer:
    """A launch takes as many microseconds as its inputs are split; dequantizing first takes 15."""

    def __init__(self) -> None:
        self.rounds: list[int] = []

    def time(self, launches: Mapping[str, Sequence[Launch]], num_repeats: int) -> dict[str, Timing]:
        self.rounds.append(num_repeats)
        return {
            name: Timing(((15e-6 if name == "dequantized" else self._split(name) * 1e-6),) * num_repeats)
            for name in launches
        }

    @staticmethod
    def _split(name: str) -> int:
        return int(name.partition("split_k=")[2].partition(",")[0])


def tunable(form: Any, weight: Any, dtype: Any) -> Tunable:
    """Right from a split of 3 on; a split of 5 does not compile."""
    matrix = weight.dequantize(torch.float32)

    def product(config: GemmConfig) -> Any:
        def multiply(activation: Any) -> Any:
            if config.split_k == 5:
                raise RuntimeError("out of shared memory")
            return (activation.half.float() @ matrix.T + (config.split_k < 3)).to(dtype)

        return multiply

    return Tunable("weight_only_int4", lambda m: CANDIDATES, product, lambda activation: activation.half @ matrix.T)


def test_tiles_that_are_wrong_or_do_not_compile_never_win(tmp_path: Path) -> None:
    table, timer = TuningTable.of((9, 0), tmp_path / "sm_90.json"), SplitTimer()

    rows = list(tune(PLAN, "cpu", timer, table, Event(), lambda *_: None, tunable))

    assert [(row.m, row.config.split_k) for row in rows] == [(1, 3), (16, 3)]
    assert rows[0].time_s == pytest.approx(3e-6)
    assert rows[0].dequantized_s == pytest.approx(15e-6)


def test_a_run_goes_on_where_another_ended(tmp_path: Path) -> None:
    stop, shown = Event(), []
    table = TuningTable.of((9, 0), tmp_path / "sm_90.json")
    for _ in tune(PLAN, "cpu", SplitTimer(), table, stop, lambda *_: None, tunable):
        stop.set()

    again = TuningTable.of((9, 0), tmp_path / "sm_90.json")
    rows = list(tune(PLAN, "cpu", SplitTimer(), again, Event(), lambda *line: shown.append(line), tunable))

    assert [row.m for row in rows] == [16]
    assert shown == [("W4A16-INT g128 16x64x128", 1, 2)]


def test_a_spent_budget_tunes_no_further_point(tmp_path: Path) -> None:
    table = TuningTable.of((9, 0), tmp_path / "sm_90.json")

    rows = list(tune(replace(PLAN, budget_s=1e-9), "cpu", SplitTimer(), table, Event(), lambda *_: None, tunable))

    assert rows == []
    assert not table.path.exists()
