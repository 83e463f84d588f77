"""Apply a recipe to a model, and prove each result."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from accel.benchmark.environment import environment, usable_cores
from accel.benchmark.glance import glance
from accel.benchmark.inputs import random_inputs
from accel.context import Context, Tell
from accel.data.bind import Bound, bind
from accel.data.dataset import open_dataset
from accel.data.division import Division, divide
from accel.data.doctor import examine
from accel.data.preprocessing import compare_answers
from accel.errors import AccelError, DataRequired, ResultBroken, RuntimeFailed
from accel.evaluation.contract import Contract
from accel.evaluation.emulation import elsewhere, emulate
from accel.evaluation.trial import Trial, Watched
from accel.evaluation.truth import truth_of
from accel.events import Done, ResultFile
from accel.graph.inspect import summarize
from accel.graph.load import load, load_proto, save
from accel.report import Comparison, CompressReport, Emulation, SplitsUsed, StepReport
from accel.report.quantization import QuantizationReport
from accel.request import CompressRequest
from accel.runtimes.sessions import open_session
from accel.technique import Technique

if TYPE_CHECKING:
    import onnx_ir

_NAMED = 3
"""Layers that are proposed to stay in float where a step has not found them itself."""
_SAMPLES = 2_000
"""Rows that a result is compared with its parent on; a contract is judged on the whole split."""


def compress(request: CompressRequest, tell: Tell) -> Done:
    """Apply each step, save its result, load it again in its runtime, and compare it with its parent there.

    Raises:
        TechniqueFailed: A technique does not fit the model.
        ResultBroken: A result does not load or run, or gives something else than the parent's kind of output.
    """
    workspace = request.workspace.resolve()
    tell("loading", 0, None, "")
    model = load(request.model.path)
    samples = _Samples.of(request, workspace, tell)
    trial = samples.trial
    first = _first_run(trial, request.model.path)
    reference = None if summarize(load_proto(request.model.path)).quantized else model
    path, parent_id, watched = request.model.path, request.model.model_id, first
    steps, files = [], []
    for number, (step, result_id) in enumerate(zip(request.steps, request.result_ids, strict=True), 1):
        label = f"step {number} of {len(request.steps)}: {step.tag()}"
        tell("compressing", number - 1, len(request.steps), label)
        started = time.monotonic()
        context = samples.context(request, workspace, _labelled(tell, label), step, reference)
        before = model
        model = step.apply(before, context)
        result = workspace / f"{result_id}.onnx"
        save(model, result)
        seconds = time.monotonic() - started
        tell("comparing", number - 1, len(request.steps), label)
        found = _proved(trial, result, step.tag(), watched)
        summary = summarize(load_proto(result))
        quantization = samples.examined(before, context, workspace)
        emulation = _emulated(trial, result, quantization, context)
        verdict = trial.verdict(step.promise, first, found)
        if verdict is not None and verdict.outcome == "not_met":
            context.note(_fallback(quantization))
        steps.append(
            StepReport(
                technique=step.tag(),
                parameters=step.model_dump(mode="json", exclude={"technique"}),
                model_id=result_id,
                parent_id=parent_id,
                size_bytes=result.stat().st_size,
                seconds=seconds,
                peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                comparison=trial.compare(path, watched, result, found),
                quantization=quantization,
                emulation=emulation,
                verdict=verdict,
                notes=tuple(context.notes),
            )
        )
        files.append(ResultFile(model_id=result_id, path=result, parent_id=parent_id, summary=summary))
        path, parent_id, watched = result, result_id, found
        if not summary.quantized:
            reference = model
    tell("measuring", 0, None, "")
    report = CompressReport(
        steps=tuple(steps),
        splits=samples.splits,
        comparison=_compared(trial, request, first, path, watched, quantized=bool(steps) and reference is not model),
        verdict=trial.verdict(request.contract, first, watched),
        environment=environment(),
    )
    return Done(report=report, files=tuple(files))


class _Samples:
    """What a recipe is given of a dataset, and what its results are tried on."""

    def __init__(self, trial: Trial, division: Division | None, selection: Trial | None) -> None:
        self.trial, self._division, self._selection = trial, division, selection

    @classmethod
    def of(cls, request: CompressRequest, workspace: Path, tell: Tell) -> _Samples:
        contracts = _contracts(request)
        session = open_session(request.model.path, request.runtime)
        if request.dataset is None:
            if contracts:
                raise DataRequired(
                    "A contract is judged on data, and the job has no dataset.", hint="Give dataset_id, or no contract."
                )
            feeds = random_inputs(session.inputs, seed=request.seed, count=4)
            return cls(Trial(request.runtime, request.seed, tell, feeds=feeds), None, None)
        dataset = open_dataset(request.dataset.path, request.dataset.spec, workspace)
        division = divide(
            dataset,
            lambda split: bind(session.inputs, session.outputs, dataset, split, request.binding),
            samples=max((getattr(step, "samples", 0) for step in request.steps), default=0),
            choosing=any(step.chooses for step in request.steps),
            seed=request.seed,
        )

        def tried(bound: Bound, tell: Tell) -> Trial:
            truth = truth_of(dataset, bound, contracts, session.outputs)
            return Trial(request.runtime, request.seed, tell, bound, truth=truth)

        judged = division.judged if contracts else division.judged.draw(_SAMPLES, request.seed)
        selection = None if division.selection is None else tried(division.selection, lambda *_: None)
        return cls(tried(judged, tell), division, selection)

    @property
    def splits(self) -> SplitsUsed | None:
        """Which splits these are of."""
        return None if self._division is None else self._division.splits

    def context(
        self,
        request: CompressRequest,
        workspace: Path,
        tell: Tell,
        step: Technique,
        reference: onnx_ir.Model | None,
    ) -> Context:
        """What a step is given."""
        division = self._division
        calibration = None if division is None else division.calibration
        context = Context(workspace, request.seed, tell, calibration, reference, self._selection)
        if division is not None and (step.needs_data or step.chooses):
            context.notes.extend(division.notes)
        return context

    def examined(self, model: onnx_ir.Model, context: Context, workspace: Path) -> QuantizationReport | None:
        """A step's report, with what is remarkable about the samples that it calibrated on."""
        report, division = context.quantization, self._division
        if report is None or report.calibration is None or division is None:
            return report
        used = report.calibration.samples
        found = (
            *examine(
                division.calibration, division.judged, model, used, workspace=workspace, curve=report.calibration.curve
            ),
            *compare_answers(division.calibration, model, used, workspace),
        )
        return report.model_copy(update={"findings": (*found, *report.findings)})


def _emulated(
    trial: Trial, result: Path, quantization: QuantizationReport | None, context: Context
) -> Emulation | None:
    """What processors without VNNI make of a result, where that may be something else; remarks go into the context."""
    if quantization is None or not quantization.differs:
        return None
    context.progress("emulating", 0, None, "")
    try:
        found = emulate(trial, result, context.workspace)
    except AccelError as error:  # a result that is proved is not lost for a remark on other processors
        context.note(f"What processors without VNNI give could not be emulated: {error.message}")
        return None
    context.notes.extend(elsewhere(found) if found is not None else ())
    return found


def _fallback(report: QuantizationReport | None) -> str:
    """What would lose less than a result that breaks its contract."""
    names = report.fallback if report is not None else ()
    if not names and report is not None:
        known = [layer for layer in report.layers if layer.weight_bits is not None and layer.weight_snr_db is not None]
        names = tuple(layer.name for layer in sorted(known, key=lambda layer: layer.weight_snr_db or 0.0)[:_NAMED])
    if not names:
        return "The contract is not met. Use more bits, or convert_float16."
    return f'The contract is not met. This would lose less: {{"exclude": {json.dumps(list(names))}}}.'


def _contracts(request: CompressRequest) -> list[Contract]:
    asked = [request.contract, *(step.promise for step in request.steps)]
    return [contract for contract in asked if contract is not None]


def _first_run(trial: Trial, path: Path) -> Watched:
    try:
        return trial.watch(path)
    except RuntimeFailed as error:
        if trial.bound is not None:
            raise
        raise DataRequired(
            f"The model does not run on random inputs of the shapes that it allows: {error.message}",
            hint="Give dataset_id, and a binding where names or shapes differ, so that real inputs are compared.",
        ) from error


def _proved(trial: Trial, result: Path, technique: str, parent: Watched) -> Watched:
    """Load a result again and run it.

    Raises:
        ResultBroken: It cannot be, or it gives no numbers where its parent does.
    """
    try:
        load_proto(result)
        found = trial.watch(result)
    except (ResultBroken, MemoryError):
        raise
    except AccelError as error:
        raise ResultBroken(
            f"What {technique} made does not run in {trial.runtime}: {error.message}",
            hint="Choose other parameters or another technique; the original is untouched.",
        ) from error
    for name, array in found.outputs.items():
        before = parent.outputs[name]
        rows = min(len(array), len(before))
        if array.dtype.kind == "f" and (~np.isfinite(array[:rows]) & np.isfinite(before[:rows])).any():
            raise ResultBroken(
                f"What {technique} made gives values at {name!r} that are not finite.",
                hint="The ranges may overflow in this type; leave the layers in float that are affected.",
            )
    return found


def _compared(
    trial: Trial, request: CompressRequest, first: Watched, result: Path, last: Watched, *, quantized: bool
) -> Comparison:
    """The last result beside the original; where it is quantized, its speed too, which many a time is a slower one."""
    comparison = trial.compare(request.model.path, first, result, last)
    if not quantized or not request.measure_speed:
        return comparison
    gain, warnings = glance(
        request.model.path, result, request.runtime, trial.shapes(), threads=usable_cores(), seed=request.seed
    )
    return comparison.model_copy(update={"speedup": gain, "warnings": (*comparison.warnings, *warnings)})


def _labelled(tell: Tell, label: str) -> Tell:
    return lambda phase, done, total, message: tell(phase, done, total, f"{label} {message}".strip())
