"""Layouts of other projects' kernels, by facts of their formats, and their kernels where they run on a CPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from qmeter_native.benchmark.correctness import truth_of  # noqa: E402
from qmeter_native.benchmark.data import random_activation, random_weight  # noqa: E402
from qmeter_native.benchmark.peers import PEERS, find_peers  # noqa: E402
from qmeter_native.benchmark.peers.tinygemm import packed_pairs, scales_and_zeros  # noqa: E402
from qmeter_native.benchmark.peers.vllm import awq, cutlass, exllama, library, machete, marlin  # noqa: E402
from qmeter_native.benchmark.peers.vllm.marlin_layout import (  # noqa: E402
    channel_scales,
    float8_e5m3_scales,
    group_scales,
    group_zeros,
)
from qmeter_native.errors import MissingExtraError, UsageError  # noqa: E402
from qmeter_native.kernels.catalog import FORMATS, format_named  # noqa: E402
from qmeter_native.kernels.quantized_weight import IntegerWeight  # noqa: E402


def error_of(contender: Any, label: str, m: int = 20, n: int = 128, k: int = 256) -> float:
    """Of its product, over the bound."""
    form, dtype = format_named(label), contender.dtypes[0]
    weight, activation = random_weight(form, n, k, "cpu", 1), random_activation(form, m, k, dtype, "cpu", 2)
    product = contender.prepare(weight, getattr(torch, dtype))(activation)
    if contender.finish is not None:
        product = contender.finish(product, activation, weight)
    return truth_of(activation, weight).error(product, contender.is_16_bit)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.label)
def test_cublas_multiplies_every_format_within_its_bound(form: Any) -> None:
    (cublas,) = find_peers(["cublas"])[0]

    assert 0 < error_of(cublas, form.label) <= 1


@pytest.mark.parametrize(("name", "label"), [("torch._int_mm", "W8A8-INT"), ("torch._scaled_mm", "W8A8-FP tensor")])
def test_torchs_8_bit_products_are_right(name: str, label: str) -> None:
    (contender,) = find_peers([name])[0]

    assert 0 < error_of(contender, label) <= 1


@pytest.mark.parametrize("label", ["W4A16-NF4 g64", "W4A16-FP4 g64", "W8A8-INT"])
def test_bitsandbytes_products_of_our_layouts_are_right(label: str) -> None:
    pytest.importorskip("bitsandbytes")
    contender = next(one for one in find_peers(["bitsandbytes"])[0] if label in one.formats)

    assert 0 < error_of(contender, label) <= 1


def test_a_product_that_is_off_by_one_weight_is_wrong() -> None:
    form = format_named("W4A16-INT g128")
    weight, activation = random_weight(form, 64, 256, "cpu", 1), random_activation(form, 4, 256, "float16", "cpu", 2)
    codes = weight.codes.clone()
    codes[3, 5] ^= 8
    other = IntegerWeight(codes, weight.scales, None, 4, 128)

    product = (activation.values.float() @ other.dequantize().T).half()

    assert truth_of(activation, weight).error(product) > 1


def test_fp8_sums_of_14_bits_are_right_and_a_missing_block_of_inputs_is_wrong() -> None:
    form, k = format_named("W8A8-FP"), 4096
    weight, activation = random_weight(form, 64, k, "cpu", 1), random_activation(form, 4, k, "bfloat16", "cpu", 2)
    truth, x = truth_of(activation, weight), activation.real(torch.arange(4))
    exact = x @ weight.dequantize(torch.float64).T

    assert truth.error(exact * (1 - 2**-8)) <= 1
    assert truth.error(exact - x[:, :128] @ weight.dequantize(torch.float64)[:, :128].T) > 1


def test_a_product_that_is_no_number_is_wrong() -> None:
    form = format_named("W8A8-INT")
    weight, activation = random_weight(form, 64, 128, "cpu", 1), random_activation(form, 4, 128, "float16", "cpu", 2)

    assert truth_of(activation, weight).error(torch.full((4, 64), float("nan"))) == float("inf")


def test_rows_at_both_ends_of_a_product_are_looked_at() -> None:
    form = format_named("W4A16-INT g128")
    weight, activation = random_weight(form, 64, 128, "cpu", 1), random_activation(form, 200, 128, "float16", "cpu", 2)
    product = activation.values.float() @ weight.dequantize().T
    product[-1, -1] += 1

    assert truth_of(activation, weight).error(product) > 1


def test_marlins_group_scales_are_those_of_outputs_8_apart() -> None:
    order = [i + 8 * j for i in range(8) for j in range(8)]
    scales = torch.arange(3 * 128).reshape(3, 128)

    placed = group_scales(scales)

    assert placed[0, :64].tolist() == order
    assert placed[2, 64:].tolist() == [2 * 128 + 64 + position for position in order]


def test_marlins_channel_scales_are_pairs_8_apart() -> None:
    order = [2 * i + j for i in range(4) for j in (0, 1, 8, 9, 16, 17, 24, 25)]

    placed = channel_scales(torch.arange(64))

    assert placed.shape == (1, 64)
    assert placed[0, :32].tolist() == order
    assert placed[0, 32:].tolist() == [32 + position for position in order]


def test_marlins_zero_points_are_ordered_as_scales_then_even_ones_first_in_a_word() -> None:
    zeros = torch.arange(64, dtype=torch.uint8).reshape(1, 64) // 8  # of output n: n // 8

    words = group_zeros(zeros)

    # scales' order puts outputs 0, 8, … 56 first, of which the zero points are 0 to 7
    assert words.shape == (1, 8)
    assert words[0, 0].item() == 0x75316420
    assert words.dtype == torch.int32


def test_nvfp4_scales_lose_their_sign_for_a_bit_of_exponent() -> None:
    scales = torch.tensor([[1.0, 448.0, 0.5, 2.0]])

    placed = float8_e5m3_scales(scales).view(torch.uint8)[0].tolist()

    # times 128 in float16: 2^7 is exponent 22, so 22 << 3 without a mantissa; the middle two have swapped
    assert placed[0] == 22 << 3
    assert placed[1] == 21 << 3
    assert placed[3] == 23 << 3
    assert placed[2] == (30 << 3) | 0b110  # 448 * 128 = 1.75 * 2^15


def test_machete_reads_words_along_k_column_by_column() -> None:
    codes = torch.arange(8, dtype=torch.uint8).repeat(128, 8)
    weight = IntegerWeight(codes, torch.ones(128, 1), torch.full((128, 1), 3), 4, 64)

    words = machete.column_major_words(weight)

    assert words.shape == (8, 128)
    assert words.stride() == (1, 8)
    assert words[0, 0].item() == 0x76543210
    assert machete.negative_zeros(weight, torch.float16).tolist() == [[-3.0] * 128]


def test_tinygemm_reads_pairs_with_the_first_in_the_high_nibble_and_what_a_code_of_8_stands_for() -> None:
    weight = IntegerWeight(
        torch.tensor([[1, 2, 3, 4]], dtype=torch.uint8), torch.tensor([[0.5]]), torch.tensor([[3]]), 4, 4
    )

    assert packed_pairs(weight.codes).tolist() == [[0x12, 0x34]]
    assert scales_and_zeros(weight).tolist() == [[[0.5, 2.5]]]
    decoded = (weight.codes.float() - 8) * 0.5 + 2.5
    assert torch.equal(decoded, weight.dequantize())


class Recorder:
    """Stands in for vLLM's operators: keeps what each is called with, and gives its first tensor back."""

    def __init__(self) -> None:
        self.calls: dict[str, tuple[Any, ...]] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.calls[name] = arguments
            return arguments[0]

        return call


@pytest.fixture
def operators(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    for module in (marlin, machete, exllama, awq, cutlass):
        monkeypatch.setattr(module, "vllm_operators", lambda path, needed: recorder)
    properties = SimpleNamespace(multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return recorder


def called(module: Any, label: str, dtype: str = "float16", n: int = 128, k: int = 256) -> Any:
    """Prepare a weight with a vLLM adapter and multiply; the weight and the activation."""
    contender = next(one for one in module.contenders(None) if label in one.formats)
    form = format_named(label)
    weight, activation = random_weight(form, n, k, "cpu", 1), random_activation(form, 16, k, dtype, "cpu", 2)
    contender.prepare(weight, getattr(torch, dtype))(activation)
    return weight, activation


def test_marlin_is_called_with_gptq_words_the_bias_type_and_sums_in_float32(operators: Recorder) -> None:
    called(marlin, "W4A16-INT g128")

    words, order, k, n, bits, is_a_8bit = operators.calls["gptq_marlin_repack"]
    assert words.shape == (256 // 8, 128)
    assert (order.numel(), k, n, bits, is_a_8bit) == (0, 256, 128, 4, False)
    call = operators.calls["marlin_gemm"]
    assert call[4].shape == (2, 128)
    assert call[10].shape == (132,)
    assert call[11:] == (library.UINT4_BIAS_8, 16, 128, 256, True, False, True, False)


def test_marlin_gets_zero_points_of_asymmetric_weights_and_the_order_of_act_order(operators: Recorder) -> None:
    called(marlin, "W4A16-INT g128 zp")
    assert operators.calls["marlin_gemm"][7].shape == (2, 128 // 8)
    assert operators.calls["marlin_gemm"][11] == library.UINT4

    weight, _ = called(marlin, "W4A16-INT g128 act-order")
    groups, order = operators.calls["marlin_gemm"][8:10]
    assert groups.tolist() == sorted(weight.group_of.tolist())
    assert torch.equal(weight.group_of[order.long()], groups)


def test_marlin_of_8_bits_gets_four_to_a_word_and_scales_that_make_up_for_the_exponent(operators: Recorder) -> None:
    weight, _ = called(marlin, "W8A16-FP")

    assert operators.calls["gptq_marlin_repack"][0].shape == (256 // 4, 128)
    scales = operators.calls["marlin_gemm"][4]
    assert scales.sum().item() == pytest.approx(weight.scales.sum().item() * 256, rel=1e-3)
    assert operators.calls["marlin_gemm"][11] == library.FLOAT8_E4M3

    called(marlin, "W8A16-INT")
    assert operators.calls["marlin_gemm"][11] == library.UINT8_BIAS_128
    called(marlin, "W4A16-NVFP4 g16")
    assert operators.calls["marlin_gemm"][11] == library.FLOAT4_E2M1
    assert operators.calls["marlin_gemm"][6].shape == (1,)


def test_marlin_refuses_sizes_that_its_tiles_do_not_divide(operators: Recorder) -> None:
    with pytest.raises(UsageError, match="multiples of 64 and 128"):
        called(marlin, "W4A16-INT g128", n=96)


def test_machete_is_called_with_its_types_and_group(operators: Recorder) -> None:
    called(machete, "W4A16-INT g128 zp", "bfloat16")

    assert operators.calls["machete_prepack_B"][1:] == (torch.bfloat16, library.UINT4, torch.bfloat16)
    call = operators.calls["machete_mm"]
    assert call[2:4] == (library.UINT4, None)
    assert call[4].dtype == call[5].dtype == torch.bfloat16
    assert call[6:] == (128, None, None, None)


def test_exllama_is_called_with_zero_points_as_v2_stores_them(operators: Recorder) -> None:
    called(exllama, "W4A16-INT g128")

    call = operators.calls["gptq_gemm"]
    assert (call[2] == -2004318072).all()  # 0x88888888: symmetric, not less 1
    assert call[5:] == (True, True, 4)
    assert operators.calls["gptq_shuffle"][2] == 4


def test_awq_kernels_are_called_with_awqs_tensors(operators: Recorder) -> None:
    contenders = awq.contenders(None)
    assert [one.name for one in contenders] == ["vllm.awq", "vllm.awq dequantized"]

    called(awq, "W4A16-INT g128")

    _, qweight, scales, qzeros, splits = operators.calls["awq_gemm"]
    assert (qweight.shape, scales.shape, qzeros.shape, splits) == ((256, 16), (2, 128), (2, 16), 8)


@pytest.mark.parametrize(
    ("label", "x_scales", "w_scales"),
    [
        ("W8A8-INT", (16, 1), (1, 128)),
        ("W8A8-FP tensor", (1, 1), (1, 1)),
        ("W8A8-FP b128", (16, 2), (2, 1)),
    ],
)
def test_cutlass_is_called_with_column_major_weights_and_scales_of_each_kind(
    operators: Recorder, label: str, x_scales: tuple[int, int], w_scales: tuple[int, int]
) -> None:
    called(cutlass, label)

    out, x, columns, of_x, of_w, bias = operators.calls["cutlass_scaled_mm"]
    assert (out.shape, x.shape, columns.shape, columns.stride()) == ((16, 128), (16, 256), (256, 128), (1, 256))
    assert (of_x.shape, of_w.shape, bias) == (x_scales, w_scales, None)


def test_cutlass_with_zero_points_gets_the_sums_of_each_output(operators: Recorder) -> None:
    weight, activation = called(cutlass, "W8A8-INT asymmetric")

    call = operators.calls["cutlass_scaled_mm_azp"]
    assert torch.equal(call[5], weight.values.int().sum(1, keepdim=True).T.int())
    assert torch.equal(call[6], activation.zeros)


def test_peers_that_are_not_here_are_listed_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qmeter_native.benchmark.peers.gemlite.find_spec", lambda name: None)

    here, absent = find_peers(["cublas", "gemlite"])

    assert [one.name for one in here] == ["cublas"]
    assert [(one.kernel, one.reason) for one in absent] == [("gemlite", "gemlite is not installed")]


def test_a_library_that_does_not_load_makes_its_peers_absent(tmp_path: Path) -> None:
    (tmp_path / "ops.so").write_text("no library")

    here, absent = find_peers(["vllm.marlin", "vllm.machete"], tmp_path / "ops.so")

    assert here == ()
    assert all("does not load" in entry.reason for entry in absent)


def test_an_unknown_peer_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(UsageError, match="no peer 'cutlas'") as caught:
        find_peers(["cutlas"])

    assert all(name in (caught.value.hint or "") for name in PEERS)


def test_an_installed_vllm_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "vllm"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "_C_stable_libtorch.abi3.so").write_text("no library")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    library.vllm_operators.cache_clear()

    with pytest.raises(MissingExtraError, match="does not load"):
        library.vllm_operators(None, "marlin_gemm")


def test_autoawqs_kernel_is_loaded_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qmeter_native.benchmark.peers import autoawq

    folder = tmp_path / "awq" / "modules" / "triton"
    folder.mkdir(parents=True)
    (tmp_path / "awq" / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "gemm.py").write_text("def awq_gemm_triton(x, qweight, scales, qzeros, splits): return splits")
    monkeypatch.syspath_prepend(str(tmp_path))
    autoawq._kernel.cache_clear()

    (contender,) = autoawq.contenders(None)

    form = format_named("W4A16-INT g128 zp")
    product = contender.prepare(random_weight(form, 64, 128, "cpu", 1), torch.float16)
    assert product(random_activation(form, 2, 128, "float16", "cpu", 2)) == 8
    autoawq._kernel.cache_clear()
