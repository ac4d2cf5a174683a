"""Refusals of arguments before anything is launched: each names the argument, what it is, and what is allowed."""

from __future__ import annotations

from typing import Any

from qmeter_native.errors import DeviceError, UsageError

__all__ = [
    "check_capability",
    "check_contiguous",
    "check_dtype",
    "check_float_matrix",
    "check_same_device",
    "check_shape",
]


def check_dtype(name: str, tensor: Any, *allowed: Any) -> None:
    """Refuse a tensor of another type than ``allowed``."""
    if tensor.dtype not in allowed:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
        raise UsageError(f"{name} is {str(tensor.dtype).removeprefix('torch.')}", f"It must be {names}.")


def check_shape(name: str, tensor: Any, *expected: int | None) -> None:
    """Refuse a tensor of another shape; None stands for any size."""
    sizes = tuple(tensor.shape)
    if len(sizes) != len(expected) or any(want not in (None, have) for have, want in zip(sizes, expected, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in expected)
        raise UsageError(f"{name} has shape ({', '.join(map(str, sizes))})", f"It must be ({wanted}).")


def check_float_matrix(name: str, tensor: Any) -> None:
    """Refuse what is no matrix of finite floating-point numbers, such as a weight that is to be quantized."""
    check_shape(name, tensor, None, None)
    if not tensor.is_floating_point():
        raise UsageError(f"{name} is {str(tensor.dtype).removeprefix('torch.')}", "It must be floating point.")
    if not bool(tensor.isfinite().all()):
        raise UsageError(f"{name} holds {int((~tensor.isfinite()).sum())} values that are not finite", None)


def check_contiguous(name: str, tensor: Any) -> None:
    """Refuse a tensor whose last dimension is strided, or whose rows have gaps."""
    if not tensor.is_contiguous():
        raise UsageError(f"{name} has strides {tuple(tensor.stride())}", f"Give {name}.contiguous().")


def check_same_device(**tensors: Any) -> None:
    """Refuse tensors on several devices."""
    devices = {name: tensor.device for name, tensor in tensors.items() if tensor is not None}
    first_name, first = next(iter(devices.items()))
    for name, device in devices.items():
        if device != first:
            raise UsageError(f"{name} is on {device}, and {first_name} on {first}", "They must be on one device.")


def check_capability(
    what: str,
    device: Any,
    minimum: tuple[int, int],
    hint: str = "`qmeter-native kernels list` shows what runs on this machine.",
) -> None:
    """Refuse a GPU that is older than ``minimum``; the CPU of Triton's interpreter passes.

    Raises:
        DeviceError: Naming the GPU.
    """
    import torch

    if device.type != "cuda":
        return
    capability = torch.cuda.get_device_capability(device)
    if capability < minimum:
        raise DeviceError(
            f"{what} needs compute capability {minimum[0]}.{minimum[1]}, and {torch.cuda.get_device_name(device)} has "
            f"{capability[0]}.{capability[1]}",
            hint,
        )
