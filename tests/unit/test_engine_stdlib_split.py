"""The split that the built-in model was trained on."""

from __future__ import annotations

from collections import Counter

import pytest

from qmeter_native.engines.stdlib_split import module_names, split_of, unit_of

PATHS = (
    "json/__init__.py",
    "json/decoder.py",
    "threading.py",
    "unittest/case.py",
    "doctest.py",
    "_pydecimal.py",
    "decimal.py",
    "datetime.py",
    "xml/dom/minidom.py",
    "test/test_json/test_dump.py",
)


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("json/decoder.py", "json"),
        ("_pydecimal.py", "decimal"),
        ("test/test_json/test_dump.py", "json"),
        ("test/test_threading_local.py", "threading"),
        ("test/test_unittest/test_case.py", "unittest"),
        ("test/test_doctest/test_doctest.py", "doctest"),
        ("test/datetimetester.py", "datetime"),
        ("test/test_minidom.py", "xml"),
        ("test/test_strtod.py", "strtod"),
        ("test/support/__init__.py", "support"),
    ],
)
def test_a_test_belongs_to_the_module_it_tests(path: str, unit: str) -> None:
    assert unit_of(path, module_names(PATHS)) == unit


def test_splits_are_about_ninety_five_and_five_percent_of_many_modules() -> None:
    counts = Counter(split_of(f"module_{number}") for number in range(10_000))
    assert counts["train"] == pytest.approx(9_000, rel=0.03)
    assert counts["validation"] == pytest.approx(500, rel=0.2)
    assert counts["test"] == pytest.approx(500, rel=0.2)


def test_the_split_of_a_name_never_changes() -> None:
    assert [split_of(name) for name in ("json", "typing", "doctest")] == ["train", "test", "validation"]
