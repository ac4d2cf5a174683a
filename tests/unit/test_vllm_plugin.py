"""The entry point that vLLM calls in each of its processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qmeter_native.storage.spool import read_spool

ROOT = Path(__file__).parents[2]

_PROCESS = """
import os, sys, types
from qmeter_native.engines.vllm.plugin import register
sys.modules["torch"] = types.SimpleNamespace(cuda=types.SimpleNamespace(is_initialized=lambda: {has_computed}))
register()
register()
{then}
print(sorted(name for name in sys.modules if name in ("vllm", "click", "rich", "polars", "qmeter_native._native")))
"""


def run(folder: Path | None, *, has_computed: bool = True, then: str = "") -> list[str]:
    """Run a process that registers the plugin, and return the heavy modules that it has loaded until its end."""
    environment = {key: value for key, value in os.environ.items() if key != "QMETER_SPOOL_DIR"}
    environment["PYTHONPATH"] = str(ROOT)
    if folder is not None:
        environment["QMETER_SPOOL_DIR"] = str(folder)
    code = _PROCESS.format(has_computed=has_computed, then=then)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return list(json.loads(done.stdout.replace("'", '"')))


def test_outside_a_capture_it_does_nothing() -> None:
    assert run(None) == []


def test_a_process_that_computed_without_our_worker_says_so_when_it_ends(tmp_path: Path) -> None:
    assert run(tmp_path) == []
    (path,) = tmp_path.iterdir()
    contents = read_spool(path)
    (note,) = contents.stats["engine"]["validity"]
    assert note["code"] == "engine_not_recorded"
    assert "--worker-cls" in note["message"]
    assert contents.identity["role"] == "engine"


def test_a_process_that_did_not_compute_says_nothing(tmp_path: Path) -> None:
    run(tmp_path, has_computed=False)
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_is_forked_after_plugins_were_loaded_says_so_too(tmp_path: Path) -> None:
    fork = "import multiprocessing; engine = multiprocessing.get_context('fork').Process(target=int)"
    run(tmp_path, then=f"{fork}; engine.start(); engine.join()")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_directory_that_is_gone_harms_nothing(tmp_path: Path) -> None:
    assert run(tmp_path / "absent") == []


@pytest.mark.parametrize("module", ["", ".plugin", ".command", ".engine_info", ".versions", ".step_writer"])
def test_only_the_classes_import_vllm(module: str) -> None:
    code = f"import qmeter_native.engines.vllm{module}, sys; print('torch' in sys.modules or 'vllm' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False"
