"""Energy of one device, given to what used its time: kernel names, roles, layers, phases, steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.energy_split import EnergySplit
from qmeter_native.attribution.grouped_sums import grouped_sums
from qmeter_native.attribution.kernel_names import KernelNames
from qmeter_native.attribution.time_sums import TimeSums
from qmeter_native.model.power_model import EnergyMode, PowerComponent
from qmeter_native.model.static_policy import StaticPolicy

__all__ = ["COMPONENTS", "EnergyUse", "Joules"]

_Array = NDArray[Any]

COMPONENTS: Final = (
    PowerComponent.DRAM.value,
    PowerComponent.L2.value,
    PowerComponent.TENSOR.value,
    PowerComponent.SM.value,
    "unknown",
)
"""Where dynamic joules are booked; the last is of kernels of which only the time is known."""
_UNKNOWN: Final = len(COMPONENTS) - 1


@dataclass(frozen=True, slots=True)
class Joules:
    """Energy of M things, float64 (M,) each; errors are standard errors.

    Attributes:
        energy_j, energy_error_j: By the report's policy: dynamic, and static where kernels get it.
        dynamic_j, dynamic_error_j: What kernels caused.
        static_j, static_error_j: Their part of idle and active power, by time.
        components_j: float64 (M, 5), ``dynamic_j`` by `COMPONENTS`.
        resolved_j: Of ``dynamic_j``, that of columns that the windows tell apart.
        modes_j: float64 (M, 3), ``dynamic_j`` by `EnergyMode`.
        marginal_j, marginal_error_j: One more launch, times ``launches``.
        launches: float64, launches that the time is worth.
    """

    energy_j: _Array
    energy_error_j: _Array
    dynamic_j: _Array
    dynamic_error_j: _Array
    static_j: _Array
    static_error_j: _Array
    components_j: _Array
    resolved_j: _Array
    modes_j: _Array
    marginal_j: _Array
    marginal_error_j: _Array
    launches: _Array

    def __add__(self, other: Joules) -> Joules:
        """Of two devices. Errors add too, as the models of equal devices err alike."""
        return Joules(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class EnergyUse:
    """A device's split energy (C columns) and who used the time that it is given by.

    Attributes:
        split: What the estimator says.
        policy: Who gets static joules.
        column: int64, one entry a row of `KernelClassTable`: its column.
        column_ns: float64 (C,), time of each column.
        column_j: float64 (C,), its energy by the policy.
        name_ns, group_ns, layer_ns: float64 (M, C), time of each kernel name, group of places, and layer.
        prefill_ns, ridden_ns: float64 (C,), time that prefills caused, and that any request caused.
        step_j: float64 ``(steps, rules)``, energy by step and rule of sharing, by the policy.
    """

    split: EnergySplit
    policy: StaticPolicy
    column: _Array
    column_ns: _Array
    column_j: _Array
    name_ns: _Array
    group_ns: _Array
    layer_ns: _Array
    prefill_ns: _Array
    ridden_ns: _Array
    step_j: _Array

    @classmethod
    def of(cls, split: EnergySplit, policy: StaticPolicy, names: KernelNames, sums: TimeSums) -> EnergyUse:
        """Give each column's joules to who used its time."""
        column, count = sums.classes.column, sums.classes.count
        kernel_w = split.kernel_w(policy)
        class_ns = sums.group_ns.sum(axis=0)
        name_ns = np.zeros((len(names.names), count))
        np.add.at(name_ns, (names.of_class, column), class_ns)

        def by_column(time_ns: _Array) -> _Array:
            return grouped_sums(time_ns.astype(float), column, count)

        return cls(
            split=split,
            policy=policy,
            column=column,
            column_ns=by_column(class_ns),
            column_j=(kernel_w * split.problem.time_s).sum(axis=0),
            name_ns=name_ns,
            group_ns=by_column(sums.group_ns),
            layer_ns=sums.layer_ns.astype(float),
            prefill_ns=by_column(sums.prefill_ns),
            ridden_ns=by_column(sums.ridden_ns),
            step_j=sums.step_j(kernel_w),
        )

    @property
    def phase_ns(self) -> _Array:
        """float64 (3, C): time that prefills, decodes and no request caused."""
        decode_ns, none_ns = self.ridden_ns - self.prefill_ns, self.column_ns - self.ridden_ns
        return np.asarray(np.maximum(np.stack([self.prefill_ns, decode_ns, none_ns]), 0.0))

    def joules(self, time_ns: _Array) -> Joules:
        """Energy of things that took ``time_ns`` (M, C) of each column's time."""
        split = self.split
        fraction = np.divide(time_ns, self.column_ns, out=np.zeros(time_ns.shape), where=self.column_ns > 0)
        parts_j = fraction * split.dynamic_j.sum(axis=0)
        dynamic_j, static_j = parts_j.sum(axis=1), fraction @ split.class_static_j
        whole_ns = max(float(self.column_ns.sum()), 1.0)
        active_s = time_ns.sum(axis=1) * (split.active_s / whole_ns)
        dynamic_error_j = split.error_j(parts_j, np.zeros(len(parts_j)))
        static_error_j = split.error_j(np.zeros_like(parts_j), active_s)
        launches = fraction * split.problem.units.sum(axis=0)
        marginal_j = launches @ split.marginal_j()
        is_separate = self.policy is StaticPolicy.SEPARATE
        return Joules(
            energy_j=fraction @ self.column_j,
            energy_error_j=dynamic_error_j if is_separate else split.error_j(parts_j, active_s),
            dynamic_j=dynamic_j,
            dynamic_error_j=dynamic_error_j,
            static_j=static_j,
            static_error_j=static_error_j,
            components_j=parts_j @ self._component_shares(),
            resolved_j=parts_j @ split.fit.is_resolved,
            modes_j=parts_j @ np.array([[mode is one for one in EnergyMode] for mode in split.problem.modes], float),
            marginal_j=marginal_j,
            marginal_error_j=np.divide(
                dynamic_error_j * marginal_j, dynamic_j, out=np.zeros_like(dynamic_j), where=dynamic_j > 0
            ),
            launches=launches.sum(axis=1),
        )

    def _component_shares(self) -> _Array:
        """float64 (C, 5): where each column's dynamic joules are booked; rows sum to 1."""
        fit, problem = self.split.fit, self.split.problem
        shares = np.zeros((len(fit.unit_j), len(COMPONENTS)))
        for number, feature in enumerate(fit.model.features):
            shares[:, COMPONENTS.index(feature.component.value)] += fit.components_j[:, number]
        total = shares.sum(axis=1)
        is_known = np.array([mode is not EnergyMode.TIME for mode in problem.modes], bool) & (total > 0)
        shares[~is_known] = np.eye(len(COMPONENTS))[_UNKNOWN]
        shares[is_known] /= total[is_known, None]
        return shares
