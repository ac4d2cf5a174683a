"""vLLM's scheduler output → one record a request."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.model.phase import Phase
from qmeter_native.storage.spool_records import RECORD_DTYPES, RecordKind

__all__ = ["BatchRows"]

_DTYPE = RECORD_DTYPES[RecordKind.STEP_REQUEST]


class BatchRows:
    """Reads the batches of one worker, in order.

    vLLM sends a request's data once, when it is first scheduled, and later only what has changed; so its number and
    the length of what must be prefilled are kept until it finishes.

    Args:
        number: Gives a request its number.
    """

    def __init__(self, number: Callable[[str], int]) -> None:
        self._number = number
        self._numbers: dict[str, int] = {}
        self._prompt_lens: dict[str, int] = {}
        self._prefill_lens: dict[str, int] = {}
        self._names: list[str] = []  # of the last batch, with what is looked up for each
        self._looked_up = np.zeros((2, 0), np.int32)

    def number_of(self, name: str) -> int:
        """The number of the request that vLLM calls ``name``, new if it was not scheduled yet."""
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = self._number(name)
        return number

    def forget(self, names: Iterable[str]) -> None:
        """These requests have finished; vLLM may use their ids again."""
        for name in names:
            self._numbers.pop(name, None)
            self._prompt_lens.pop(name, None)
            self._prefill_lens.pop(name, None)

    def read(self, step: int, output: Any) -> NDArray[Any]:
        """Records of kind STEP_REQUEST of one batch.

        ``context_len`` is vLLM's ``num_computed_tokens`` before the step. With drafts and asynchronous scheduling
        that counts drafts as accepted which the device may have refused: then it is an upper bound.

        Args:
            step: Its number.
            output: vLLM's ``SchedulerOutput``, with at least one token.
        """
        new, cached = output.scheduled_new_reqs, output.scheduled_cached_reqs
        for data in new:
            self._learn(data)
        for name in cached.resumed_req_ids:  # model runner V1; V2 gets resumed requests among the new ones
            self._prefill_lens[name] = self._prompt_lens[name] + cached.num_output_tokens[cached.req_ids.index(name)]
        names = [data.req_id for data in new] + cached.req_ids
        size = len(names)
        context = np.array([data.num_computed_tokens for data in new] + cached.num_computed_tokens, np.int32)
        scheduled = np.fromiter(map(output.num_scheduled_tokens.__getitem__, names), np.int32, size)
        if new or cached.resumed_req_ids or names != self._names:  # a batch that decodes stays as it is for long
            self._look_up(names)
        numbers, prefill = self._looked_up
        rows = np.zeros(size, _DTYPE)
        rows["step"] = step
        rows["request"] = numbers
        rows["phase"] = np.where(context < prefill, Phase.PREFILL, Phase.DECODE)
        rows["num_scheduled"] = scheduled
        rows["num_cached"][: len(new)] = context[: len(new)]
        rows["num_sampled"] = context + scheduled >= prefill
        rows["context_len"] = context
        for name in cached.resumed_req_ids:
            at = len(new) + cached.req_ids.index(name)
            rows["num_cached"][at] = context[at]
        if drafts := output.scheduled_spec_decode_tokens:
            rows["num_draft"] = [len(drafts.get(name, ())) for name in names]
        return rows

    def _look_up(self, names: list[str]) -> None:
        lookups = (self._numbers, self._prefill_lens)
        self._looked_up = np.array([[each[name] for name in names] for each in lookups], np.int32)
        self._names = names

    def _learn(self, data: Any) -> None:
        """Take a request that is scheduled for the first time, or again after preemption or with more input."""
        tokens = data.prompt_token_ids if data.prompt_token_ids is not None else data.prompt_embeds
        prefill = data.prefill_token_ids if data.prefill_token_ids is not None else tokens
        self.number_of(data.req_id)
        self._prompt_lens[data.req_id] = len(tokens)
        self._prefill_lens[data.req_id] = len(prefill)
