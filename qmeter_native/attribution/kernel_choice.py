"""Which kernels a quantization method asked for, and which ran: a fallback is seen, not believed away."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from qmeter_native.attribution.implementation_rules import (
    FORMAT_OF_METHOD,
    FORMATS,
    NAMES_TELL,
    UNQUANTIZED,
    KernelFormat,
    implementation,
)
from qmeter_native.model.kernel_choice import KernelChoice, ObservedKernels
from qmeter_native.model.manifest import EngineInfo
from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.report import KernelRow

__all__ = ["kernel_choice"]

_FINE: Final = 0.5
"""Share of GEMM time in the quantized format from which all is well. An unquantized LM head takes about 15 % of an 8B
model's GEMM time in decode, more beside 4-bit weights (its 1.05 GB are read beside 3.5 GB), so 1 is never reached."""
_FALLBACK: Final = 0.05
"""Share below which the format was not used."""
_UNKNOWN: Final = "unknown"
_PRODUCTS: Final = frozenset({OpFamily.GEMM, OpFamily.MOE, OpFamily.DEQUANTIZE})
"""Matrix products, and what unpacks weights for one."""


def kernel_choice(engine: EngineInfo | None, kernels: Sequence[KernelRow]) -> KernelChoice | None:
    """Requested against observed; None where no matrix product ran.

    Args:
        engine: The engine as it reports itself; None if a user's own code was traced.
        kernels: What ran.
    """
    rows = [row for row in kernels if row.op_family in _PRODUCTS and row.time_s > 0]
    if not rows:
        return None
    observed = _observed(rows)
    method = _method(engine)
    if method is None:
        return KernelChoice(None, (), observed, False, f"No quantization was asked for; {_most(observed)}.")
    if method == _UNKNOWN:
        return KernelChoice(method, (), observed, None, f"No engine said how it quantizes; {_most(observed)}.")
    wanted = _format(method, engine)
    if wanted is None:
        message = f"Which kernels carry {method} out is not known; {_most(observed)}."
        return KernelChoice(method, (), observed, None, message)
    unpackers = {implementation(row.name) for row in rows if row.op_family is OpFamily.DEQUANTIZE}
    is_unpacked = not unpackers.isdisjoint(wanted.implementations)
    return KernelChoice(method, wanted.implementations, observed, *_verdict(method, wanted, observed, is_unpacked))


def _observed(rows: Sequence[KernelRow]) -> tuple[ObservedKernels, ...]:
    """Kernels by who wrote them and in which scheme, most time first."""
    groups: dict[tuple[str, str | None], list[KernelRow]] = defaultdict(list)
    for row in rows:
        groups[implementation(row.name) or _UNKNOWN, row.scheme].append(row)
    total_s = sum(row.time_s for row in rows)
    observed = [
        ObservedKernels(
            implementation=name,
            scheme=scheme,
            calls=sum(row.calls for row in members),
            time_s=(time_s := sum(row.time_s for row in members)),
            time_share=time_s / total_s if total_s else 0.0,
        )
        for (name, scheme), members in groups.items()
    ]
    return tuple(sorted(observed, key=lambda each: -each.time_s))


def _method(engine: EngineInfo | None) -> str | None:
    """What the engine says it runs, else what it was asked for; None if nothing, ``unknown`` if it is silent."""
    if engine is None:
        return _UNKNOWN
    ran, asked = (_said(settings.get("quantization")) for settings in (engine.effective, engine.requested))
    if ran or asked:
        return ran or asked
    is_silent = "quantization" not in engine.effective and "quantization" not in engine.requested
    return _UNKNOWN if is_silent else None


def _said(setting: Any) -> str | None:
    """A method's name; vLLM calls one ``auto_gptq`` where it chose the kernel itself."""
    name = "" if setting is None else str(setting).lower()
    return None if name in UNQUANTIZED else name.removeprefix("auto_")


def _format(method: str, engine: EngineInfo | None) -> KernelFormat | None:
    """By what the configuration calls its method; engines have names of their own for some."""
    config = None if engine is None else engine.effective.get("quantization_config")
    named = config.get("quant_method") if isinstance(config, dict) else None
    name = FORMAT_OF_METHOD.get(method) or FORMAT_OF_METHOD.get(str(named))
    if "compressed-tensors" in (method, named):
        name = _compressed_tensors(config)
    return None if name is None else FORMATS[name]


def _compressed_tensors(config: Any) -> str | None:
    """Number format of such a configuration, by the weights and activations of its first group; None if it has none."""
    groups = config.get("config_groups") if isinstance(config, dict) else None
    first = next(iter(groups.values()), None) if isinstance(groups, dict) else None
    weights = first.get("weights") if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(weights, dict) or "num_bits" not in weights:
        return None
    if weights.get("type") == "float":
        return "fp4" if weights["num_bits"] == 4 else "fp8"
    return "int8" if first.get("input_activations") and weights["num_bits"] == 8 else "integer weights"


def _verdict(
    method: str, wanted: KernelFormat, observed: Sequence[ObservedKernels], is_unpacked: bool
) -> tuple[bool | None, str]:
    """Whether the method fell back, None if that cannot be told, and one sentence.

    ``is_unpacked``: one of the wanted implementations unpacked weights, for another's product in a plain format.
    """
    used = [each for each in observed if _is_of(each, wanted)]
    share = sum(each.time_share for each in used)
    if share >= _FINE:
        return False, f"{method} was asked for, and {_percent(share)} of GEMM time ran in {_names(used)}."
    rest = [each for each in observed if not _is_of(each, wanted)]
    silent = [each for each in rest if each.scheme is None and each.implementation not in NAMES_TELL]
    if sum(each.time_share for each in silent) >= _FINE:
        return (
            None,
            f"{method} was asked for, but the names of {_names(silent)} do not tell in which format they worked.",
        )
    if share >= _FALLBACK or is_unpacked:
        how = "unpacked weights first and multiplied" if is_unpacked else "ran"
        in_format = f"{_percent(share)} of GEMM time in {_names(used)}"
        return False, f"{method} was asked for, and {how} in part in a plain format: {in_format}; {_most(rest)}."
    return True, (
        f"{method} was asked for, but {_percent(share)} of GEMM time ran in its format; {_most(rest)}. "
        "These figures are not those of the quantized model."
    )


def _is_of(kernels: ObservedKernels, wanted: KernelFormat) -> bool:
    return kernels.implementation in wanted.implementations or kernels.scheme in wanted.schemes


def _names(kernels: Sequence[ObservedKernels]) -> str:
    return " and ".join(dict.fromkeys(each.implementation for each in kernels))


def _most(kernels: Sequence[ObservedKernels]) -> str:
    first = kernels[0]
    scheme = f" ({first.scheme})" if first.scheme else ""
    return f"most GEMM time, {_percent(first.time_share)}, ran in {first.implementation}{scheme}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
