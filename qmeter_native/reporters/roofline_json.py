"""A roofline as one JSON document; ``roofline.schema.json`` and ``docs/roofline.md`` describe it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from qmeter_native.roofline.ceilings import DeviceCeilings
from qmeter_native.roofline.energy_floor import EnergyCosts
from qmeter_native.roofline.point import Demand, RooflinePoint
from qmeter_native.roofline.projection import Projection
from qmeter_native.roofline.roofline import Roofline

__all__ = ["ROOFLINE_SCHEMA_VERSION", "database_json", "roofline_document", "roofline_json"]

ROOFLINE_SCHEMA_VERSION: Final = 1
"""1: first version."""


def roofline_json(roofline: Roofline) -> str:
    """The document as text, without a trailing newline."""
    return json.dumps(roofline_document(roofline), indent=2, ensure_ascii=False, allow_nan=False)


def database_json(devices: Sequence[DeviceCeilings]) -> str:
    """The roofs of all GPUs of the database, ``{schema_version, gpus}``, each as ``ceilings`` of a roofline."""
    document = {"schema_version": ROOFLINE_SCHEMA_VERSION, "gpus": [_ceilings(device) for device in devices]}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)


def roofline_document(roofline: Roofline) -> dict[str, Any]:
    """The document as plain data. Every estimated figure is ``{value, low, high, method, reason, systematic}``."""
    return {
        "schema_version": ROOFLINE_SCHEMA_VERSION,
        "name": roofline.name,
        "ceilings": _ceilings(roofline.ceilings),
        "energy": None if roofline.costs is None else _costs(roofline.costs, roofline.ceilings),
        "time_s": roofline.time_s,
        "floor_s": roofline.floor_s,
        "known_share": roofline.known_share,
        "points": [_point(point) for point in roofline.points],
        "projections": [_projection(one) for one in roofline.projections],
        "notes": list(roofline.notes),
    }


def _ceilings(ceilings: DeviceCeilings) -> dict[str, Any]:
    """The roofs of one GPU."""
    chip = ceilings.chip
    return {
        "gpu": ceilings.gpu,
        "calibrated": ceilings.date or None,
        "roofs": [
            {
                "name": roof.name,
                "unit": roof.unit,
                "rate": roof.rate.to_dict(),
                "is_measured": roof.is_measured,
                "datasheet": roof.datasheet,
                "ridge": None if roof.unit == "B/s" else ceilings.ridge(roof.name),
            }
            for roof in ceilings.roofs.values()
        ],
        "sources": [] if chip is None else list(chip.sources),
        "verified": None if chip is None else chip.verified,
    }


def _costs(costs: EnergyCosts, ceilings: DeviceCeilings) -> dict[str, Any]:
    return {
        "byte_j": costs.byte_j.to_dict(),
        "operation_j": {name: costs.operation_j(name).to_dict() for name in ceilings.types},
        "balance": {name: costs.balance(name) for name in ceilings.types},
        "constant_w": costs.constant_w,
    }


def _point(point: RooflinePoint) -> dict[str, Any]:
    run = point.run
    return {
        "name": run.name,
        "label": run.label,
        "role": run.role,
        "op_family": run.op_family.value,
        "scheme": run.scheme,
        "launches": run.launches,
        "blocks": run.blocks,
        "time_s": run.time_s.to_dict(),
        "time_share": run.time_share,
        "demand": None if run.demand is None else _demand(run.demand),
        "bound": point.bound.value,
        "roof": point.roof,
        "floor_s": point.floor_s,
        "floors_s": dict(point.floors_s),
        "fraction": point.fraction.to_dict(),
        "intensity": point.intensity,
        "flops_per_s": point.flops_per_s,
        "bytes_per_s": point.bytes_per_s,
        "attainable_flops_per_s": point.attainable,
        "traffic": point.traffic,
        "energy_j": run.energy_j.to_dict(),
        "static_j": run.static_j.to_dict(),
        "is_resolved": run.is_resolved,
        "energy_floor_j": point.energy_floor_j.to_dict(),
        "energy_fraction": point.energy_fraction.to_dict(),
    }


def _demand(demand: Demand) -> dict[str, Any]:
    return {name: getattr(demand, name) for name in Demand.__slots__}


def _projection(projection: Projection) -> dict[str, Any]:
    return {
        "gpu": projection.gpu,
        "time_s": projection.time_s.to_dict(),
        "speedup": projection.speedup.to_dict(),
        "assumptions": list(projection.assumptions),
        "points": [
            {"time_s": point.time_s.to_dict(), "roof": point.roof, "fallback": point.fallback}
            for point in projection.points
        ],
    }
