"""One peer, in a process of its own: ``python -m quantization.peers`` with a task on standard input.

Runs by the interpreter that has the peers, so that it needs NumPy, onnx, onnxruntime and, for some, nncf.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from quantization.bundle import Array, Bundle, Samples

_BATCH = 16
_OPERATORS = ["Conv", "MatMul", "Gemm"]
_OPSET = 17

Work = Callable[[], None]


class Reader:
    """Samples as ONNX Runtime's calibrators ask for them, one a call."""

    def __init__(self, feeds: Iterator[dict[str, Array]]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, Array] | None:
        """The next sample, None after the last."""
        return next(self._feeds, None)


def onnxruntime_static(bundle: Bundle, result: Path, method: str) -> Work:
    """``quantize_static`` as it comes, but for the calibration method."""
    from onnxruntime.quantization import CalibrationMethod, quantize_static

    samples = Samples(bundle, "train")
    return lambda: quantize_static(
        bundle.model, result, Reader(samples.feeds()), calibrate_method=CalibrationMethod[method]
    )


def onnxruntime_careful(bundle: Bundle, result: Path) -> Work:
    """``quantize_static`` as one who knows its traps calls it.

    Opset 17, its own pre-processing without symbolic shapes, unsigned activations, weights by channel, and only the
    operators that are fast.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    samples = Samples(bundle, "train")

    def work() -> None:
        proto = onnx.load(bundle.model)
        if next(entry.version for entry in proto.opset_import if entry.domain in {"", "ai.onnx"}) < _OPSET:
            proto = onnx.version_converter.convert_version(proto, _OPSET)
        raised, ready = result.with_suffix(".raised.onnx"), result.with_suffix(".ready.onnx")
        onnx.save(proto, raised)
        quant_pre_process(raised, ready, skip_symbolic_shape=True)
        quantize_static(
            ready, result, Reader(samples.feeds()), op_types_to_quantize=_OPERATORS, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip

    return work


def onnxruntime_dynamic(bundle: Bundle, result: Path) -> Work:
    """``quantize_dynamic`` as it comes."""
    from onnxruntime.quantization import quantize_dynamic

    return lambda: quantize_dynamic(bundle.model, result)


def nncf_quantize(bundle: Bundle, result: Path, *, transformer: bool = False) -> Work:
    """``nncf.quantize`` as it comes."""
    import nncf  # type: ignore[import-not-found]
    import onnx

    samples = Samples(bundle, "train")
    kind = nncf.ModelType.TRANSFORMER if transformer else None

    def work() -> None:
        model = onnx.load(bundle.model)
        data = nncf.Dataset(list(samples.spans()), lambda span: samples.feed(*span))
        onnx.save(nncf.quantize(model, data, subset_size=len(samples), model_type=kind), result)

    return work


def nncf_accuracy_control(bundle: Bundle, result: Path, max_drop: float) -> Work:
    """``nncf.quantize_with_accuracy_control`` as it comes, calibrated on ``train`` and validated on ``test``."""
    import nncf
    import onnx
    import onnxruntime

    from quantization.metrics import Judge, value

    samples, judged = Samples(bundle, "train"), Samples(bundle, "test")

    def validate(model: Any, spans: Iterable[tuple[int, int]]) -> tuple[float, None]:
        native = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        judge = Judge(bundle, judged)
        for span in spans:
            (output,) = native.run([bundle.binding["output"]], judged.feed(*span))
            judge.add(output, *span)
        return value(judge.outcome()), None

    def work() -> None:
        made = nncf.quantize_with_accuracy_control(
            onnx.load(bundle.model),
            nncf.Dataset(list(samples.spans()), lambda span: samples.feed(*span)),
            nncf.Dataset(list(judged.spans(batch=_BATCH)), lambda span: judged.feed(*span)),
            validate,
            max_drop=max_drop,
            subset_size=len(samples),
        )
        onnx.save(made, result)

    return work


PEERS: dict[str, Callable[[Bundle, Path], Work]] = {
    "onnxruntime minmax": lambda bundle, result: onnxruntime_static(bundle, result, "MinMax"),
    "onnxruntime entropy": lambda bundle, result: onnxruntime_static(bundle, result, "Entropy"),
    "onnxruntime percentile": lambda bundle, result: onnxruntime_static(bundle, result, "Percentile"),
    "onnxruntime careful": onnxruntime_careful,
    "onnxruntime dynamic": onnxruntime_dynamic,
    "nncf": nncf_quantize,
    "nncf transformer": lambda bundle, result: nncf_quantize(bundle, result, transformer=True),
    "nncf accuracy control": lambda bundle, result: nncf_accuracy_control(bundle, result, 0.01),
}


def main() -> int:
    """Do one task and say how long the peer's own call took; imports and reading the data file come before it."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)  # the libraries print progress
        task = json.load(sys.stdin)
        try:
            work = PEERS[task["peer"]](Bundle.load(Path(task["bundle"])), Path(task["result"]))
            begun = time.perf_counter()
            work()
        except Exception as error:  # noqa: BLE001  (whatever a peer raises is how it failed)
            traceback.print_exc()
            out.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
            return 1
        out.write(json.dumps({"seconds": time.perf_counter() - begun}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
