"""PTX that turns words of codes into pairs of weights, in registers.

Instructions for 8 weights, the float16 of ``uint4``: 1 shift, 4 ``lop3`` and 4 ``fma``, where a conversion by the
integer units would take 16. The trick of the magic exponent: ``0x6400 | q`` is the float16 ``1024 + q`` (bfloat16:
``0x4300 | q`` is ``128 + q``), and the ``fma`` that takes 1024 off also takes the zero point off, exactly; a code that
lies ``f`` bits higher is ``1024 + 2 ** f * q``, and the same ``fma`` scales it back.
"""

from __future__ import annotations

import struct
from functools import cache

from qmeter_native.kernels.weight_only.encoding import E2M1_PLACES, E4M3_PLACES, ENCODINGS

__all__ = ["constraints", "decode_assembly"]

_MANTISSA = {"fp16": 10, "bf16": 7}
_MAGIC = {"fp16": 0x6400, "bf16": 0x4300}


@cache
def decode_assembly(kind: str, dtype: str, zero: str, table: tuple[float, ...] = ()) -> str:
    """PTX that turns ``$words`` into one register of two weights for each part.

    Args:
        kind: Of the encoding.
        dtype: ``fp16`` or ``bf16``.
        zero: ``none`` (symmetric: half the range is taken off), ``raw`` (nothing is) or ``fused`` (an operand is, an
            integer).
        table: Values of ``table``'s codes.
    """
    parts, words = ENCODINGS[kind].parts, ENCODINGS[kind].words
    inputs = [f"${parts + word}" for word in range(words)]
    zero_operand = f"${parts + words}" if zero == "fused" else None
    if kind == "e4m3":
        lines = _float_lines(inputs[0], E4M3_PLACES, 7, {"fp16": 7, "bf16": 4}[dtype], dtype)
    elif kind == "e2m1":
        lines = _float_lines(inputs[0], E2M1_PLACES, 3, {"fp16": 9, "bf16": 6}[dtype], dtype)
    elif kind == "table":
        lines = _table_lines(inputs[0], table, dtype)
    else:
        bits = ENCODINGS[kind].bits
        center = 1 << (bits - 1) if zero == "none" else 0
        wide = bits > _MANTISSA[dtype]
        codes = _byte_lines if wide else _integer_lines
        lines = codes(inputs, bits, dtype, center, zero_operand)
    return "{\n.reg .b32 a, b, c, f, m, t<10>;\n" + "\n".join(lines) + "\n}"


def constraints(kind: str) -> str:
    """Of `decode_assembly`'s operands: parts, words, zero; outputs are written before all inputs are read: ``&``."""
    encoding = ENCODINGS[kind]
    return ",".join(["=&r"] * encoding.parts + ["r"] * (encoding.words + 1))


def _bits(value: float, dtype: str) -> int:
    """A constant's 16 bits; bfloat16 by rounding to the nearest even."""
    if dtype == "fp16":
        return int(struct.unpack("<H", struct.pack("<e", value))[0])
    word = struct.unpack("<I", struct.pack("<f", value))[0]
    return int((word + 0x7FFF + (word >> 16 & 1)) >> 16)


def _pair(half: int) -> str:
    """The same 16 bits twice, as PTX writes them."""
    return f"0x{half << 16 | half:08x}"


def _two(value: float, dtype: str) -> str:
    return _pair(_bits(value, dtype))


def _fma(dtype: str, output: str, value: str, factor: float, addend: str | float) -> list[str]:
    """``output = value * factor + addend`` of two halves; ``fma`` takes no immediate numbers of this type, and ptxas
    forgets the moves.
    """
    lines = [f"mov.b32 f, {_two(factor, dtype)};"]
    if isinstance(addend, float):
        lines.append(f"mov.b32 c, {_two(addend, dtype)};")
        addend = "c"
    operation = "fma.rn.f16x2" if dtype == "fp16" else "fma.rn.bf16x2"
    return [*lines, f"{operation} {output}, {value}, f, {addend};"]


def _integer_lines(inputs: list[str], bits: int, dtype: str, center: int, zero: str | None) -> list[str]:
    """Codes of at most the mantissa's bits."""
    per_word = 16 // bits
    lines = [f"mov.b32 m, {_pair(_MAGIC[dtype])};"]
    for index, word in enumerate(inputs):
        shift, source = 0, word
        for place in range(per_word):
            low = bits * place
            if low + bits - shift > _MANTISSA[dtype]:
                shift, source = low, "a"
                lines.append(f"shr.b32 a, {word}, {shift};")
            mask = ((1 << bits) - 1) << (low - shift)
            output = f"${index * per_word + place}"
            lines.append(f"lop3.b32 {output}, {source}, {_pair(mask)}, m, 0xea;")
            lines += _settle(output, low - shift, dtype, center, zero)
    if len(inputs) == 3:
        lines += _sixteenth(inputs) + _settle("$15", 0, dtype, center, zero)
    return lines


def _sixteenth(inputs: list[str]) -> list[str]:
    """The three top bits of a triple."""
    lines = ["mov.b32 $15, m;"]
    for bit, word in enumerate(inputs):
        lines += [f"shr.b32 a, {word}, {15 - bit};", f"lop3.b32 $15, a, {_pair(1 << bit)}, $15, 0xea;"]
    return lines


def _settle(output: str, place: int, dtype: str, center: int, zero: str | None) -> list[str]:
    """From ``magic + 2 ** place * q`` to ``q - zero``; with an operand, its sum with the magic is formed each time and
    left to ptxas to share between the words of a row.
    """
    base = float(1 << _MANTISSA[dtype]) / (1 << place)
    factor = 1.0 / (1 << place)
    if zero is None:
        return _fma(dtype, output, output, factor, -base - center)
    return _fma(dtype, "t0", zero, -1.0, -base) + _fma(dtype, output, output, factor, "t0")


def _byte_lines(inputs: list[str], bits: int, dtype: str, center: int, zero: str | None) -> list[str]:
    """Bytes in bfloat16, by halves: ``16 * (128 + high) - 2048 - 256`` and ``+ 128 + low`` are exact, as are 128 less
    than a byte and what differs from it by a byte.
    """
    word = inputs[0]
    lines = [f"mov.b32 m, {_pair(_MAGIC[dtype])};"]
    for part in range(2):
        for half, register in enumerate(("a", "b")):
            lines.append(_shifted(register, word, -bits * part - 4 * half))
            lines.append(f"lop3.b32 {register}, {register}, {_pair(0xF)}, m, 0xea;")
        lines += _fma(dtype, "b", "b", 16.0, -2304.0) + _fma(dtype, f"${part}", "b", 1.0, "a")
        rest = float(128 - center)
        if zero is not None:
            lines += _fma(dtype, "t0", zero, -1.0, rest) + _fma(dtype, f"${part}", f"${part}", 1.0, "t0")
        elif rest:
            lines += _fma(dtype, f"${part}", f"${part}", 1.0, rest)
    return lines


def _float_lines(word: str, places: tuple[tuple[int, int], ...], bits: int, target: int, dtype: str) -> list[str]:
    """Signs and magnitudes into the places of the wider type. The exponent of bfloat16 has a bias of 127, that of
    float16 15: a product with 2 ** 112 makes both the same number, which the scales then raise.
    """
    magnitude = ((1 << bits) - 1) << target
    lines = []
    for part, (sign, low) in enumerate(places):
        if 15 - sign == target - low:
            lines += [_shifted("a", word, 15 - sign), f"and.b32 ${part}, a, {_pair(0x8000 | magnitude)};"]
        else:
            lines += [_shifted("a", word, target - low), f"and.b32 a, a, {_pair(magnitude)};"]
            lines += [_shifted("b", word, 15 - sign), f"lop3.b32 ${part}, b, {_pair(0x8000)}, a, 0xea;"]
        if dtype == "bf16":
            lines += _fma(dtype, f"${part}", f"${part}", 2.0**112, -0.0)
    return lines


def _shifted(register: str, word: str, left: int) -> str:
    if left == 0:
        return f"mov.b32 {register}, {word};"
    return f"shl.b32 {register}, {word}, {left};" if left > 0 else f"shr.b32 {register}, {word}, {-left};"


def _table_lines(word: str, table: tuple[float, ...], dtype: str) -> list[str]:
    """Look-ups by ``prmt``, which selects 4 of 8 bytes by 3-bit numbers: low and high bytes of the 16 values, each by
    two of them and a third that chooses by the code's top bit; 25 instructions for 8 weights.
    """
    halves = [_bits(value, dtype) for value in table]
    lines = [f"and.b32 a, {word}, 0x77777777;", f"shr.b32 b, {word}, 1;"]
    lines += [f"mov.b32 m, {_pair(0x3210)};", "lop3.b32 b, b, 0x44444444, m, 0xea;"]
    for row in range(2):  # the low and the high word of the register: neighbouring inputs
        if row:
            lines += ["shr.b32 a, a, 16;", "shr.b32 b, b, 16;"]
        for byte in range(2):
            first, second, third, fourth = (
                f"0x{sum((halves[4 * quad + place] >> 8 * byte & 0xFF) << 8 * place for place in range(4)):08x}"
                for quad in range(4)
            )
            name = f"t{2 * row + byte}"
            lines += [f"mov.b32 c, {first};", f"prmt.b32 t8, c, {second}, a;"]
            lines += [f"mov.b32 c, {third};", f"prmt.b32 t9, c, {fourth}, a;", f"prmt.b32 {name}, t8, t9, b;"]
        low, high = f"t{2 * row}", f"t{2 * row + 1}"
        lines += [
            f"prmt.b32 t{4 + 2 * row}, {low}, {high}, 0x5140;",
            f"prmt.b32 t{5 + 2 * row}, {low}, {high}, 0x7362;",
        ]
    for part in range(4):
        selector = "0x5410" if part % 2 == 0 else "0x7632"
        lines.append(f"prmt.b32 ${part}, t{4 + part // 2}, t{6 + part // 2}, {selector};")
    return lines
