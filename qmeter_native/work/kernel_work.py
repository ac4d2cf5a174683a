"""What the kernels of one role in one layer have to do in each engine step: operations, and bytes that must move.

With T tokens in a step, S sampled positions, P places of padding, hidden size h, MLP width i, H query heads and G KV
heads of width d on this rank, b bytes of the compute type (a division by the tensor parallel size t is Megatron-LM's,
Shoeybi et al. 2019: columns of QKV, gate, up and LM head, rows of the output and down projections):

==============  =====  =====================  ========  ==================  =====================================
role            M      N                      K         operations          least bytes
==============  =====  =====================  ========  ==================  =====================================
qkv_proj        T      (H + 2 G) d            h         2 M N K             W(N, K) + M A(K) + M N b
o_proj          T      h                      H d       2 M N K             the same
gate_up_proj    T      2 i / t                h         2 M N K             the same
down_proj       T      h                      i / t     2 M N K             the same
lm_head         S      vocabulary / t         h         2 M N K             the same
attention       T      H d                    context   4 pairs H d         2 T H d b + 2 G d kv (context + T)
==============  =====  =====================  ========  ==================  =====================================

W is the packed size of the weights with their scales, A of a token's input with its scales (`Scheme`), kv the bytes of
an element of the cache. Pairs of query and key are causal: q new tokens on c cached ones make ``q c + q (q + 1) / 2``,
as `qmeter_native.attribution.shares` counts them; each costs 2 d operations for the score and 2 d for the value (Dao et
al. 2022). Softmax, norms, biases and scales are left out of the operations: less than 1 % of a layer's. Every byte
counts once, as if caches were perfect and nothing were read twice. Padding costs ``2 P N K`` in the decoder's linear
layers; attention skips it, and an engine takes the rows to sample before the LM head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.work.model_config import ModelConfig
from qmeter_native.work.role import LINEAR_ROLES, Role
from qmeter_native.work.scheme import Scheme

__all__ = ["KernelWork", "StepShapes", "kernel_work", "linear_shape"]

_Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class StepShapes:
    """What each engine step computes; int64, one entry a step.

    Attributes:
        num_tokens: Tokens scheduled.
        num_padding: Further places computed, to fill up a CUDA graph's size; 0 where the engine did not say.
        num_sampled: Positions sampled: one a sequence, and one a draft.
        num_pairs: Pairs of query and key.
        num_cached: Tokens whose keys and values attention reads, the new ones included.
        longest: Tokens of the longest sequence, the new ones included.
    """

    num_tokens: _Array
    num_padding: _Array
    num_sampled: _Array
    num_pairs: _Array
    num_cached: _Array
    longest: _Array

    @classmethod
    def of(
        cls, num_padded: _Array, step_row: _Array, num_scheduled: _Array, context_len: _Array, num_sampled: _Array
    ) -> StepShapes:
        """Sum up the riders of each step.

        Args:
            num_padded: One entry a step: tokens computed, padding included; -1 = unknown.
            step_row: One entry a rider, as all that follow: index of its step; below 0 = of none.
            num_scheduled: Tokens computed.
            context_len: Tokens in the KV cache before the step.
            num_sampled: Positions sampled.
        """
        known = step_row >= 0
        row, count = step_row[known], len(num_padded)
        new, old = num_scheduled[known].astype(np.int64), context_len[known].astype(np.int64)

        def total(values: _Array) -> _Array:
            sums = np.zeros(count, np.int64)
            np.add.at(sums, row, values)
            return sums

        num_tokens = total(new)
        longest = np.zeros(count, np.int64)
        np.maximum.at(longest, row, new + old)
        return cls(
            num_tokens=num_tokens,
            num_padding=np.maximum(num_padded.astype(np.int64) - num_tokens, 0),
            num_sampled=total(num_sampled[known].astype(np.int64)),
            num_pairs=total(new * old + new * (new + 1) // 2),
            num_cached=total(new + old),
            longest=longest,
        )


@dataclass(frozen=True, slots=True)
class KernelWork:
    """The work of one role in one layer, one entry a step.

    Attributes:
        m, n, k: Sizes of the matrix product, m int64 a step; None where it is none.
        flops: int64, operations on real tokens; None where they are not modelled.
        padding_flops: int64, operations on padding.
        least_bytes: int64, bytes between HBM and SMs; None where they are not modelled.
    """

    m: _Array | None
    n: int | None
    k: int | None
    flops: _Array | None
    padding_flops: _Array
    least_bytes: _Array | None


def linear_shape(role: Role, config: ModelConfig, tensor_parallel: int = 1) -> tuple[int, int]:
    """Outputs N and inputs K of a linear role on one rank; heads of KV are replicated if there are fewer than ranks."""
    width = math.ceil(config.intermediate_size / tensor_parallel)
    query, key = _head_widths(config, tensor_parallel)
    return {
        Role.QKV_PROJ: (query + 2 * key, config.hidden_size),
        Role.O_PROJ: (config.hidden_size, query),
        Role.GATE_UP_PROJ: (2 * width, config.hidden_size),
        Role.DOWN_PROJ: (config.hidden_size, width),
        Role.LM_HEAD: (math.ceil(config.vocab_size / tensor_parallel), config.hidden_size),
    }[role]


def kernel_work(
    role: Role, config: ModelConfig, scheme: Scheme, steps: StepShapes, tensor_parallel: int = 1
) -> KernelWork:
    """The work of ``role`` in one layer of a dense model on one rank, in every step."""
    if role in LINEAR_ROLES:
        return _linear(role, config, scheme, steps, tensor_parallel)
    if role is Role.ATTENTION:
        return _attention(config, scheme, steps, tensor_parallel)
    nothing = np.zeros_like(steps.num_tokens)
    moved = _moved(role, config, scheme, steps, tensor_parallel)
    return KernelWork(None, None, None, None, nothing, moved)


def _linear(role: Role, config: ModelConfig, scheme: Scheme, steps: StepShapes, ranks: int) -> KernelWork:
    n, k = linear_shape(role, config, ranks)
    m = steps.num_sampled if role is Role.LM_HEAD else steps.num_tokens
    padding = np.zeros_like(m) if role is Role.LM_HEAD else steps.num_padding
    a_token = scheme.input_bytes(role, k) + n * scheme.compute_bits / 8
    moved = np.where(m > 0, scheme.weight_of(role).num_bytes(n, k) + np.ceil(m * a_token), 0).astype(np.int64)
    return KernelWork(m, n, k, 2 * m * (n * k), 2 * padding * (n * k), moved)


def _attention(config: ModelConfig, scheme: Scheme, steps: StepShapes, ranks: int) -> KernelWork:
    """Nothing is known of steps whose sequences outgrow a sliding window, nor of them in total."""
    nothing = np.zeros_like(steps.num_tokens)
    if config.window is not None and (steps.longest > config.window).any():
        return KernelWork(None, None, None, None, nothing, None)
    query, key = _head_widths(config, ranks)
    flops = 4 * steps.num_pairs * query
    if scheme.kv_bits is None:
        return KernelWork(None, None, None, flops, nothing, None)
    moved = 2 * steps.num_tokens * query * scheme.compute_bits // 8 + 2 * steps.num_cached * key * scheme.kv_bits // 8
    return KernelWork(None, None, None, flops, nothing, moved)


def _moved(role: Role, config: ModelConfig, scheme: Scheme, steps: StepShapes, ranks: int) -> _Array | None:
    """Least bytes of a role that computes next to nothing.

    A norm reads its input and the residual, writes both, and reads its weight; the rotary embedding reads and writes
    queries and keys and reads a row of cosines and sines; the activation reads gate and up and writes their product;
    the cache takes new keys and values; sampling reads the logits.
    """
    tokens, bits, hidden = steps.num_tokens, scheme.compute_bits, config.hidden_size
    query, key = _head_widths(config, ranks)
    if role in (Role.INPUT_NORM, Role.POST_NORM, Role.FINAL_NORM):
        return np.where(tokens > 0, (4 * tokens + 1) * hidden * bits // 8, 0)
    if role is Role.KV_WRITE:
        return None if scheme.kv_bits is None else 2 * tokens * key * (bits + scheme.kv_bits) // 8
    elements = {
        Role.EMBEDDING: 2 * tokens * hidden,
        Role.ROPE: tokens * (2 * (query + key) + config.head_dim),
        Role.ACTIVATION: 3 * tokens * math.ceil(config.intermediate_size / ranks),
        Role.SAMPLING: steps.num_sampled * config.vocab_size,
    }.get(role)
    return None if elements is None else elements * bits // 8


def _head_widths(config: ModelConfig, ranks: int) -> tuple[int, int]:
    """Elements of a token's queries, and of its keys, on one rank."""
    key_heads = max(1, config.num_kv_heads // ranks)
    return config.num_heads // ranks * config.head_dim, key_heads * config.head_dim
