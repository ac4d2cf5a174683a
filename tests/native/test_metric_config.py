"""Metric sets and config images through the real libcupti, which needs no GPU for them."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from qmeter_native import _native
from qmeter_native.devices.metric_sets import METRIC_SETS, metric_set, sampled_chips
from qmeter_native.errors import DeviceError, UsageError
from qmeter_native.model.counter_quantity import CounterQuantity
from tests.fakes.fake_cupti import FakeCupti

_PACKAGE = "nvidia-cuda-cupti"

_CHECK = """
import json, sys
from qmeter_native import _native
folder, queries = json.load(sys.stdin)
chips = _native.pm_chips([folder])
checks = [_native.check_metrics(chip, metrics, [folder]) for chip, metrics in queries]
json.dump({"chips": chips, "checks": checks, "path": _native.find_cupti([folder])["path"]}, sys.stdout)
"""


@pytest.fixture(scope="module")
def cupti_folder() -> str:
    try:
        files = importlib.metadata.files(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{_PACKAGE} is not installed: pip install -e .[dev]")
    libraries = [Path(str(file.locate())) for file in files if file.name == "libcupti.so.13"]
    if not libraries:
        pytest.skip(f"{_PACKAGE} has no libcupti.so.13")
    return str(libraries[0].parent)


def ask(folder: str, queries: Sequence[tuple[str, Sequence[str]]]) -> dict[str, object]:
    """What the real CUPTI answers, in a process of its own: this one may have loaded the fake."""
    done = subprocess.run(
        [sys.executable, "-c", _CHECK], input=json.dumps([folder, queries]), capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def test_each_set_fits_into_one_pass_on_each_of_its_chips(cupti_folder: str) -> None:
    cases = [(chip, name) for chip in sampled_chips() for name in METRIC_SETS]
    queries = [(chip, [entry.metric for entry in metric_set(chip, name)]) for chip, name in cases]
    answer = ask(cupti_folder, queries)
    assert answer["path"] == f"{cupti_folder}/libcupti.so.13"
    assert isinstance(answer["checks"], list)
    problems = {
        case: check
        for case, check in zip(cases, answer["checks"], strict=True)
        if check["passes"] != 1 or check["unknown"] or check["config_bytes"] <= 0
    }
    assert problems == {}


def test_cupti_names_the_chips_that_have_sets(cupti_folder: str) -> None:
    chips = ask(cupti_folder, [])["chips"]
    assert isinstance(chips, list)
    assert set(sampled_chips()) <= set(chips)


def test_too_many_metrics_need_more_passes_and_unknown_ones_are_named(cupti_folder: str) -> None:
    names = [entry.metric for entry in metric_set("GH100")]
    too_many, unknown = [*names, "sm__inst_executed_pipe_tensor.sum"], [*names, "sm__nothing_of_the_kind.sum"]
    checks = ask(cupti_folder, [("GH100", too_many), ("GH100", unknown)])["checks"]
    assert isinstance(checks, list)
    assert (checks[0]["passes"] > 1, checks[0]["unknown"]) == (True, [])
    assert checks[1] == {"passes": None, "config_bytes": 0, "unknown": ["sm__nothing_of_the_kind.sum"]}


def test_the_energy_set_has_what_the_power_model_needs() -> None:
    needed = {
        CounterQuantity.DRAM_READ_BYTES,
        CounterQuantity.DRAM_WRITE_BYTES,
        CounterQuantity.L2_SECTORS,
        CounterQuantity.SM_ACTIVE_CYCLES,
        CounterQuantity.SM_ELAPSED_CYCLES,
        CounterQuantity.INSTRUCTIONS,
        CounterQuantity.TENSOR_CYCLES,
    }
    for chip in sampled_chips():
        quantities = [entry.quantity for entry in metric_set(chip)]
        assert needed <= set(quantities), chip
        assert quantities == sorted(set(quantities))


def test_means_over_sms_become_sums() -> None:
    factors = {entry.quantity: entry.factor(132) for entry in metric_set("GH100")}
    assert (factors[CounterQuantity.SM_ACTIVE_CYCLES], factors[CounterQuantity.DRAM_READ_BYTES]) == (132.0, 1.0)


def test_cycles_of_an_sms_four_tensor_pipes_become_sm_cycles() -> None:
    factors = {entry.quantity: entry.factor(132) for entry in metric_set("GH100")}
    assert factors[CounterQuantity.TENSOR_HMMA_CYCLES] == factors[CounterQuantity.TENSOR_CYCLES] == 33.0


def test_chips_and_sets_that_do_not_exist_are_refused() -> None:
    with pytest.raises(DeviceError, match="TU102"):
        metric_set("TU102")
    with pytest.raises(UsageError, match="everything"):
        metric_set("GH100", "everything")


def test_the_fake_answers_as_the_real_one(fake_cupti: FakeCupti) -> None:
    folder = [str(Path(fake_cupti.path).parent)]
    assert _native.pm_chips(folder) == ["GH100", "GA100"]
    assert _native.check_metrics("GH100", ["a.sum", "extra.sum"], folder) == {
        "passes": 2,
        "config_bytes": 64,
        "unknown": [],
    }
    assert _native.check_metrics("GH100", ["a.sum", "unknown.sum"], folder)["unknown"] == ["unknown.sum"]
    with pytest.raises(_native.NativeFault) as raised:
        _native.check_metrics("XX100", ["a.sum"], folder)
    assert raised.value.args[1] == "unsupported"
    assert fake_cupti.get("pm_hosts") == 0
