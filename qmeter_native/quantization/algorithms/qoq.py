"""QoQ as this project does it: progressive rounding to nearest, without QServe's rotation and smoothing.

No maintained library writes QServe's checkpoints. Ours have its tensors and its arithmetic (`kernels.packing.qoq`), and
codes that are further from the model than those of QServe's own calibration.
"""

from __future__ import annotations

from qmeter_native.quantization.algorithms.data_free import DataFree

__all__ = ["Qoq"]


class Qoq(DataFree):
    """See `Algorithm`."""
