"""The parts of the benchmark, one file each: ``run(bench, models, section)`` fills a section."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quantization.sections import calibration, mixed_precision, models, portability, transformer
from quantization.table import Section
from quantization.workbench import Workbench

SECTIONS: dict[str, Callable[[Workbench, Sequence[str], Section], None]] = {
    "calibration": calibration.run,
    "models": models.run,
    "mixed_precision": mixed_precision.run,
    "transformer": transformer.run,
    "portability": portability.run,
}
