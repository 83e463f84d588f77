"""Calibration samples that are in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


class Samples:
    """Calibration samples in memory."""

    def __init__(self, **feeds: np.ndarray) -> None:
        self.feeds = feeds

    def batches(self, samples: int, batch_size: int) -> Iterator[dict[str, npt.NDArray[np.generic]]]:
        """The first rows, in batches."""
        rows = min(samples, *map(len, self.feeds.values()))
        for start in range(0, rows, batch_size):
            yield {name: feed[start : min(start + batch_size, rows)] for name, feed in self.feeds.items()}

    def batch_size(self, largest: int) -> int:
        """As many as there may be."""
        return largest
