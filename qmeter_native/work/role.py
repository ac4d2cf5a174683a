"""What a kernel does in a decoder-only transformer: its place in a layer, or outside the layers."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from qmeter_native.model.op_family import OpFamily

__all__ = ["FAMILY_OF_ROLE", "LINEAR_ROLES", "UNKNOWN_ROLE", "Role"]

UNKNOWN_ROLE: Final = -1
"""In arrays of roles: the kernel's place is not known."""


class Role(IntEnum):
    """Places in the order in which a token meets them. Reports print the name in lower case.

    A projection includes what its input needs first (activation quantization, dequantized weights, a cleared
    workspace) and its split-K reduction. ``ROPE`` is everything between the QKV projection and the cache: rotary
    embedding, norms of queries and keys. ``OTHER`` is a place that is known to be none of the others: preparing a
    step's inputs, copies to the host.
    """

    EMBEDDING = 0
    INPUT_NORM = 1
    QKV_PROJ = 2
    ROPE = 3
    KV_WRITE = 4
    ATTENTION = 5
    O_PROJ = 6
    POST_NORM = 7
    GATE_UP_PROJ = 8
    ACTIVATION = 9
    DOWN_PROJ = 10
    FINAL_NORM = 11
    LM_HEAD = 12
    SAMPLING = 13
    COMMUNICATION = 14
    OTHER = 15


LINEAR_ROLES: Final = (Role.QKV_PROJ, Role.O_PROJ, Role.GATE_UP_PROJ, Role.DOWN_PROJ, Role.LM_HEAD)
"""The roles that are matrix products of activations with weights."""

FAMILY_OF_ROLE: Final[dict[Role, OpFamily]] = {
    Role.EMBEDDING: OpFamily.MEMORY,
    Role.INPUT_NORM: OpFamily.NORM,
    Role.ROPE: OpFamily.ACTIVATION,
    Role.KV_WRITE: OpFamily.KV_CACHE,
    Role.ATTENTION: OpFamily.ATTENTION,
    Role.POST_NORM: OpFamily.NORM,
    Role.ACTIVATION: OpFamily.ACTIVATION,
    Role.FINAL_NORM: OpFamily.NORM,
    Role.SAMPLING: OpFamily.SAMPLING,
    Role.COMMUNICATION: OpFamily.COMMUNICATION,
    Role.OTHER: OpFamily.MEMORY,
    **dict.fromkeys(LINEAR_ROLES, OpFamily.GEMM),
}
"""The family of a role's main kernel."""
