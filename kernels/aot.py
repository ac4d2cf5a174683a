"""Compiling kernels without a GPU, to see what they would take of one: registers, spills, shared memory."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qmeter_native.errors import UsageError

__all__ = ["CompiledKernel", "KernelVariant", "compile_variant"]


@dataclass(frozen=True, slots=True)
class KernelVariant:
    """One specialisation of a Triton kernel, as a launch with these arguments would compile it.

    Attributes:
        name: What tests and tables call it.
        function: The ``triton.jit`` function; not interpreted (``TRITON_INTERPRET`` unset).
        signature: Type by argument name, such as ``*fp16`` and ``i32``; arguments of ``constexprs`` may be left out.
        constexprs: Values of the compile-time arguments.
        aligned: Pointers at multiples of 16 bytes, and integers that are multiples of 16.
        num_warps, num_stages: As Triton's.
        minimum: Oldest compute capability that can run it.
    """

    name: str
    function: Any
    signature: Mapping[str, str]
    constexprs: Mapping[str, Any]
    aligned: tuple[str, ...] = ()
    num_warps: int = 4
    num_stages: int = 4
    minimum: tuple[int, int] = (8, 0)


@dataclass(frozen=True, slots=True)
class CompiledKernel:
    """What a compiled kernel takes.

    Attributes:
        registers: Of a thread.
        spill_bytes: Stack of a thread, where registers did not suffice.
        shared_bytes: Of a block.
        stages: Texts by stage of the compiler: ``ttgir``, ``ptx`` …
    """

    registers: int
    spill_bytes: int
    shared_bytes: int
    stages: Mapping[str, Any] = field(repr=False)


def compile_variant(variant: KernelVariant, capability: tuple[int, int]) -> CompiledKernel:
    """Compile for a GPU that need not be here.

    Raises:
        UsageError: Kernels are interpreted in this process.
    """
    from triton import compile as compile_kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.runtime.interpreter import InterpretedFunction

    if isinstance(variant.function, InterpretedFunction):
        raise UsageError(f"{variant.name} is interpreted", "Unset TRITON_INTERPRET before importing kernels.")
    names = variant.function.arg_names
    signature = {name: "constexpr" if name in variant.constexprs else variant.signature[name] for name in names}
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in variant.aligned}
    source = ASTSource(variant.function, signature, dict(variant.constexprs), attributes)
    target = GPUTarget("cuda", 10 * capability[0] + capability[1], 32)
    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages}
    compiled = compile_kernel(source, target=target, options=options)
    registers, spill_bytes = _resources(compiled.asm["cubin"])
    return CompiledKernel(registers, spill_bytes, int(compiled.metadata.shared), compiled.asm)


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers and stack bytes of a thread, by the ``cuobjdump`` that comes with Triton."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], check=True, capture_output=True, text=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    if found is None:
        raise UsageError(f"{tool} says nothing of registers: {text.strip()}")
    return int(found[1]), int(found[2])
