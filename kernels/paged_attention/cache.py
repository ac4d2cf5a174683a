"""The pages of one layer's keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.checks import check_dtype, check_same_device, check_shape
from qmeter_native.kernels.packing.kv_cache import KvCacheFormat

__all__ = ["HEAD_SIZES", "PagedKvCache"]

HEAD_SIZES = tuple(range(64, 257, 16))
"""Elements of a head that kernels read: whole vectors of 16 bytes of 8-bit codes."""


@dataclass(frozen=True, slots=True)
class PagedKvCache:
    """Keys and values of one layer, G heads of D elements, in P pages of a fixed number of tokens.

    Tensors are given in the order page, token, head, whatever their strides; the last dimension has no gaps. So the
    views of vLLM's caches fit in both of its memory orders (``NHD``, ``HND``).

    Attributes:
        form: How elements are stored.
        keys, values: ``[P, page_size, G, D]``; ``[..., D / 2]`` bytes of four-bit codes.
        key_scales, value_scales: None; float32 ``[G]``; float32 ``[P, page_size, G]``; or float16
            ``[P, page_size, G, 2]``, scale and minimum: as `KvCacheFormat` has it.
    """

    form: KvCacheFormat
    keys: Any
    values: Any
    key_scales: Any = None
    value_scales: Any = None

    @classmethod
    def empty(
        cls, form: KvCacheFormat, num_pages: int, page_size: int, num_kv_heads: int, head_size: int, device: Any
    ) -> PagedKvCache:
        """Zeros, a page's tokens of one head next to each other in memory; scales by head are 1.

        Raises:
            UsageError: Of a page's or a head's size that kernels do not read.
        """

        def pages(*last: int, dtype: Any) -> Any:
            return torch.zeros(num_pages, num_kv_heads, page_size, *last, dtype=dtype, device=device).transpose(1, 2)

        def scales() -> Any | None:
            if form.scaling == "none":
                return None
            if form.scaling == "head":
                return torch.ones(num_kv_heads, dtype=torch.float32, device=device)
            return pages(*((2,) if form.bits == 4 else ()), dtype=form.scale_dtype)

        stored = form.stored_size(head_size)
        cache = cls(form, pages(stored, dtype=form.dtype), pages(stored, dtype=form.dtype), scales(), scales())
        cache.check()
        return cache

    @property
    def page_size(self) -> int:
        """Tokens of a page."""
        return int(self.keys.shape[1])

    @property
    def num_kv_heads(self) -> int:
        """G."""
        return int(self.keys.shape[2])

    @property
    def head_size(self) -> int:
        """D."""
        return int(self.keys.shape[3]) * (2 if self.form.bits == 4 else 1)

    def check(self) -> None:
        """Refuse tensors of another type, shape or order than kernels read.

        Raises:
            UsageError: Naming the tensor.
        """
        form = self.form
        check_shape("keys", self.keys, None, None, None, None)
        check_shape("values", self.values, *self.keys.shape)
        for name, tensor in (("keys", self.keys), ("values", self.values)):
            check_dtype(name, tensor, form.dtype)
            if tensor.stride(3) != 1:
                raise UsageError(f"{name} have strides {tensor.stride()}", "The elements of a head must have no gaps.")
        if self.head_size not in HEAD_SIZES:
            raise UsageError(
                f"heads have {self.head_size} elements", "They must have a multiple of 16, from 64 to 256."
            )
        if self.page_size == 0 or self.page_size % 16:
            raise UsageError(f"pages have {self.page_size} tokens", "They must have a multiple of 16.")
        self._check_scales("key_scales", self.key_scales)
        self._check_scales("value_scales", self.value_scales)
        tensors = {"keys": self.keys, "values": self.values}
        check_same_device(**tensors, key_scales=self.key_scales, value_scales=self.value_scales)

    def _check_scales(self, name: str, scales: Any | None) -> None:
        form = self.form
        if (scales is None) != (form.scaling == "none"):
            raise UsageError(
                f"{name} {'are missing' if scales is None else 'are given'}", f"The format is {form.name}."
            )
        if scales is None:
            return
        check_dtype(name, scales, form.scale_dtype)
        if form.scaling == "head":
            check_shape(name, scales, self.num_kv_heads)
            return
        pair = (2,) if form.bits == 4 else ()
        check_shape(name, scales, *self.keys.shape[:3], *pair)
        if pair and scales.stride(3) != 1:
            raise UsageError(f"{name} have strides {scales.stride()}", "Scale and minimum must be neighbours.")
