"""What one call of a kernel over a paged KV cache has to do: operations, and bytes that must move."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qmeter_native.work.gemm_work import Work

__all__ = ["KvLayout", "attention_work", "kv_write_work"]


@dataclass(frozen=True, slots=True)
class KvLayout:
    """How keys and values lie in a paged cache.

    Attributes:
        bits: Bits of an element.
        scale_bits, zero_bits: Bits of the scale and of the zero point of a group; 0 = none is read per token (FP8's
            scales of a layer).
        group: Elements of a head that share them; 0 = the whole head.
    """

    bits: int = 16
    scale_bits: int = 0
    zero_bits: int = 0
    group: int = 0

    def token_bytes(self, num_kv_heads: int, head_dim: int) -> float:
        """Bytes of one token's keys and values in one layer."""
        groups = math.ceil(head_dim / self.group) if self.group else 1
        return 2 * num_kv_heads * (head_dim * self.bits + groups * (self.scale_bits + self.zero_bits)) / 8


def attention_work(
    layout: KvLayout,
    num_tokens: int,
    num_cached: int,
    num_pairs: int,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    query_bits: float = 16,
) -> Work:
    """The work of attention of one layer over a paged cache; a page table's 4 bytes a page are left out.

    Args:
        layout: The cache.
        num_tokens: Queries, over all sequences: in decoding one a sequence.
        num_cached: Tokens whose keys and values are read, over all sequences.
        num_pairs: Pairs of query and key; in decoding ``num_cached``. Each costs 2 d operations for the score and 2 d
            for the value (Dao et al. 2022).
        num_heads: Heads of queries.
        num_kv_heads: Heads of keys and values.
        head_dim: Width of a head.
        query_bits: Bits of an element of the queries and of the output.
    """
    queries = math.ceil(num_tokens * num_heads * head_dim * query_bits / 8)
    cached = math.ceil(num_cached * layout.token_bytes(num_kv_heads, head_dim))
    return Work(4 * num_pairs * num_heads * head_dim, queries + cached, queries)


def kv_write_work(layout: KvLayout, num_tokens: int, num_kv_heads: int, head_dim: int, input_bits: float = 16) -> Work:
    """The work of writing (and quantizing) new keys and values of one layer into pages."""
    read = math.ceil(2 * num_tokens * num_kv_heads * head_dim * input_bits / 8)
    return Work(0, read, math.ceil(num_tokens * layout.token_bytes(num_kv_heads, head_dim)))
