"""What a session knows about itself, as the statistics block ``session`` of its spool.

It is written again whenever it changes; the last block counts. So a capture can be finalized after its process was
killed, with everything that was known until then.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from qmeter_native.model.manifest import DeviceInfo, EngineInfo, Validity

__all__ = ["STATE_NAME", "SessionState"]

STATE_NAME = "session"


@dataclass(slots=True)
class SessionState:
    """Mutable while a session runs.

    ``cuda_devices`` gives for each CUDA ordinal, which is what CUPTI records hold, the index in ``devices``.
    Times are nanoseconds of CLOCK_REALTIME, 0 = has not happened.
    """

    start_ns: int
    devices: list[DeviceInfo]
    cuda_devices: list[int] = field(default_factory=list)
    measure_start_ns: int = 0
    measure_end_ns: int = 0
    end_ns: int = 0
    engine: EngineInfo | None = None
    workload: dict[str, Any] = field(default_factory=dict)
    validity: list[Validity] = field(default_factory=list)
    tracer: dict[str, Any] = field(default_factory=dict)
    counters: dict[str, Any] = field(default_factory=dict)
    profiles: dict[str, Any] = field(default_factory=dict)
    software: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, with the ``name`` that a statistics block needs."""
        return {"name": STATE_NAME, **asdict(self)}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> SessionState:
        """Inverse of `to_dict`."""
        values = {key: value for key, value in document.items() if key != "name"}
        engine = values.pop("engine")
        return cls(
            **{key: value for key, value in values.items() if key not in ("devices", "validity")},
            devices=[DeviceInfo(**device) for device in values["devices"]],
            validity=[Validity(**entry) for entry in values["validity"]],
            engine=None if engine is None else EngineInfo(**engine),
        )
