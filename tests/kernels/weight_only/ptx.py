"""The few PTX instructions of the decoders, executed on the CPU: inline assembly cannot run in Triton's interpreter."""

from __future__ import annotations

import re
import struct

import torch

__all__ = ["run"]


def run(assembly: str, inputs: list[int], outputs: int) -> list[int]:
    """32-bit outputs of ``assembly``, whose operands ``$0…`` are first the outputs, then ``inputs``."""
    registers = {f"${outputs + index}": value for index, value in enumerate(inputs)}
    for line in assembly.strip("{}\n").splitlines():
        if line.startswith(".reg"):
            continue
        name, rest = line.rstrip(";").split(" ", 1)
        target, *operands = [part.strip() for part in rest.split(",")]
        values = [registers[operand] if operand in registers else _immediate(operand) for operand in operands]
        registers[target] = _execute(name, values) & 0xFFFFFFFF
    return [registers[f"${index}"] for index in range(outputs)]


def _immediate(operand: str) -> int:
    assert re.fullmatch(r"0x[0-9a-f]+|\d+", operand), f"{operand} is read before it is written"
    return int(operand, 0)


def _execute(name: str, values: list[int]) -> int:
    """PTX ISA 8.5, section 9.7."""
    if name == "mov.b32":
        return values[0]
    if name == "shr.b32":
        return values[0] >> values[1]
    if name == "shl.b32":
        return values[0] << values[1]
    if name == "and.b32":
        return values[0] & values[1]
    if name == "xor.b32":
        return values[0] ^ values[1]
    if name == "lop3.b32":
        assert values[3] == 0xEA, "(a & b) | c"
        return values[0] & values[1] | values[2]
    if name == "mad.lo.u32":
        return values[0] * values[1] + values[2]
    if name == "prmt.b32":
        return _permuted(*values)
    if name == "sub.rn.f16x2":
        return _execute("fma.rn.f16x2", [values[0], 0x3C003C00, values[1] ^ 0x80008000])  # a * 1 + (-b)
    dtype = {"fma.rn.f16x2": torch.float16, "fma.rn.bf16x2": torch.bfloat16}[name]
    halves = [[_value(value >> 16 * half & 0xFFFF, dtype) for value in values] for half in range(2)]
    low, high = (_bits(a * b + c, dtype) for a, b, c in halves)
    return high << 16 | low


def _permuted(low: int, high: int, selector: int) -> int:
    source = struct.pack("<II", low, high)
    chosen = [selector >> 4 * place & 0xF for place in range(4)]
    assert all(number < 8 for number in chosen), "a sign would be replicated"
    return int(struct.unpack("<I", bytes(source[number] for number in chosen))[0])


def _value(bits: int, dtype: torch.dtype) -> float:
    signed = bits - (1 << 16) if bits >= 1 << 15 else bits
    return float(torch.tensor(signed, dtype=torch.int16).view(dtype))


def _bits(value: float, dtype: torch.dtype) -> int:
    return int(torch.tensor(value, dtype=torch.float64).to(dtype).view(torch.int16)) & 0xFFFF
