"""Which versions of vLLM this integration was tested with, and what it needs of any other."""

from __future__ import annotations

from typing import Final

from qmeter_native.capture.engine_recorder import EngineRecorder

__all__ = ["SCHEDULER_HOOKS", "TESTED_VERSIONS", "WORKER_HOOKS", "check_version"]

TESTED_VERSIONS: Final = ("0.26",)
"""Major and minor version; vLLM's interfaces of workers and schedulers change between them without notice."""

WORKER_HOOKS: Final = ("init_device", "compile_or_warm_up_model", "execute_model", "sample_tokens", "shutdown")
SCHEDULER_HOOKS: Final = ("add_request", "schedule", "update_from_output", "finish_requests", "shutdown")


def check_version(recorder: EngineRecorder, version: str, base: type, hooks: tuple[str, ...]) -> bool:
    """Whether ``base``, a class of vLLM, has what is overridden; says in the capture what is missing or untested.

    Args:
        recorder: Where it is said.
        version: vLLM's.
        base: Its worker or scheduler class.
        hooks: Names of the methods that must be there.
    """
    tested = ", ".join(f"{each}.x" for each in TESTED_VERSIONS)
    missing = [name for name in hooks if not callable(getattr(base, name, None))]
    if missing:
        recorder.warn(
            "vllm_hook_missing",
            f"{base.__name__} of vLLM {version} has no {', '.join(missing)}: nothing is recorded through it. "
            f"Tested versions: {tested}.",
        )
    elif ".".join(version.split(".")[:2]) not in TESTED_VERSIONS:
        recorder.warn(
            "untested_vllm",
            f"This is vLLM {version}; steps and requests were tested with {tested}. They may be wrong or incomplete.",
        )
    return not missing
