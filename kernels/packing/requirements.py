"""What a format requires of a checkpoint's tensors and of a weight's values, refused by name where it is not met."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.checks import check_dtype, check_shape

__all__ = ["group_order", "integer_zeros", "required_field", "required_tensor", "same_values"]


def required_tensor(tensors: Mapping[str, Any], name: str, dtypes: Collection[Any], *shape: int | None) -> Any:
    """A checkpoint's tensor after a check of its type and shape (None: any size).

    Raises:
        UsageError: It is missing, or of another type or shape.
    """
    if name not in tensors:
        raise UsageError(f"the layer has no tensor {name}", f"It has {', '.join(sorted(tensors)) or 'none'}.")
    check_dtype(name, tensors[name], *dtypes)
    check_shape(name, tensors[name], *shape)
    return tensors[name]


def required_field(method: str, name: str, value: Any, allowed: Collection[Any]) -> Any:
    """A configuration's value after a check that it is among ``allowed``.

    Raises:
        UsageError: Naming the field, its value, and what is allowed.
    """
    if value not in allowed:
        raise UsageError(f"{method}: {name} is {value!r}", f"It must be {' or '.join(map(repr, allowed))}.")
    return value


def same_values(what: str, tensor: Any, dtype: Any) -> Any:
    """A tensor in another type, where that changes no value.

    Raises:
        UsageError: A value would be rounded or overflow.
    """
    converted = tensor.to(dtype)
    if not torch.equal(converted.to(torch.float64), tensor.to(torch.float64)):
        kind = str(dtype).removeprefix("torch.")
        raise UsageError(f"{what} ({str(tensor.dtype).removeprefix('torch.')}) do not fit {kind}", "Quantize anew.")
    return converted


def integer_zeros(weight: Any) -> Any:
    """The zero points of an `IntegerWeight` as uint8 ``[N, G]``; where it has none, those of a symmetric weight.

    Raises:
        UsageError: They are no integers, or not among the codes.
    """
    if weight.zeros is None:
        return torch.full_like(weight.scales, 1 << (weight.bits - 1), dtype=torch.uint8)
    zeros = weight.zeros
    if zeros.numel() and not 0 <= float(zeros.min()) <= float(zeros.max()) < 1 << weight.bits:
        raise UsageError(
            f"zero points reach from {float(zeros.min()):g} to {float(zeros.max()):g}",
            f"This format stores them as codes, 0 to {(1 << weight.bits) - 1}.",
        )
    return same_values("zero points", zeros, torch.uint8)


def group_order(tensors: Mapping[str, Any], name: str, num_inputs: int, group_size: int) -> Any | None:
    """The group of each input, int32 ``[K]``, from the tensor ``name``; None where it is ``k // group_size``.

    Raises:
        UsageError: The tensor is missing, of another type or shape, or names a group that there is not.
    """
    group_of = required_tensor(tensors, name, (torch.int32,), num_inputs)
    num_groups = -(-num_inputs // group_size)
    if not 0 <= int(group_of.min()) <= int(group_of.max()) < num_groups:
        raise UsageError(
            f"{name} reaches from {int(group_of.min())} to {int(group_of.max())}",
            f"{num_inputs} inputs in groups of {group_size} are groups 0 to {num_groups - 1}.",
        )
    plain = torch.arange(num_inputs, dtype=torch.int32, device=group_of.device) // group_size
    return None if torch.equal(group_of, plain) else group_of
