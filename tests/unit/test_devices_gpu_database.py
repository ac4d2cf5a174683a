from __future__ import annotations

import re

import pytest

from qmeter_native.devices.gpu_database import TENSOR_TYPES, chip_info, known_chips


@pytest.mark.parametrize(
    ("name", "chip"),
    [
        ("NVIDIA H200", "GH100"),
        ("NVIDIA H200 NVL", "GH100"),
        ("NVIDIA H100 80GB HBM3", "GH100"),
        ("NVIDIA H100 PCIe", "GH100"),
        ("NVIDIA GH200 480GB", "GH100"),
        ("NVIDIA A100-SXM4-80GB", "GA100"),
        ("A100-SXM4-40GB", "GA100"),
        ("NVIDIA A100 80GB PCIe", "GA100"),
        ("NVIDIA A10", "GA102"),
        ("Tesla V100-SXM2-32GB", "GV100"),
        ("NVIDIA L4", "AD104"),
        ("NVIDIA L40S", "AD102"),
        ("NVIDIA GeForce RTX 5090", "GB202"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "GB202"),
        ("NVIDIA B200", "GB100"),
        ("NVIDIA B300 SXM6 AC", "GB110"),
    ],
)
def test_a_gpu_is_known_by_the_name_that_nvml_gives_it(name: str, chip: str) -> None:
    found = chip_info(name)

    assert found is not None
    assert found.chip == chip


def test_an_unknown_gpu_and_a_cpu_have_no_datasheet() -> None:
    assert chip_info("NVIDIA Z9000") is None
    assert chip_info("Intel(R) Xeon(R) Platinum 8480C") is None


def test_a_name_with_another_compute_capability_is_not_taken() -> None:
    assert chip_info("NVIDIA H200", "9.0") is not None
    assert chip_info("NVIDIA H200", "10.0") is None


def test_gh100_does_4096_fp16_and_8192_fp8_flop_a_cycle_and_sm_though_its_rates_are_quoted_at_lower_clocks() -> None:
    for name in ("NVIDIA H200", "NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA H100 NVL"):
        chip = chip_info(name)
        assert chip is not None
        assert chip.flop_per_sm_cycle["fp16"] == 4096
        assert chip.flop_per_sm_cycle["fp8"] == chip.flop_per_sm_cycle["int8"] == 8192
        assert chip.flop_per_sm_cycle["fp32"] == 256


def test_a_part_without_a_type_has_no_rate_of_it() -> None:
    a100, h200 = chip_info("NVIDIA A100-SXM4-80GB"), chip_info("NVIDIA H200")
    assert a100 is not None
    assert h200 is not None
    assert "fp8" not in a100.peak_flop_s
    assert "fp4" not in h200.flop_per_sm_cycle


@pytest.mark.parametrize("chip", known_chips(), ids=lambda chip: chip.names)
def test_each_datasheet_is_plausible_and_says_where_it_is_from(chip) -> None:
    assert chip.sources
    assert all(source.startswith("https://") and "nvidia" in source for source in chip.sources)
    assert re.fullmatch(r"\d+\.\d", chip.compute_capability)
    assert set(chip.peak_flop_s) <= set(TENSOR_TYPES)
    for kind, rate in chip.peak_flop_s.items():
        highest = chip.flop_per_sm_cycle[kind] * chip.num_sms * chip.boost_mhz * 1e6
        assert 0.8 < rate / highest < 1.05, kind
    assert 2e11 < chip.dram_bytes_s < 1e13
    assert 0.2 < chip.dram_bytes_s / (chip.tdp_w * 1e10) < 1.5


def test_no_name_matches_two_datasheets() -> None:
    names = ("NVIDIA L40", "NVIDIA L40S", "NVIDIA A10", "NVIDIA A100-SXM4-40GB", "NVIDIA H200 NVL", "NVIDIA H200")
    for name in names:
        assert sum(bool(re.fullmatch(chip.names, name)) for chip in known_chips()) == 1
