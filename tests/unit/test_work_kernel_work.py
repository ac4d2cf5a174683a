"""Operations and bytes of Llama 3.1 8B, worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmeter_native.engines.model_shapes import shape_of
from qmeter_native.work.kernel_work import KernelWork, StepShapes, kernel_work, linear_shape
from qmeter_native.work.model_config import ModelConfig, read_model_config
from qmeter_native.work.role import Role
from qmeter_native.work.scheme import Scheme, WeightLayout, read_scheme

BF16 = Scheme(WeightLayout(16))
PARAMETERS = 8_030_261_248
"""As transformers counts Llama 3.1 8B's."""


def llama(**changes: Any) -> ModelConfig:
    config, reason = read_model_config({**shape_of("llama-3.1-8b").config, **changes})
    assert config is not None, reason
    return config


LLAMA = llama()


def shapes(*riders: tuple[int, int, int], num_padded: int = -1) -> StepShapes:
    """One step of riders (tokens scheduled, context, sampled)."""
    scheduled, context, sampled = np.array(riders).reshape(-1, 3).T
    return StepShapes.of(np.array([num_padded]), np.zeros(len(scheduled), np.int64), scheduled, context, sampled)


def work(
    role: Role, steps: StepShapes, scheme: Scheme = BF16, ranks: int = 1, config: ModelConfig = LLAMA
) -> KernelWork:
    return kernel_work(role, config, scheme, steps, ranks)


DECODE_1 = shapes((1, 1000, 1))


@pytest.mark.parametrize(
    ("role", "shape"),
    [
        (Role.QKV_PROJ, (6144, 4096)),
        (Role.O_PROJ, (4096, 4096)),
        (Role.GATE_UP_PROJ, (28672, 4096)),
        (Role.DOWN_PROJ, (4096, 14336)),
        (Role.LM_HEAD, (128256, 4096)),
    ],
)
def test_linear_layers_have_their_shapes(role: Role, shape: tuple[int, int]) -> None:
    assert linear_shape(role, LLAMA) == shape


def test_the_linear_layers_are_all_parameters_but_embedding_and_norms() -> None:
    layer = sum(n * k for n, k in (linear_shape(role, LLAMA) for role in list(Role)[:11] if "PROJ" in role.name))
    head_n, head_k = linear_shape(Role.LM_HEAD, LLAMA)
    assert 32 * layer + 2 * head_n * head_k + 65 * 4096 == PARAMETERS


def test_a_decode_of_one_sequence_reads_the_weights_once() -> None:
    qkv = work(Role.QKV_PROJ, DECODE_1)
    assert (qkv.m, qkv.n, qkv.k) == (1, 6144, 4096)
    assert qkv.flops == 50_331_648
    assert qkv.least_bytes == 50_331_648 + 2 * 4096 + 2 * 6144
    assert work(Role.LM_HEAD, DECODE_1).least_bytes == 1_050_673_152 + 2 * 4096 + 2 * 128256


def test_a_gptq_decode_reads_codes_and_scales() -> None:
    gptq, _ = read_scheme("gptq", {"bits": 4, "group_size": 128}, "bfloat16")
    assert gptq is not None
    assert work(Role.QKV_PROJ, DECODE_1, gptq).least_bytes == 12_582_912 + 393_216 + 2 * 4096 + 2 * 6144
    assert work(Role.LM_HEAD, DECODE_1, gptq).least_bytes == 1_050_673_152 + 2 * 4096 + 2 * 128256


def test_a_decode_attends_to_all_that_is_cached_and_itself() -> None:
    attention = work(Role.ATTENTION, DECODE_1)
    assert attention.flops == 4 * 1001 * 32 * 128
    assert attention.least_bytes == 2 * 4096 * 2 + 2 * 1001 * 1024 * 2
    half = Scheme(WeightLayout(16), kv_bits=8)
    assert work(Role.ATTENTION, DECODE_1, half).least_bytes == 2 * 4096 * 2 + 2 * 1001 * 1024


def test_a_prompt_attends_causally() -> None:
    assert work(Role.ATTENTION, shapes((512, 0, 1))).flops == 4 * 131_328 * 4096


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 60)), min_size=1, max_size=5))
def test_pairs_are_counted_one_by_one(riders: list[tuple[int, int]]) -> None:
    steps = shapes(*((new, old, 1) for new, old in riders))
    assert steps.num_pairs[0] == sum(old + position + 1 for new, old in riders for position in range(new))


def test_two_chunks_of_a_prompt_attend_as_much_as_the_whole() -> None:
    whole = work(Role.ATTENTION, shapes((700, 0, 1))).flops
    parts = [work(Role.ATTENTION, step).flops for step in (shapes((300, 0, 0)), shapes((400, 300, 1)))]
    assert whole is not None
    assert whole == parts[0] + parts[1]


def test_padding_has_its_own_operations() -> None:
    steps = shapes(*[(1, 10, 1)] * 5, num_padded=8)
    down = work(Role.DOWN_PROJ, steps)
    assert down.flops == 5 * 2 * 4096 * 14336
    assert down.padding_flops == 3 * 2 * 4096 * 14336
    assert work(Role.LM_HEAD, steps).padding_flops == 0
    assert work(Role.ATTENTION, steps).padding_flops == 0


def test_a_step_that_samples_nothing_needs_no_head() -> None:
    head = work(Role.LM_HEAD, shapes((512, 0, 0)))
    assert (head.flops, head.least_bytes) == (0, 0)


def test_ranks_share_the_work() -> None:
    assert linear_shape(Role.QKV_PROJ, LLAMA, 2) == (3072, 4096)
    assert linear_shape(Role.DOWN_PROJ, LLAMA, 4) == (4096, 3584)
    assert linear_shape(Role.LM_HEAD, LLAMA, 8) == (16032, 4096)
    alone, shared = work(Role.ATTENTION, DECODE_1).flops, work(Role.ATTENTION, DECODE_1, ranks=2).flops
    assert alone is not None
    assert shared is not None
    assert alone == 2 * shared


def test_heads_of_keys_are_replicated_when_ranks_outnumber_them() -> None:
    assert linear_shape(Role.QKV_PROJ, LLAMA, 16) == (2 * 128 + 2 * 128, 4096)


def test_small_roles_move_what_they_read_and_write() -> None:
    steps = shapes((1, 1000, 1), (1, 7, 1))
    assert work(Role.POST_NORM, steps).least_bytes == (4 * 2 + 1) * 4096 * 2
    assert work(Role.ACTIVATION, steps).least_bytes == 3 * 2 * 14336 * 2
    assert work(Role.KV_WRITE, steps).least_bytes == 2 * 2 * 1024 * 4
    assert work(Role.ROPE, steps).least_bytes == 2 * (2 * 5120 + 128) * 2
    assert work(Role.EMBEDDING, steps).least_bytes == 2 * 2 * 4096 * 2
    assert work(Role.SAMPLING, steps).least_bytes == 2 * 128256 * 2
    assert work(Role.POST_NORM, steps).flops is None
    assert work(Role.OTHER, steps).least_bytes is None


def test_a_window_that_was_outgrown_is_not_modelled() -> None:
    config = llama(model_type="mistral", sliding_window=512)
    assert work(Role.ATTENTION, shapes((1, 511, 1)), config=config).flops is not None
    assert work(Role.ATTENTION, shapes((1, 512, 1)), config=config).flops is None


def test_a_cache_of_unknown_format_has_operations_but_no_bytes() -> None:
    attention = work(Role.ATTENTION, DECODE_1, Scheme(WeightLayout(16), kv_bits=None))
    assert attention.flops is not None
    assert attention.least_bytes is None


def test_riders_of_no_step_do_not_count() -> None:
    steps = StepShapes.of(np.array([-1, -1]), np.array([1, -1]), np.array([3, 9]), np.array([0, 0]), np.array([1, 1]))
    assert steps.num_tokens.tolist() == [0, 3]
    assert work(Role.QKV_PROJ, steps).least_bytes is not None
    assert work(Role.QKV_PROJ, steps).least_bytes.tolist()[0] == 0
