"""Why a request took as long as it did."""

from __future__ import annotations

from dataclasses import dataclass

from qmeter_native.model.op_family import OpFamily

__all__ = ["ExplainedPart", "RequestExplanation"]


@dataclass(frozen=True, slots=True)
class ExplainedPart:
    """One stretch of a request's elapsed time, summed over where it occurs.

    Attributes:
        kind: ``queue`` (sent, and its first step had not begun on the device), ``kernels`` (a kernel ran in a step it
            rode), ``idle_in_steps`` (none did, inside such a step), ``gaps`` (between two steps it rode), ``preempted``
            (the gaps in which it had been put back into the queue), ``untraced`` (a step it rode, or a gap beside one
            whose markers are missing, while kernels were not recorded) or ``host`` (from its last step to its last
            chunk).
        phase: ``prefill`` or ``decode`` for what happened in steps, by its own phase there (of an untraced gap, that
            of the step before); None outside steps.
        op_family: Of ``kernels``: what for; None else.
        time_ns: Nanoseconds. Where kernels overlap, each gets its even share, as everywhere.
    """

    kind: str
    phase: str | None
    op_family: OpFamily | None
    time_ns: int


@dataclass(frozen=True, slots=True)
class RequestExplanation:
    """A request's end-to-end time in parts that add up to it exactly.

    Attributes:
        request: RequestTable.request.
        name: The engine's id.
        reason: Why it is explained: ``asked for``, ``p50 of end-to-end time`` …
        process: ProcessInfo.index of the rank whose steps are told; with several ranks the one that is busiest in them.
        end_to_end_ns: Client send to last chunk.
        parts: In order of occurrence: queue, prefill kernels by family (longest first), prefill idle, decode likewise,
            gaps, preempted, untraced, host.
        num_steps: Steps it rode.
        residual_ns: ``end_to_end - Σ parts``; 0.
        is_client: The stamps are the client's; False: the engine's own, which know nothing of the network.
    """

    request: int
    name: str
    reason: str
    process: int
    end_to_end_ns: int
    parts: tuple[ExplainedPart, ...]
    num_steps: int
    residual_ns: int
    is_client: bool
