"""The registry of quantization methods: every row agrees with the reader, the work model, the kernels and the rules."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from qmeter_native.attribution.implementation_rules import IMPLEMENTATION_RULES
from qmeter_native.errors import UsageError
from qmeter_native.kernels.catalog import FORMATS
from qmeter_native.kernels.packing.kv_cache import format_named
from qmeter_native.quantization.algorithms.algorithm import algorithm_of
from qmeter_native.quantization.checkpoint_formats.families import checkpoint_format
from qmeter_native.quantization.method import ARCHITECTURES, KV_FORMATS, UNQUANTIZED
from qmeter_native.quantization.methods import ALIASES, METHODS, method_named, method_names, weight_method_names
from qmeter_native.work.scheme import read_scheme
from tools.methods_table import PAGE, with_tables

LABEL = re.compile(r"W(\d+)A(\d+)(?:KV(\d+))?(?:-(?:INT|FP|NF4|FP4|MXFP4|NVFP4))?(?: [\w -]+)?")
KERNELS = {name for name, _ in IMPLEMENTATION_RULES}


def test_there_are_enough_methods_and_the_baseline_comes_first() -> None:
    assert len(METHODS) >= 16
    assert next(iter(METHODS.values())) is UNQUANTIZED
    assert set(method_names()) - set(weight_method_names()) == {"none", "kv8", "kv4"}


@pytest.mark.parametrize("name", method_names())
def test_a_label_tells_the_bits_of_weights_activations_and_cache(name: str) -> None:
    method = METHODS[name]
    found = LABEL.fullmatch(method.scheme)
    assert found is not None, method.scheme
    scheme, reason = read_scheme(None, method.config, "float16")
    assert reason is None
    assert scheme is not None
    assert float(found[1]) == scheme.weight.bits
    assert int(found[2]) == scheme.activation_bits
    assert int(found[3] or 16) == (16 if method.kv is None else KV_FORMATS[method.kv].bits)


@pytest.mark.parametrize("name", weight_method_names())
def test_a_checkpoint_takes_the_bits_that_the_method_announces(name: str) -> None:
    method = METHODS[name]
    layer = checkpoint_format(method.config).layer("model.layers.0.mlp.up_proj")
    assert layer is not None
    stored = layer.store((torch.randn(512, 1024) * 0.02).bfloat16())
    unread = sum(stored[each].nbytes for each in ("qzeros", "g_idx") if each in stored and "sym" in method.config)
    if method.config.get("desc_act"):
        unread -= stored["g_idx"].nbytes
    size = sum(each.nbytes for each in stored.values()) - unread
    assert 8 * size / (512 * 1024) == pytest.approx(method.bits_per_weight(512, 1024), rel=0.01)


@pytest.mark.parametrize("name", weight_method_names())
def test_our_kernels_multiply_every_format_of_weights(name: str) -> None:
    method = METHODS[name]
    (form,) = [form for form in FORMATS if form.label == method.format]
    assert form.layout.bits == method.layout.bits
    assert method.minimum == ((8, 9) if form.ceiling == "fp8" else (8, 0))


@pytest.mark.parametrize("name", method_names())
def test_vllm_s_expected_kernels_are_names_that_the_rules_know(name: str) -> None:
    method = METHODS[name]
    assert (method.vllm is None) == bool(method.why_not_vllm)
    if method.vllm is None:
        return
    assert set(method.vllm.kernels) <= set(ARCHITECTURES)
    expected = {each for names in method.vllm.kernels.values() for each in names}
    assert expected <= KERNELS
    assert {each for names in method.vllm.attention.values() for each in names} <= KERNELS
    assert (method.vllm.flags == ()) == (method.kv is None)
    if method.kv is not None:
        assert method.vllm.flags == ("--kv-cache-dtype", KV_FORMATS[method.kv].vllm_name)


@pytest.mark.parametrize("name", method_names())
def test_an_algorithm_and_the_method_agree_on_calibration(name: str) -> None:
    method = METHODS[name]
    assert method.needs_calibration == algorithm_of(method.algorithm).needs_calibration
    assert method.summary.endswith(".")
    assert method.elsewhere.endswith(".") or name == "none"


@pytest.mark.parametrize("kv", sorted(KV_FORMATS))
def test_bytes_of_a_cache_are_those_of_its_kernel(kv: str) -> None:
    form = format_named(KV_FORMATS[kv].vllm_name)
    method = next(each for each in METHODS.values() if each.kv == kv)
    assert method.kv_bytes(8, 128) == 2 * 8 * form.bytes_per_token_head(128)
    assert METHODS["gptq"].kv_bytes(8, 128) == 2 * 8 * 128 * 2


@pytest.mark.parametrize(("old", "name"), sorted(ALIASES.items()))
def test_former_names_keep_working(old: str, name: str) -> None:
    assert method_named(old) is METHODS[name]
    assert old not in METHODS


@pytest.mark.parametrize(
    ("wrong", "near"), [("gtpq", "gptq"), ("fp8-blck", "fp8-block"), ("SmoothQuants", "smoothquant")]
)
def test_an_unknown_name_is_answered_with_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(UsageError, match="no quantization method") as error:
        method_named(wrong)
    assert f"Did you mean {near}" in str(error.value.hint)


def test_a_method_for_caches_leaves_every_weight_alone() -> None:
    from qmeter_native.engines.model_loading import load_model
    from qmeter_native.engines.model_source import resolve_model

    cpu = torch.device("cpu")
    source = resolve_model("builtin:stdlib-lm")
    plain: Any = load_model(source, cpu, torch.float32, 0)
    found: Any = load_model(source, cpu, torch.float32, 0, "kv4")
    assert found.quantization is None  # what the engine does, not what was asked for
    assert found.quantization_config is None
    assert all(map(torch.equal, plain.model.parameters(), found.model.parameters()))


def test_the_page_s_tables_are_current() -> None:
    page = PAGE.read_text()
    assert page == with_tables(page), "run tools/methods_table.py"
