from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest

from qmeter_native.calibration.calibrate import CalibrationOptions, calibrate
from qmeter_native.calibration.ceilings import CEILING_NAMES, measure_ceilings
from qmeter_native.calibration.gpu import find_gpu
from qmeter_native.calibration.microbenchmark import CudaKernels

torch = pytest.importorskip("torch")
pytest.importorskip("cupy")


def test_copying_copies_and_writing_writes_everything() -> None:
    kernels = CudaKernels(0)
    source = torch.randint(0, 2**31, (4 * 1000 + 4,), dtype=torch.int32, device="cuda:0")
    target = torch.zeros_like(source)

    kernels.copy(source, target)
    torch.cuda.synchronize()
    assert torch.equal(source, target)
    kernels.write(target, 7)
    torch.cuda.synchronize()
    assert int((target == source).sum()) == 0


def test_no_ceiling_is_above_the_datasheet_and_dram_comes_near_it() -> None:
    gpu = find_gpu("cuda:0")
    ceilings = {one.name: one for one in measure_ceilings(0, gpu.uuid, gpu.chip, num_bursts=6)}

    assert tuple(ceilings) == CEILING_NAMES
    for ceiling in ceilings.values():
        if ceiling.datasheet is not None and ceiling.measured.value is not None:
            assert ceiling.measured.value < 1.1 * ceiling.datasheet  # clocks above the one that it is quoted at
    for name in ("dram_read", "dram_copy"):
        measured, datasheet = ceilings[name].measured.value, ceilings[name].datasheet
        assert measured is not None
        assert datasheet is None or measured > 0.7 * datasheet
    l2, dram = ceilings["l2_read"].measured.value, ceilings["dram_read"].measured.value
    assert l2 is not None
    assert dram is not None
    assert l2 > dram


def test_a_quick_calibration_gives_a_calibrated_profile(tmp_path: Path) -> None:
    profile = calibrate(find_gpu("cuda:0"), CalibrationOptions(True, tmp_path), Event(), lambda *_: None)

    assert profile.power_model.source == "calibrated", profile.notes
    assert profile.sensor is not None
    assert profile.sensor.tick_s.value is not None
    assert (profile.power_model.coefficient >= 0).all()
    assert profile.fit is not None
    assert profile.fit.window_error_median < 0.1
