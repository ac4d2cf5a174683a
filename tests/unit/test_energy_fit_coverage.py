"""Whether intervals of 95 % are that: made-up GPUs of several kinds, each class's true joules."""

from __future__ import annotations

from qmeter_native.calibration.synthetic import KINDS, coverage


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    found = coverage(40)
    parts = {kind: inside / count for kind, (inside, count) in found.items()}
    print({kind: round(part, 3) for kind, part in parts.items()})
    assert set(parts) == set(KINDS)
    inside, count = (sum(values) for values in zip(*found.values(), strict=True))
    assert count >= 200 * 12
    assert 0.93 <= inside / count <= 0.99
    assert all(0.90 <= part <= 0.995 for part in parts.values())
