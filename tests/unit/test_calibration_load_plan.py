"""Plans of load windows keep the protocol of the truth test."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from qmeter_native.calibration.load_plan import IDLE_SETTLE_S, SETTLE_S, PilotLoad, PlanOptions, plan_loads
from qmeter_native.calibration.load_window import LoadWindow, WindowRole
from qmeter_native.errors import UsageError

IDLE_W = 125.0


def pilots(num_kinds: int = 14) -> dict[str, PilotLoad]:
    random = np.random.default_rng(7)
    times_s, powers_w = random.uniform(40e-6, 400e-6, num_kinds), random.choice([690.0, 640.0, 540.0], num_kinds)
    return {f"kind{n}": PilotLoad(t, w) for n, (t, w) in enumerate(zip(times_s, powers_w, strict=True))}


def windows(role: WindowRole, **options: object) -> list[LoadWindow]:
    plan = plan_loads(pilots(), IDLE_W, PlanOptions(**options))  # type: ignore[arg-type]
    return [window for window in plan.windows if window.role is role]


def planned_w(window: LoadWindow) -> float:
    known = pilots()
    above = sum(count * known[name].time_s * (known[name].power_w - IDLE_W) for name, count in window.counts.items())
    return IDLE_W + above / window.slot_s


def test_a_plan_begins_and_ends_idle_and_soaks_first() -> None:
    plan = plan_loads(pilots(), IDLE_W, PlanOptions(num_brackets=4))
    roles = [window.role for window in plan.windows]
    assert roles[0] is roles[-1] is WindowRole.IDLE
    assert roles[1] is WindowRole.SOAK
    assert plan.windows[1].length_s == 60.0
    assert roles.count(WindowRole.IDLE) == 4


def test_mixtures_below_the_cap_cover_the_powers_asked_for() -> None:
    mixtures = [window for window in windows(WindowRole.MIXTURE) if window.slot_s > 0]
    powers_w = [planned_w(window) for window in mixtures]
    assert len(mixtures) == 36
    assert min(powers_w) > 250
    assert max(powers_w) < 660
    assert np.ptp(powers_w) > 200
    assert all(abs(planned_w(window) - window.target_w) < 80 for window in mixtures)


def test_capped_mixtures_run_without_gaps() -> None:
    capped = [window for window in windows(WindowRole.MIXTURE) if window.slot_s == 0]
    assert len(capped) == 12
    assert all(len(window.counts) >= 2 for window in capped)


def test_every_kind_runs_alone_without_gaps_and_paced() -> None:
    alone = Counter((next(iter(w.counts)), w.slot_s == 0) for w in windows(WindowRole.SINGLE))
    assert alone == {(name, gapless): 1 for name in pilots() for gapless in (True, False)}


def test_interventions_are_four_windows_in_abba_order_that_differ_in_three_tenths_of_one_kind() -> None:
    found = windows(WindowRole.INTERVENTION)
    assert len(found) == 4 * 12
    for start in range(0, len(found), 4):
        a, b, b2, a2 = found[start : start + 4]
        assert [w.side for w in (a, b, b2, a2)] == list("ABBA")
        assert a.counts == a2.counts
        assert b.counts == b2.counts
        assert len({w.group for w in (a, b, b2, a2)}) == 1
        assert [w.number for w in (a, b, b2, a2)] == list(range(a.number, a.number + 4))
        changed = {name for name in a.counts if a.counts[name] != b.counts[name]}
        assert changed == {a.changed}
        assert 0.2 <= abs(b.counts[a.changed] / a.counts[a.changed] - 1) <= 0.4


def test_interventions_add_launches_as_often_as_they_take_some_away() -> None:
    sides = [w for w in windows(WindowRole.INTERVENTION) if w.side == "B"]
    plain = {w.group: w for w in windows(WindowRole.INTERVENTION) if w.side == "A"}
    more = [w.counts[w.changed] > plain[w.group].counts[w.changed] for w in sides]
    assert sum(more) == len(more) / 2


def test_parts_share_out_mixtures_and_interventions_and_each_has_every_kind_alone() -> None:
    groups = [
        {w.group for w in plan_loads(pilots(), IDLE_W, PlanOptions(part=(part, 3))).windows if w.group}
        for part in (1, 2, 3)
    ]
    shared = [{g for g in names if g.startswith(("mixture", "intervention", "capped"))} for names in groups]
    assert sum(len(names) for names in shared) == len(set.union(*shared)) == 36 + 12 + 12
    assert all(len(names) == 20 for names in shared)
    assert all(f"single {name} 1" in names for names in groups for name in pilots())


def test_the_same_seed_gives_the_same_plan_and_another_another() -> None:
    first, second = (plan_loads(pilots(), IDLE_W, PlanOptions(seed=seed)) for seed in (1, 2))
    assert first == plan_loads(pilots(), IDLE_W, PlanOptions(seed=1))
    assert [w.counts for w in first.windows] != [w.counts for w in second.windows]


def test_the_length_of_a_plan_counts_settling() -> None:
    plan = plan_loads(pilots(), IDLE_W, PlanOptions(soak_s=0.0))
    loaded = len(plan.windows) - 4
    assert plan.length_s == pytest.approx(loaded * (5.0 + SETTLE_S) + 4 * (5.0 + IDLE_SETTLE_S))


def test_a_window_survives_the_name_of_its_range() -> None:
    for window in plan_loads(pilots(), IDLE_W, PlanOptions()).windows:
        assert LoadWindow.of_range(window.range_name) == window
    assert LoadWindow.of_range("prefill") is None


def test_one_kind_makes_no_mixtures() -> None:
    with pytest.raises(UsageError):
        plan_loads(pilots(1), IDLE_W, PlanOptions())
