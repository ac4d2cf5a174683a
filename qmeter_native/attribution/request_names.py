"""Which request is meant by what somebody typed."""

from __future__ import annotations

import difflib
import re
from typing import Final

from qmeter_native.errors import UsageError
from qmeter_native.model.tables import RequestTable

__all__ = ["find_request"]

_NUM_NEAR: Final = 5


def find_request(requests: RequestTable, wanted: str) -> int:
    """Number of the request that goes by ``wanted``: its name, its number, or an engine's id made from its name.

    Args:
        requests: All requests.
        wanted: What was typed. An engine's id such as ``cmpl-NAME-0-1a2b`` means the request NAME; where several names
            are in it, the longest.

    Raises:
        UsageError: No request goes by that; the message lists near ones.
    """
    names: list[str] = requests.name.tolist()
    numbers: list[int] = requests.request.tolist()
    by_name = dict(zip(reversed(names), reversed(numbers), strict=True))
    if wanted in by_name:
        return by_name[wanted]
    if wanted.isdecimal() and int(wanted) in numbers:
        return int(wanted)
    inside = [
        name for name in by_name if name and re.search(rf"(?<![0-9A-Za-z]){re.escape(name)}(?![0-9A-Za-z])", wanted)
    ]
    if inside:
        return by_name[max(inside, key=len)]
    within = [name for name in names if wanted in name]
    near = within[:_NUM_NEAR] or difflib.get_close_matches(wanted, names, _NUM_NEAR, 0.3) or names[:_NUM_NEAR]
    listed = ", ".join(near) or "none: the capture has no requests"
    raise UsageError(f"no request goes by {wanted!r}", f"Near ones: {listed}. A number from 0 does too.")
