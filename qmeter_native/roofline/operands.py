"""In which type of operands the products of a served model run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from qmeter_native.attribution.capture_plan import CapturePlan
from qmeter_native.attribution.classify import scheme
from qmeter_native.work.role import LINEAR_ROLES, Role
from qmeter_native.work.scheme import Scheme

__all__ = ["Operands"]

_COMPUTE: Final = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float": "fp32"}


@dataclass(frozen=True, slots=True)
class Operands:
    """Types as `qmeter_native.roofline.ceilings.Roof` names them.

    Attributes:
        compute: Of attention and of layers that are not quantized; None if the engine did not say.
        narrow: Of linear layers that read quantized activations.
        formats: What the engine runs; None if not known.
    """

    compute: str | None
    narrow: str
    formats: Scheme | None

    @classmethod
    def of(cls, plan: CapturePlan) -> Operands:
        """Of a capture; 8-bit activations are integers if the name of any of its kernels says so."""
        engine = plan.capture.manifest.engine
        effective: Mapping[str, Any] = {} if engine is None else engine.effective
        fields = effective.get("hf_config") or effective.get("architecture") or {}
        dtype = effective.get("dtype") or fields.get("dtype") or fields.get("torch_dtype") or ""
        formats = plan.placed.model.scheme
        is_integer = any(name.startswith("W") and "A8-INT" in name for name in map(_scheme, plan.names.names))
        is_four = formats is not None and formats.activation_bits <= 4
        narrow = "fp4" if is_four else "int8" if is_integer else "fp8"
        return cls(_COMPUTE.get(str(dtype).removeprefix("torch.")), narrow, formats)

    def of_role(self, role: Role) -> str | None:
        """Of the products of a role; None if not known."""
        formats = self.formats
        if formats is None or role not in LINEAR_ROLES or formats.activation_bits > 8:
            return self.compute
        is_plain = role is Role.LM_HEAD and not formats.is_head_quantized
        return self.compute if is_plain else self.narrow


def _scheme(name: str) -> str:
    return scheme(name) or ""
