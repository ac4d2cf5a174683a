"""``trace -- COMMAND`` with programs that launch kernels of their own, on a real driver."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from qmeter_native.storage.reader import read_capture

NUM_LAUNCHES = 100
CUPY = f"""
import cupy
source = 'extern "C" __global__ void add_one(float* values) {{ values[threadIdx.x] += 1; }}'
kernel = cupy.RawKernel(source, "add_one")
values = cupy.zeros(128, cupy.float32)
for _ in range({NUM_LAUNCHES}):
    kernel((1,), (128,), (values,))
assert (values == {NUM_LAUNCHES}).all()
print("done")
"""
TRITON = f"""
import torch, triton
from triton import language

@triton.jit
def add_one(values, SIZE: language.constexpr):
    at = values + language.arange(0, SIZE)
    language.store(at, language.load(at) + 1)

values = torch.zeros(128, device="cuda")
for _ in range({NUM_LAUNCHES}):
    add_one[(1,)](values, SIZE=128)
assert (values == {NUM_LAUNCHES}).all()
print("done")
"""


@pytest.mark.parametrize(("package", "program"), [("cupy", CUPY), ("triton", TRITON)])
def test_kernels_that_a_program_compiles_itself_are_recorded_by_name(
    tmp_path: Path, package: str, program: str
) -> None:
    pytest.importorskip(package)
    file = tmp_path / "program.py"  # Triton reads the source of its kernels
    file.write_text(program)
    command = [sys.executable, "-m", "qmeter_native", "trace", "--idle", "0", "--output", str(tmp_path / "a.qmt")]
    done = subprocess.run([*command, "--", sys.executable, str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.partition("\n")[0]) == (0, "done"), done.stderr
    capture = read_capture(tmp_path / "a.qmt")
    names = capture.kernel_classes.name[capture.kernels.class_id]
    assert (names == "add_one").sum() == NUM_LAUNCHES
    assert capture.manifest.loss.total == 0
    (gpu,) = {process.gpu_uuids[0] for process in capture.manifest.processes if process.gpu_uuids}
    assert gpu in {device.uuid for device in capture.manifest.devices}
