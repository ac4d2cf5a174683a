"""A quantization method: a name for a configuration that weights can be rounded to without calibration data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from qmeter_native.work.scheme import WeightLayout, read_scheme

__all__ = ["UNQUANTIZED", "Method"]


@dataclass(frozen=True, slots=True)
class Method:
    """A row of `qmeter_native.quantization.methods`.

    Attributes:
        name: As ``--quantization`` spells it.
        scheme: Label of its format, as `qmeter_native.kernels.catalog` has it.
        config: ``quantization_config`` of a checkpoint with such weights: it decides how weights are rounded, what
            inputs are, and which kernel multiplies them.
    """

    name: str
    scheme: str
    config: Mapping[str, Any]

    @property
    def layout(self) -> WeightLayout:
        """How its weights lie in memory, as the work model counts them."""
        scheme, _ = read_scheme(None, self.config, "float16")
        assert scheme is not None, self.name
        return scheme.weight


UNQUANTIZED: Final = Method("none", "W16A16", {})
"""No quantization: a checkpoint's weights as they are."""
