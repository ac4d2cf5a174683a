"""The distinct kernel names of a capture, by which reports rank kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.classify import op_family
from qmeter_native.attribution.grouped_sums import grouped_sums
from qmeter_native.attribution.shares import RULE_OF_FAMILY
from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.tables import KernelClassTable

__all__ = ["FAMILIES", "KernelNames"]

_Array = NDArray[Any]

FAMILIES: Final = tuple(OpFamily)


@dataclass(frozen=True, slots=True)
class KernelNames:
    """The distinct kernel names of a capture.

    Attributes:
        names: str, sorted.
        of_class: int64, index into ``names`` of each kernel class.
        families: Family of each name.
        rule: int64, `ShareRule` of each name.
        family: int64, position of each name's family in `OpFamily`.
    """

    names: list[str]
    of_class: _Array
    families: list[OpFamily]
    rule: _Array
    family: _Array

    @classmethod
    def of(cls, classes: KernelClassTable) -> KernelNames:
        """Names of all classes."""
        names = sorted(set(classes.name.tolist()))
        number = {name: index for index, name in enumerate(names)}
        families = [op_family(name) for name in names]
        return cls(
            names=names,
            of_class=np.array([number[name] for name in classes.name.tolist()], np.int64),
            families=families,
            rule=np.array([RULE_OF_FAMILY[family] for family in families], np.int64),
            family=np.array([FAMILIES.index(family) for family in families], np.int64),
        )

    @property
    def is_meter(self) -> _Array:
        """Mask of the names that are qmeter-native's own."""
        return np.array([family is OpFamily.METER for family in self.families], bool)

    def sums(self, of_class: _Array) -> _Array:
        """Sums by name, along the last axis, of figures by kernel class."""
        return grouped_sums(of_class, self.of_class, len(self.names))
