from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing import compressed_tensors as packing
from qmeter_native.kernels.packing.compressed_tensors_config import (
    CompressedTensorsConfig,
    LayerScheme,
    TensorScheme,
)
from qmeter_native.kernels.quantized_weight import CodebookWeight, IntegerWeight, ScaledWeight


def integers(bits: int = 4, symmetric: bool = True, group_size: int | None = 32, **fields: Any) -> LayerScheme:
    weights = TensorScheme(bits, "int", symmetric, "group" if group_size else "channel", group_size)
    return LayerScheme("pack-quantized", replace(weights, **fields))


def a_weight(scheme: LayerScheme, n: int = 12, k: int = 64, seed: int = 0) -> IntegerWeight:
    generator = torch.Generator().manual_seed(seed)
    weights = scheme.weights
    size = weights.group_size or k
    largest = (1 << weights.num_bits) - 1
    zeros = torch.randint(0, largest + 1, (n, k // size), generator=generator, dtype=torch.uint8)
    return IntegerWeight(
        codes=torch.randint(0, largest + 1, (n, k), generator=generator, dtype=torch.uint8),
        scales=torch.rand(n, k // size, generator=generator).bfloat16(),
        zeros=None if weights.symmetric else zeros,
        bits=weights.num_bits,
        group_size=size,
        group_of=(torch.randperm(k, generator=generator) // size).int() if weights.by_activation else None,
    )


def assert_same(one: Any, other: Any) -> None:
    assert isinstance(one, IntegerWeight)
    for name in ("codes", "scales", "zeros", "group_of"):
        first, second = getattr(one, name), getattr(other, name)
        assert (first is None) == (second is None), name
        assert first is None or (first.dtype == second.dtype and torch.equal(first, second)), name
    assert (one.bits, one.group_size) == (other.bits, other.group_size)


def test_eight_inputs_of_one_output_are_a_word() -> None:
    codes = torch.arange(16, dtype=torch.uint8)[None] % 8
    zeros = torch.full((1, 1), 9, dtype=torch.uint8)
    stored = packing.pack(
        IntegerWeight(codes, torch.ones(1, 1), zeros, 4, 16), integers(symmetric=False, group_size=16)
    )
    assert stored["weight_packed"].tolist() == [[0x76543210, 0x76543210]]
    assert stored["weight_zero_point"].tolist() == [[9]]
    assert stored["weight_shape"].tolist() == [1, 16]


@settings(deadline=None, max_examples=60)
@given(
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
    by_activation=st.booleans(),
    padded=st.booleans(),
    group_size=st.sampled_from([None, 8, 24, 32]),
    n=st.integers(1, 40),
    groups=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_packed_integers_come_back(
    bits: int,
    symmetric: bool,
    by_activation: bool,
    padded: bool,
    group_size: int | None,
    n: int,
    groups: int,
    seed: int,
) -> None:
    scheme = replace(integers(bits, symmetric, group_size, by_activation=by_activation), padded=padded)
    k = groups * (group_size or 25)
    weight = a_weight(scheme, n, k, seed)
    back = packing.unpack(packing.pack(weight, scheme), scheme)
    if weight.group_of is not None and torch.equal(weight.group_of, torch.arange(k).int() // weight.group_size):
        weight = replace(weight, group_of=None)
    assert_same(back, weight)


def test_padded_words_are_told_from_streams_by_their_number() -> None:
    dense, padded = integers(3), replace(integers(3), padded=True)
    weight = a_weight(dense)
    assert packing.pack(weight, dense)["weight_packed"].shape == (12, 6)
    assert packing.pack(weight, padded)["weight_packed"].shape == (12, 7)
    for written, read in ((dense, padded), (padded, dense)):
        assert_same(packing.unpack(packing.pack(weight, written), read), weight)


@pytest.mark.parametrize(("bits", "symmetric", "group_size"), [(4, True, 32), (4, False, None), (8, False, 16)])
def test_integers_in_bytes_come_back(bits: int, symmetric: bool, group_size: int | None) -> None:
    scheme = replace(integers(bits, symmetric, group_size), format="int-quantized")
    weight = a_weight(scheme)
    stored = packing.pack(weight, scheme)
    assert stored["weight"].dtype == torch.int8
    assert_same(packing.unpack(stored, scheme), weight)


@pytest.mark.parametrize("strategy", ["tensor", "channel"])
def test_plain_int8_comes_back_as_scaled_numbers(strategy: str) -> None:
    scheme = LayerScheme("int-quantized", TensorScheme(8, "int", True, strategy))
    matrix = torch.randn(12, 64)
    weight = packing.quantize(matrix, scheme)
    stored = packing.pack(weight, scheme)
    assert stored["weight_scale"].shape == ((1,) if strategy == "tensor" else (12, 1))
    back = packing.unpack(stored, scheme)
    assert isinstance(back, ScaledWeight)
    assert torch.equal(back.dequantize(), weight.dequantize())
    assert ((back.dequantize() - matrix).abs() <= back.scales * 0.501).all()


@pytest.mark.parametrize("strategy", ["tensor", "channel", "block"])
def test_fp8_comes_back(strategy: str) -> None:
    block = (128, 128) if strategy == "block" else None
    scheme = LayerScheme("float-quantized", TensorScheme(8, "float", True, strategy, block=block))
    weight = packing.quantize(torch.randn(140, 256), scheme)
    back = packing.unpack(packing.pack(weight, scheme), scheme)
    assert isinstance(back, ScaledWeight)
    assert back.block == weight.block
    assert torch.equal(back.dequantize(), weight.dequantize())


@pytest.mark.parametrize(
    ("layout", "strategy", "group_size"),
    [("nvfp4-pack-quantized", "tensor_group", 16), ("mxfp4-pack-quantized", "group", 32)],
)
def test_fp4_comes_back(layout: str, strategy: str, group_size: int) -> None:
    scheme = LayerScheme(layout, TensorScheme(4, "float", True, strategy, group_size))
    weight = packing.quantize(torch.randn(8, 64), scheme)
    back = packing.unpack(packing.pack(weight, scheme), scheme)
    assert isinstance(back, CodebookWeight)
    assert torch.equal(back.dequantize(), weight.dequantize())


def test_static_inputs_are_read() -> None:
    scheme = LayerScheme("int-quantized", TensorScheme(8, "int", True, "channel"), TensorScheme(8, "int", False))
    tensors = {"input_scale": torch.tensor([0.5]).bfloat16(), "input_zero_point": torch.tensor([-3], dtype=torch.int8)}
    found = packing.static_input(tensors, scheme)
    assert found is not None
    assert found.scale.dtype == torch.float32
    assert (found.scale.item(), found.zero_point.item()) == (0.5, -3)
    dynamic = replace(scheme, input_activations=TensorScheme(8, "int", True, "token", dynamic=True))
    assert packing.static_input({}, dynamic) is None
    with pytest.raises(UsageError, match="no tensor input_scale"):
        packing.static_input({}, scheme)


def a_config() -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "format": "mixed-precision",
        "quantization_status": "compressed",
        "version": "0.13.0",
        "ignore": ["lm_head", "re:.*gate$"],
        "kv_cache_scheme": {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True, "dynamic": False},
        "global_compression_ratio": 1.5,
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "format": "pack-quantized",
                "weights": {"num_bits": 4, "type": "int", "symmetric": True, "group_size": 128, "actorder": "static"},
                "input_activations": None,
                "output_activations": None,
            },
            "group_1": {
                "targets": ["re:.*down_proj$", "model.layers.0.up_proj"],
                "format": "naive-quantized",
                "weights": {"num_bits": 8, "type": "float", "strategy": "channel"},
                "input_activations": {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True},
            },
        },
    }


def test_a_config_is_read_and_written() -> None:
    config = CompressedTensorsConfig.from_dict(a_config())
    first, second = config.schemes
    assert (first.format, first.weights.strategy, first.weights.by_activation) == ("pack-quantized", "group", False)
    assert (second.format, second.weights.strategy) == ("float-quantized", "channel")
    assert first.padded
    assert config.kv_cache == TensorScheme(8, "float", True, "tensor")
    assert CompressedTensorsConfig.from_dict(config.to_dict()) == config
    assert not CompressedTensorsConfig.from_dict({**a_config(), "version": "0.18.0"}).schemes[0].padded


def test_a_layer_has_the_scheme_that_names_it_closest() -> None:
    config = CompressedTensorsConfig.from_dict(a_config())
    assert config.of_layer("model.layers.3.up_proj") == config.schemes[0]
    assert config.of_layer("model.layers.3.down_proj") == config.schemes[1]
    assert config.of_layer("model.layers.0.up_proj") == config.schemes[1]
    assert config.of_layer("lm_head") is None
    assert config.of_layer("model.layers.3.gate") is None
    assert config.of_layer("model.embed_tokens", "Embedding") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quant_method": "gptq"}, "quant_method is 'gptq'"),
        ({"quantization_status": "frozen"}, "quantization_status is 'frozen'"),
        ({"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparsity_config is given"),
        ({"transform_config": {"config_groups": {"R1": {}}}}, "transform_config is given"),
        ({"config_groups": {"W4A16": ["Linear"]}}, "config_groups.W4A16"),
    ],
)
def test_a_config_that_is_not_supported_is_refused_by_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CompressedTensorsConfig.from_dict({**a_config(), **change})


@pytest.mark.parametrize(
    ("layout", "weights", "message"),
    [
        ("marlin-24", {}, "format is 'marlin-24'"),
        ("dense", {}, "format is 'dense'"),
        ("mxfp8-quantized", {}, "format is 'mxfp8-quantized'"),
        ("pack-quantized", {"num_bits": 9, "strategy": "channel"}, "num_bits is 9"),
        ("pack-quantized", {"strategy": "tensor"}, "strategy is 'tensor'"),
        ("pack-quantized", {"type": "float", "strategy": "channel"}, "type is 'float'"),
        ("pack-quantized", {"strategy": "channel", "actorder": "random"}, "actorder is 'random'"),
        ("pack-quantized", {"strategy": "group"}, "group_size is None"),
        ("int-quantized", {"strategy": "tensor", "symmetric": False}, "symmetric is False"),
        ("float-quantized", {"type": "float", "strategy": "block"}, "block_structure is None"),
        (
            "float-quantized",
            {"type": "float", "strategy": "block", "block_structure": [64, 64]},
            r"block_structure is \(64, 64\)",
        ),
        (
            "nvfp4-pack-quantized",
            {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 32},
            "is 32",
        ),
    ],
)
def test_a_scheme_that_is_not_supported_is_refused_by_field(layout: str, weights: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LayerScheme.from_dict({"targets": ["Linear"], "weights": weights}, layout, padded=False)


def test_weights_that_the_scheme_cannot_hold_are_refused() -> None:
    weight = a_weight(integers())
    with pytest.raises(UsageError, match="no whole groups of 48"):
        packing.pack(weight, integers(group_size=48))
    with pytest.raises(UsageError, match="groups of 32 inputs"):
        packing.pack(weight, integers(group_size=64))
    with pytest.raises(UsageError, match=r"weights.num_bits is 8"):
        packing.pack(weight, integers(8))
    with pytest.raises(UsageError, match="has zero points"):
        packing.pack(a_weight(integers(symmetric=False)), integers())
    with pytest.raises(UsageError, match="act-order"):
        packing.pack(a_weight(integers(by_activation=True)), integers())
    with pytest.raises(UsageError, match="float-quantized holds no IntegerWeight"):
        packing.pack(weight, LayerScheme("float-quantized", TensorScheme(8, "float", True, "channel")))
    by_channel = LayerScheme("int-quantized", TensorScheme(8, "int", True, "channel"))
    by_tensor = LayerScheme("int-quantized", TensorScheme(8, "int", True, "tensor"))
    scaled = packing.quantize(torch.randn(4, 8), by_channel)
    with pytest.raises(UsageError, match="blocks of 1 x 8"):
        packing.pack(scaled, by_tensor)
    with pytest.raises(UsageError, match="weight_scale has 4 numbers, and the strategy is tensor"):
        packing.unpack(packing.pack(scaled, by_channel), by_tensor)


def test_tensors_that_disagree_with_the_scheme_are_refused() -> None:
    scheme = integers(symmetric=False, by_activation=True)
    stored = packing.pack(a_weight(scheme), scheme)
    with pytest.raises(UsageError, match=r"weight_packed has 7 words a row.*\n.*take 8"):
        packing.unpack({**stored, "weight_packed": stored["weight_packed"][:, :7]}, scheme)
    with pytest.raises(UsageError, match="no tensor weight_zero_point"):
        packing.unpack({name: stored[name] for name in stored if name != "weight_zero_point"}, scheme)
    with pytest.raises(UsageError, match="no tensor weight_g_idx"):
        packing.unpack({name: stored[name] for name in stored if name != "weight_g_idx"}, scheme)
    with pytest.raises(UsageError, match="weight_g_idx reaches from 2 to 2"):
        packing.unpack({**stored, "weight_g_idx": torch.full((64,), 2, dtype=torch.int32)}, scheme)
    with pytest.raises(UsageError, match="weight_scale has shape"):
        packing.unpack({**stored, "weight_scale": stored["weight_scale"][:, :1]}, scheme)
    with pytest.raises(UsageError, match="weight_zero_point has shape"):
        packing.unpack({**stored, "weight_zero_point": stored["weight_zero_point"][:1]}, scheme)
    stored = {"weight": torch.tensor([[-9, 0]], dtype=torch.int8), "weight_scale": torch.ones(1, 1)}
    with pytest.raises(UsageError, match="weight reaches from -9 to 0"):
        packing.unpack(stored, replace(integers(4, True, None), format="int-quantized"))


class TestAgainstTheProjectsOwn:
    """The compressed-tensors package, on the CPU."""

    def library_scheme(self, scheme: LayerScheme) -> Any:
        library = pytest.importorskip("compressed_tensors.quantization")
        fields = scheme.to_dict()
        fields["weights"].pop("actorder", None)
        return library.QuantizationScheme(**fields)

    def compressor(self, layout: str) -> Any:
        return pytest.importorskip("compressed_tensors.compressors").BaseCompressor.get_value_from_registry(layout)

    @pytest.mark.parametrize("symmetric", [True, False])
    @pytest.mark.parametrize("group_size", [None, 16])
    @pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
    def test_packed_integers_have_the_same_words(self, bits: int, group_size: int | None, symmetric: bool) -> None:
        scheme = integers(bits, symmetric, group_size)
        weight = replace(a_weight(scheme, 13, 48), scales=torch.rand(13, 48 // (group_size or 48)) + 0.5)
        stored = packing.pack(weight, scheme)
        half = 1 << (bits - 1)
        state = {"weight": weight.dequantize(), "weight_scale": weight.scales}
        if weight.zeros is not None:
            state["weight_zero_point"] = (weight.zeros.to(torch.int16) - half).to(torch.int8)
        compressor = self.compressor("pack-quantized")
        theirs = compressor.compress(state, self.library_scheme(scheme))
        assert set(stored) == set(theirs)
        for name, tensor in stored.items():
            assert torch.equal(tensor, theirs[name]), name
        restored = compressor.decompress(stored, self.library_scheme(scheme))["weight"]
        assert torch.equal(restored, weight.dequantize())

    @pytest.mark.parametrize(
        "scheme",
        [
            LayerScheme("int-quantized", TensorScheme(8, "int", True, "channel")),
            LayerScheme("int-quantized", TensorScheme(8, "int", True, "tensor")),
            LayerScheme("int-quantized", TensorScheme(4, "int", False, "group", 16)),
            LayerScheme("float-quantized", TensorScheme(8, "float", True, "tensor")),
            LayerScheme("float-quantized", TensorScheme(8, "float", True, "channel")),
            LayerScheme("float-quantized", TensorScheme(8, "float", True, "block", block=(128, 128))),
            LayerScheme("nvfp4-pack-quantized", TensorScheme(4, "float", True, "tensor_group", 16)),
            LayerScheme("mxfp4-pack-quantized", TensorScheme(4, "float", True, "group", 32)),
        ],
        ids=lambda scheme: f"{scheme.format}-{scheme.weights.strategy}",
    )
    def test_it_reads_ours(self, scheme: LayerScheme) -> None:
        weight = packing.quantize(torch.randn(256, 128, generator=torch.Generator().manual_seed(0)), scheme)
        stored = packing.pack(weight, scheme)
        theirs = self.compressor(scheme.format).decompress(dict(stored), self.library_scheme(scheme))["weight"]
        ours = weight.dequantize(theirs.dtype)
        assert torch.allclose(theirs.float(), ours.float(), rtol=2 * torch.finfo(theirs.dtype).eps, atol=0)

    def test_it_reads_our_config(self) -> None:
        library = pytest.importorskip("compressed_tensors.quantization")
        config = CompressedTensorsConfig.from_dict(a_config()).to_dict()
        config.pop("version")
        parsed = library.QuantizationConfig(**config)
        assert parsed.config_groups["group_1"].format == "float-quantized"
        assert CompressedTensorsConfig.from_dict(parsed.to_dict()).schemes[1].weights.strategy == "channel"
