"""bitsandbytes' 4-bit weights, NF4 and FP4, with plain or doubly quantized scales.

The matrix is flattened row by row and cut into blocks (64 values by default), each with its largest magnitude
(``absmax``) as scale; a block may reach from one row into the next. A layer of N outputs and K inputs stores

- ``weight`` uint8 ``[(N K + 1) / 2, 1]``, the first of two values in the high nibble; its bytes may be seen as another
  type (``bnb_4bit_quant_storage``);
- ``weight.absmax`` float32, one a block; doubly quantized: uint8, codes of ``weight.nested_quant_map``;
- ``weight.quant_map`` float32 ``[16]``, what the codes stand for;
- ``weight.quant_state.bitsandbytes__nf4`` or ``…__fp4`` uint8: type, block size, dtype and shape as JSON;
- doubly quantized: ``weight.nested_absmax`` float32, one for 256 blocks, and ``weight.nested_quant_map`` float32
  ``[256]``; a block's scale is ``nested_quant_map[absmax[i]] * nested_absmax[i // 256] + nested_offset``.

Layout as bitsandbytes 0.50 writes it (functional.QuantState); NF4: Dettmers et al., QLoRA, 2023, appendix E.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.checks import check_float_matrix
from qmeter_native.kernels.packing.bits import pack_bits, unpack_bits
from qmeter_native.kernels.packing.requirements import required_field, required_tensor
from qmeter_native.kernels.quantized_weight import CodebookWeight

__all__ = ["FP4_TABLE", "NF4_TABLE", "BitsAndBytesConfig", "dynamic_map", "pack", "quantize", "unpack"]

NF4_TABLE: Final[Any] = torch.tensor(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)
"""float32 ``[16]``: quantiles of a normal distribution, scaled to [-1, 1]."""

_FP4_MAGNITUDES: Final = (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)

FP4_TABLE: Final[Any] = torch.tensor([*_FP4_MAGNITUDES, *(-value for value in _FP4_MAGNITUDES)]) / 12
"""float32 ``[16]``: bitsandbytes' own 4-bit float, in the order of its bits; not E2M1."""

_TABLES: Final = {"nf4": NF4_TABLE, "fp4": FP4_TABLE}
_BLOCK_SIZES: Final = (32, 64, 128, 256, 512, 1024, 2048, 4096)
_NESTED_BLOCK: Final = 256
_STATE: Final = "weight.quant_state.bitsandbytes__"
_TINY: Final = 1e-38  # instead of dividing by a block of zeros


@dataclass(frozen=True, slots=True)
class BitsAndBytesConfig:
    """``quantization_config`` of a 4-bit checkpoint; the block size is not in it but in every layer's state.

    Attributes:
        quant_type: "nf4" or "fp4".
        double_quant: Scales are quantized too.
        compute_dtype: In which the layers multiply.
        quant_storage: As which type the bytes are stored.
        skip_modules: Names of modules left as they are.
    """

    quant_type: str = "nf4"
    double_quant: bool = False
    compute_dtype: str = "float16"
    quant_storage: str = "uint8"
    skip_modules: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> BitsAndBytesConfig:
        """Read ``quantization_config``.

        Raises:
            UsageError: A field has a value that is not supported; 8-bit checkpoints are `llm_int8`'s.
        """
        required_field("bitsandbytes", "quant_method", config.get("quant_method"), ("bitsandbytes",))
        required_field("bitsandbytes", "load_in_4bit", config.get("load_in_4bit", False), (True,))
        quant_type = config.get("bnb_4bit_quant_type", "fp4")  # the library's default
        return cls(
            quant_type=required_field("bitsandbytes", "bnb_4bit_quant_type", quant_type, tuple(_TABLES)),
            double_quant=bool(config.get("bnb_4bit_use_double_quant", False)),
            compute_dtype=config.get("bnb_4bit_compute_dtype") or "float32",
            quant_storage=config.get("bnb_4bit_quant_storage") or "uint8",
            skip_modules=tuple(config.get("llm_int8_skip_modules") or ()),
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as ``config.json`` has them."""
        return {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "load_in_8bit": False,
            "bnb_4bit_quant_type": self.quant_type,
            "bnb_4bit_use_double_quant": self.double_quant,
            "bnb_4bit_compute_dtype": self.compute_dtype,
            "bnb_4bit_quant_storage": self.quant_storage,
            "llm_int8_skip_modules": list(self.skip_modules) or None,
        }


def quantize(weight: Any, quant_type: str = "nf4", blocksize: int = 64) -> CodebookWeight:
    """Round a matrix to NF4 or FP4.

    Args:
        weight: Floating point ``[N, K]``.
        quant_type: "nf4" or "fp4".
        blocksize: Values of the flattened matrix that share a scale, a power of two from 32 to 4096.

    Returns:
        Groups of ``gcd(K, blocksize)`` inputs: the largest that lie in one block of every row.
    """
    check_float_matrix("weight", weight)
    required_field("bitsandbytes", "quant_type", quant_type, tuple(_TABLES))
    required_field("bitsandbytes", "blocksize", blocksize, _BLOCK_SIZES)
    table = _TABLES[quant_type].to(weight.device)
    codes, absmax = _round_blocks(weight.float().flatten(), table, blocksize)
    return _weight(codes, absmax, table, blocksize, tuple(weight.shape))


def pack(
    weight: CodebookWeight,
    *,
    blocksize: int | None = None,
    double_quant: bool = False,
    storage: Any = torch.uint8,
    dtype: Any = torch.float16,
) -> dict[str, Any]:
    """The tensors of a layer.

    Args:
        weight: With NF4's or FP4's table.
        blocksize: Values that share a scale; None: the weight's group size, where that is a block size.
        double_quant: Quantize the scales, which rounds them: give a weight whose scales are not rounded yet.
        storage: Type as which ``weight``'s bytes are stored.
        dtype: Type of the unquantized weight, which the library dequantizes to.

    Raises:
        UsageError: Another table; scales that differ within a block; bytes that are no whole number of ``storage``.
    """
    quant_type = next((name for name, table in _TABLES.items() if torch.equal(weight.table.cpu(), table)), None)
    if quant_type is None:
        raise UsageError(f"the weight's table is {weight.table.tolist()}", "It must be NF4's or FP4's.")
    blocksize = required_field("bitsandbytes", "blocksize", blocksize or weight.group_size, _BLOCK_SIZES)
    absmax = _block_scales(weight, blocksize)
    state = {
        "quant_type": quant_type,
        "blocksize": blocksize,
        "dtype": str(dtype).removeprefix("torch."),
        "shape": list(weight.shape),
    }
    tensors = {"weight": _packed(weight.codes, storage), "weight.absmax": absmax, "weight.quant_map": weight.table}
    if double_quant:
        nested, nested_state = _nested(absmax)
        tensors |= nested
        state |= nested_state
    tensors[f"{_STATE}{quant_type}"] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    return tensors


def unpack(tensors: Mapping[str, Any]) -> CodebookWeight:
    """Read what `pack` or bitsandbytes wrote.

    Returns:
        Scales float32, dequantized where they were doubly quantized; groups as in `quantize`.

    Raises:
        UsageError: A tensor is missing, or of another type, shape or size than the layer's state says.
    """
    state = _state(tensors)
    n, k = state["shape"]
    blocksize, num_blocks = state["blocksize"], math.ceil(n * k / state["blocksize"])
    if "weight" not in tensors:
        raise UsageError("the layer has no tensor weight", f"It has {', '.join(sorted(tensors))}.")
    packed = tensors["weight"].contiguous().view(torch.uint8).flatten()
    if packed.numel() != (n * k + 1) // 2:
        raise UsageError(f"weight has {packed.numel()} bytes", f"{n} x {k} values take {(n * k + 1) // 2}.")
    table = required_tensor(tensors, "weight.quant_map", [torch.float32], 16)
    if "nested_blocksize" in state:
        nested_map = required_tensor(tensors, "weight.nested_quant_map", [torch.float32], 256)
        num_nested = math.ceil(num_blocks / state["nested_blocksize"])
        nested = required_tensor(tensors, "weight.nested_absmax", [torch.float32], num_nested)
        codes = required_tensor(tensors, "weight.absmax", [torch.uint8], num_blocks)
        scales = nested.repeat_interleave(state["nested_blocksize"])[:num_blocks]
        absmax = nested_map[codes.int()] * scales + state["nested_offset"]
    else:
        absmax = required_tensor(tensors, "weight.absmax", [torch.float32], num_blocks)
    nibbles = unpack_bits(packed, 4, 2 * packed.numel()).unflatten(0, (-1, 2)).flip(1).flatten()
    return _weight(nibbles[: n * k], absmax, table, blocksize, (n, k))


def dynamic_map() -> Any:
    """The 8-bit code of doubly quantized scales: float32 ``[256]``, ascending, from -0.993 to 1.

    A code is a sign, a decimal exponent e from -6 to 0 in unary, and a fraction in the bits that are left, 6 + e: the
    middles of as many equal parts of [0.1, 1], times 10**e; and 0 and 1 (Dettmers 2016, arXiv:1511.04561, section 2.1).
    """
    values = [0.0, 1.0]
    for exponent in range(-6, 1):
        edges = torch.linspace(0.1, 1, 2 ** (6 + exponent) + 1)
        middles = 10.0**exponent * ((edges[:-1] + edges[1:]) / 2)
        values += [*middles.tolist(), *(-middles).tolist()]
    return torch.tensor(sorted(values))


def _round_blocks(flat: Any, table: Any, blocksize: int) -> tuple[Any, Any]:
    """Nearest codes uint8 of ``flat`` float32, ties to the smaller value; and every block's absmax, float32."""
    num_values = flat.numel()
    blocks = torch.nn.functional.pad(flat, (0, -num_values % blocksize)).reshape(-1, blocksize)
    absmax = blocks.abs().amax(1)
    scaled = (blocks * (1.0 / absmax.clamp_min(_TINY))[:, None]).clamp(-1, 1).flatten()[:num_values]
    values, codes = torch.sort(table, stable=True)
    places = torch.bucketize(scaled, (values[:-1] + values[1:]) / 2, out_int32=True)
    return codes.to(torch.uint8)[places], absmax


def _nested(absmax: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and fields of the state of doubly quantized scales."""
    table, offset = dynamic_map().to(absmax.device), absmax.mean()
    codes, nested_absmax = _round_blocks(absmax - offset, table, _NESTED_BLOCK)
    tensors = {"weight.absmax": codes, "weight.nested_absmax": nested_absmax, "weight.nested_quant_map": table}
    return tensors, {"nested_blocksize": _NESTED_BLOCK, "nested_dtype": "float32", "nested_offset": offset.item()}


def _weight(codes: Any, absmax: Any, table: Any, blocksize: int, shape: tuple[int, ...]) -> CodebookWeight:
    """A weight of flat codes and of one scale a block."""
    n, k = shape
    group_size = math.gcd(k, blocksize)
    scales = absmax.repeat_interleave(blocksize // group_size)[: n * k // group_size]
    return CodebookWeight(codes.reshape(n, k), table, scales.reshape(n, -1), group_size)


def _block_scales(weight: CodebookWeight, blocksize: int) -> Any:
    """One scale a block, float32, of a weight's groups."""
    if weight.shape[1] % weight.group_size or blocksize % weight.group_size:
        raise UsageError(
            f"groups of {weight.group_size} inputs do not fill rows of {weight.shape[1]} and blocks of {blocksize}",
            "Quantize anew with this block size.",
        )
    flat, per_block = weight.scales.float().flatten(), blocksize // weight.group_size
    absmax = flat[::per_block].contiguous()
    if not torch.equal(absmax.repeat_interleave(per_block)[: flat.numel()], flat):
        raise UsageError(f"scales differ within blocks of {blocksize} values", "Give the block size of the weight.")
    return absmax


def _packed(codes: Any, storage: Any) -> Any:
    """Bytes of codes ``[N, K]``, seen as ``storage``: ``[bytes / its size, 1]``."""
    flat = torch.nn.functional.pad(codes.flatten(), (0, codes.numel() % 2))
    packed = pack_bits(flat.unflatten(0, (-1, 2)).flip(1).flatten(), 4, torch.uint8)
    if packed.numel() % storage.itemsize:
        raise UsageError(f"{packed.numel()} bytes are no whole number of {storage}", "Store them as torch.uint8.")
    return packed.view(storage)[:, None]


def _state(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The layer's state, checked."""
    names = [f"{_STATE}{quant_type}" for quant_type in _TABLES]
    name = next((name for name in names if name in tensors), None)
    if name is None:
        raise UsageError(f"the layer has no tensor {names[0]}", f"It has {', '.join(sorted(tensors)) or 'none'}.")
    try:
        state = json.loads(bytes(required_tensor(tensors, name, [torch.uint8], None).tolist()))
        if len(state["shape"]) != 2:
            raise ValueError(f"shape is {state['shape']}")
        if "nested_blocksize" in state:
            float(state["nested_offset"])
        required_field(name, "blocksize", state["blocksize"], _BLOCK_SIZES)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{name} is no state of a matrix: {error}", "It must be JSON with shape and blocksize."
        ) from error
    return dict(state)
