"""Evens out huge channels before weights are rounded in blocks, by exact powers of two.

A channel far larger than its neighbours takes the resolution of the block that they share: that of the
activations while the model runs, and that of the weights which read it, which are small in turn. Where a
channel is only multiplied and added on its way (`channel_places`), its size is a matter of choice: here it
becomes that of the other channels. Channels within ordinary bounds keep their bytes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .channel_places import places
from .checkpoint import Checkpoint, row_ranges
from .quantize import FloatRows
from .tensor_map import TensorSpec

# A channel is an outlier if it is larger, or smaller, than the others by 2 to this power.
OUTLIER_LOG2 = 2

_Vector = npt.NDArray[np.float32]


class Equalization:
    """Factors for the rows and columns of tensors that together leave the function of the model as it is."""

    def __init__(self, source: Checkpoint, specs: list[TensorSpec]) -> None:
        """Reads the magnitudes of `specs`, all tensors that will be scaled, and chooses the factors."""
        self._rows: dict[str, _Vector] = {}
        self._columns: dict[str, _Vector] = {}
        by_name = {spec.hf_name: spec for spec in specs}
        magnitudes: dict[str, tuple[_Vector, _Vector]] = {}
        for place in places(source.config):
            names = (*place.producers, *place.consumers)
            if not all(name in by_name for name in names):
                continue
            for name in names:
                if name not in magnitudes:
                    magnitudes[name] = _magnitudes(source, by_name[name])
            made = np.max([magnitudes[name][0] for name in place.producers], axis=0)
            read = np.max([magnitudes[name][1][place.columns].max(1) for name in place.consumers], axis=0)
            factors = _factors(made, read)
            if (factors == 1).all():
                continue
            for name in place.producers:
                self._rows[name] = np.reciprocal(factors)
            for name in place.consumers:
                self._columns[name] = np.ones(len(magnitudes[name][1]), np.float32)
                self._columns[name][place.columns] = factors[:, None]

    def apply(self, values: FloatRows, name: str, start: int) -> FloatRows:
        """Returns rows of the tensor `name`, those from `start` on, scaled; float32 [rows, row_elements]."""
        if name in self._rows:
            values = values * self._rows[name][start : start + len(values), None]
        if name in self._columns:
            values = values * self._columns[name]
        return values


def _magnitudes(source: Checkpoint, spec: TensorSpec) -> tuple[_Vector, _Vector]:
    """Returns the largest magnitude in each row and in each column of a tensor."""
    rows, columns = [], []
    for start, stop in row_ranges(spec):
        values = np.abs(source.read_rows(spec, start, stop).values)
        rows.append(values.max(1))
        columns.append(values.max(0))
    return np.concatenate(rows), np.max(columns, axis=0)


def _factors(made: _Vector, read: _Vector) -> _Vector:
    """Returns for each channel what makes its tensors as unequal as those of the median channel are.

    Args:
        made: The largest weight that makes a channel, [channels].
        read: The largest weight that reads it, [channels].

    Returns:
        A power of two for each channel, 1 unless it is an outlier. It is for the weights that read the
        channel; those that make it are to be divided by it.
    """
    factors = np.ones(len(made), np.float32)
    used = (made > 0) & (read > 0)
    if used.any():
        ratios = np.log2(made[used]) - np.log2(read[used])
        exponents = np.round((ratios - np.median(ratios)) / 2)
        factors[used] = np.exp2(np.where(np.abs(exponents) >= OUTLIER_LOG2, exponents, 0))
    return factors
