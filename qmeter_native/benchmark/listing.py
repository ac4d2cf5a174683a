"""What ``kernels list`` shows: formats, kernels, peers, and which of them run on this machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from qmeter_native.kernels.catalog import FORMATS, KERNELS, why_not_here

__all__ = ["FormatLine", "KernelLine", "KernelListing", "PeerLine", "kernel_listing"]


@dataclass(frozen=True, slots=True)
class FormatLine:
    """A format: its label, bits of a weight with scales, activations, where such weights are found, our kernels."""

    label: str
    bits: float
    activations: tuple[str, ...]
    checkpoints: str
    kernels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KernelLine:
    """A kernel of ours: name, package, formats, oldest compute capability, who calls it, why it does not run here."""

    name: str
    module: str
    formats: tuple[str, ...]
    minimum: str
    served_by: str
    why_not: str | None


@dataclass(frozen=True, slots=True)
class PeerLine:
    """Another project's kernel, its formats, and why it cannot be compared with here; None if it can."""

    name: str
    formats: tuple[str, ...]
    why_not: str | None


@dataclass(frozen=True, slots=True)
class KernelListing:
    """All of it; ``gpu`` is the GPU's name, None without one."""

    gpu: str | None
    compute_capability: str | None
    formats: tuple[FormatLine, ...]
    kernels: tuple[KernelLine, ...]
    peers: tuple[PeerLine, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"schema_version": 1, **asdict(self)}


def kernel_listing(gpu: tuple[str, tuple[int, int]] | None) -> KernelListing:
    """By the GPU's name and compute capability; None: there is none."""
    name, capability = (None, None) if gpu is None else gpu
    return KernelListing(
        gpu=name,
        compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
        formats=tuple(
            FormatLine(
                form.label,
                8 * form.layout.num_bytes(_SIDE, _SIDE) / _SIDE**2,
                form.activations,
                form.checkpoints,
                tuple(entry.name for entry in KERNELS if form.label in entry.formats),
            )
            for form in FORMATS
        ),
        kernels=tuple(
            KernelLine(
                entry.name,
                entry.module,
                entry.formats,
                f"{entry.minimum[0]}.{entry.minimum[1]}",
                entry.served_by,
                why_not_here(entry, capability),
            )
            for entry in KERNELS
        ),
        peers=_peers(),
    )


_SIDE = 4096
"""Of the matrix whose bits a weight are told: that of a model's layer."""


def _peers() -> tuple[PeerLine, ...]:
    from importlib.util import find_spec

    from qmeter_native.benchmark.peers import PEERS

    if find_spec("torch") is None:
        return tuple(PeerLine(name, (), "torch is not installed") for name in PEERS)
    from qmeter_native.benchmark.peers import find_peers

    here, absent = find_peers()
    formats: dict[str, tuple[str, ...]] = {}
    for contender in here:
        formats[contender.name] = (*formats.get(contender.name, ()), *contender.formats)
    lines = [PeerLine(name, labels, None) for name, labels in formats.items()]
    return (*lines, *(PeerLine(entry.kernel, (), entry.reason) for entry in absent))
