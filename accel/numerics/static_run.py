"""Static quantization from the float model to the report, one decision after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from accel.context import Calibration, Context, rows_in
from accel.errors import TechniqueFailed
from accel.evaluation.contract import Contract
from accel.graph.layers import Layer, layers
from accel.graph.layers import chosen as names_chosen
from accel.graph.load import copied
from accel.graph.observe import observe
from accel.graph.placement import place
from accel.graph.prepare import BLOCK_OPSET, QDQ_OPSET, prepare, refuse_quantized
from accel.graph.qdq import QuantizedWeight
from accel.graph.temporary import temporary_file
from accel.numerics.calibration import Calibrated, calibrate
from accel.numerics.channel_activity import ChannelActivity
from accel.numerics.choosing import Chooser
from accel.numerics.layer_report import describe
from accel.numerics.portability import Certificate, can_saturate, certify
from accel.numerics.ranges import Method
from accel.numerics.scales import WIDE
from accel.numerics.search import Candidate, Found, smallest
from accel.numerics.sensitivity import OutputNoise
from accel.numerics.static import Settings, StaticModel, measurable
from accel.report.quantization import (
    CalibrationReport,
    CandidateReport,
    Finding,
    PortabilityReport,
    QuantizationReport,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import onnx_ir as ir

Array = npt.NDArray[np.generic]
Stay = Literal["float", "int16"]

_METHODS: tuple[Method, ...] = ("minmax", "percentile", "mse")
_LOOKED_AT = 4
"""Samples that layers' outputs and channels are looked at with, at least."""
_CERTIFIED_ON = 8
"""Samples that saturation is looked for on, at least."""
_SMALL = 32
"""As many samples are taken for both where they are small."""
_LARGEST_BATCH = 16
"""Rows that are calibrated at a time where they are small."""


@dataclass(slots=True)
class StaticRun:
    """A model on its way to integers: what was decided so far."""

    context: Context
    data: Calibration
    static: StaticModel
    settings: Settings
    calibrated: Calibrated
    chooser: Chooser | None
    in_float: dict[str, str]
    """Why each layer that stays in float does so."""
    count: Callable[[], Calibrated] | None
    """Calibrates again and counts values, where only extremes were looked at; None where they are counted."""
    weights: dict[str, QuantizedWeight] = field(default_factory=dict)
    """Weights that are other than the settings say."""
    wide: frozenset[str] = frozenset()
    """Layers whose input is quantized to 16 bits."""
    found: Found | None = None
    _built: tuple[object, ir.Model] | None = None
    """What was built last, and from what."""
    _seen: tuple[Mapping[str, float], tuple[Finding, ...]] | None = None

    @classmethod
    def begin(
        cls,
        model: ir.Model,
        context: Context,
        settings: Settings,
        *,
        operators: Sequence[str],
        include: Sequence[str],
        exclude: Sequence[str],
        samples: int,
        tolerance: float,
        contract: Contract | None,
        sampled: bool,
        stay: Stay = "float",
    ) -> StaticRun:
        """Prepare the graph, find its layers, and measure their activations.

        Without ``sampled`` only extremes are looked at, and values are counted when another way to choose ranges is tried.

        Raises:
            TechniqueFailed: The model is quantized already, has nothing to quantize, or a pattern matches nothing.
            DataRequired: There are no samples.
        """
        data = context.calibration("quantize_static")
        refuse_quantized(model)
        wide = settings.activations.bits > 8 or settings.block_size is not None or stay == "int16"  # noqa: PLR2004
        ready, notes = prepare(model, context.workspace, opset=BLOCK_OPSET if wide else QDQ_OPSET)
        context.notes.extend(notes)
        chosen = choose_layers(ready, operators, include, exclude)
        placement = place(chosen)

        def measured(*, sampled: bool) -> Calibrated:
            return calibrate(
                ready,
                placement.measured,
                data.batches(samples, data.batch_size(_LARGEST_BATCH)),
                method=settings.method,
                scheme=settings.activations,
                workspace=context.workspace,
                percentile=settings.percentile,
                tolerance=tolerance,
                sampled=sampled,
                total=samples,
                tell=context.progress,
            )

        found = measured(sampled=sampled)
        kept, broken = measurable(chosen, found.statistics, placement)
        if not kept:
            raise TechniqueFailed(
                "Every layer's activations hold values that are not finite, so that nothing can be quantized.",
                hint="Check the calibration samples, and the model on them.",
            )
        static = StaticModel(ready, tuple(chosen), placement, found.statistics)
        chooser = None
        if context.selection is not None:
            chooser = Chooser(ready, context.selection, context.workspace, contract)
        reasons = dict.fromkeys(broken, "Its activations hold values that are not finite.")
        again = None if sampled else partial(measured, sampled=True)
        return cls(context, data, static, settings, found, chooser, reasons, again)

    @property
    def noise(self) -> Mapping[str, float]:
        """Noise over signal of each layer's output, when only this layer is quantized."""
        return self._looked()[0]

    def _looked(self) -> tuple[Mapping[str, float], tuple[Finding, ...]]:
        """The noise of each layer's output and what its channels do, from one pass over a few samples."""
        if self._seen is None:
            copy = copied(self.static.model)
            layers = [layer for layer in self.static.chosen if layer.name not in self.in_float]
            noise = OutputNoise(
                copy,
                layers,
                {layer.name: self._weight(layer) for layer in layers},
                {layer.name: self.static.entering(layer, self.settings) for layer in layers},
            )
            activity = ChannelActivity(layers)
            observed = None
            for batch in self._few(_LOOKED_AT):
                observed = observed or observe(copy, (*noise.probes, *activity.probes), batch, self.context.workspace)
                found = observed.run(batch)
                noise.add(found)
                activity.add(found, rows_in(batch))
            self._seen = noise.relative(), activity.findings()
        return self._seen

    def build(
        self, choice: frozenset[str] = frozenset(), *, stay: Stay = "float", settings: Settings | None = None
    ) -> ir.Model:
        """The model with these layers in float or wide, besides those that must be."""
        in_float = frozenset(self.in_float) | (choice if stay == "float" else frozenset())
        wide = self.wide | (choice if stay == "int16" else frozenset())
        key = (settings or self.settings, in_float, wide, frozenset(self.weights))
        if self._built is None or self._built[0] != key:
            built = self.static.build(
                settings or self.settings,
                in_float=in_float,
                weights=self.weights,
                schemes=dict.fromkeys(wide, WIDE),
            )
            self._built = (key, built)
        return self._built[1]

    def choose_method(self) -> None:
        """Take the way of choosing ranges whose outputs are nearest to the float model's."""
        chooser = self.chooser
        if chooser is None:
            return
        if self.count is not None:
            self.calibrated, self.count = self.count(), None
            self.static.statistics = self.calibrated.statistics
            self.static.forget()
        methods = dict.fromkeys((self.settings.method, *_METHODS))
        losses = {}
        for number, method in enumerate(methods):
            self.context.progress("choosing ranges", number, len(methods), method)
            candidate = self.build(settings=replace(self.settings, method=method))
            losses[method] = chooser.difference(candidate).noise
        best = min(losses, key=lambda method: losses[method])
        self.settings = replace(self.settings, method=best)

    def keep(self, noise_bound: float | None, *, stay: Stay = "float") -> None:
        """Find the smallest set of layers that must stay in float so that the contract is kept, or the outputs' noise small.

        Before any layer is given up, the other ways of choosing ranges are tried.

        Args:
            noise_bound: Noise over signal of the outputs that is accepted where there is no contract.
            stay: What these layers stay in: float, or integers with 16-bit activations.
        """
        chooser = self.chooser
        if chooser is None:
            return
        bound = chooser.bound if chooser.contract is not None else noise_bound
        if bound is None:
            return
        known: dict[frozenset[str], float] = {}

        def loss(choice: frozenset[str]) -> float:
            if choice not in known:
                self.context.progress("choosing layers", len(known), None, f"{len(choice)} layers in {stay}")
                known[choice] = chooser.loss(self.build(choice, stay=stay))
            return known[choice]

        names = [layer.name for layer in self.static.chosen if layer.name not in self.in_float]
        asked = self.settings.method
        if loss(frozenset()) > bound:
            lost = known.pop(frozenset())
            self.choose_method()
            if self.settings.method != asked:
                self.context.note(
                    f"The ranges of `{asked}` lost {lost:.4g}, where {bound:.4g} was wanted; those of "
                    f"`{self.settings.method}` were taken."
                )
        if loss(frozenset()) <= bound:
            self.found = Found(Candidate(frozenset(), loss(frozenset())), met=True, tried=())
            return
        noise = self.noise
        self.found = smallest(sorted(names, key=lambda name: -noise[name]), loss, bound)
        best = sorted(self.found.best.in_float)
        if stay == "float":
            why = "the contract is kept" if chooser.contract else "the model is not broken"
            self.in_float.update(dict.fromkeys(best, f"In float so that {why}."))
        else:
            self.wide = frozenset(best)
        if not self.found.met:
            self.context.note(
                f"No choice of layers kept the bound on the rows set apart: the best lost {self.found.best.loss:.4g}, where "
                f"{bound:.4g} was wanted."
            )

    def make_portable(self) -> None:
        """Give 7-bit weights to the layers that some input could saturate, so that none can."""
        scheme = replace(self.settings.weights, bits=min(7, self.settings.weights.bits))
        exposed = can_saturate(self.build())
        for layer in self.static.chosen:
            if layer.name in exposed:
                self.weights[layer.name] = self.static.weight(layer, scheme, self.settings)

    def _certified(self, model: ir.Model) -> Certificate:
        return certify(model, self._few(_CERTIFIED_ON), self.context.workspace, tell=self.context.progress)

    def _few(self, least: int) -> Iterable[dict[str, Array]]:
        """A few of the samples, for what is looked at layer by layer."""
        size = self.data.batch_size(_SMALL)
        return self.data.batches(max(least, size), size)

    def finish(self, *, diagnose: bool) -> ir.Model:
        """The quantized graph; what was done goes into the context.

        Args:
            diagnose: Whether each layer is looked at by itself: its noise, its channels, what it does without VNNI.
        """
        context = self.context
        result = self.build()
        certificate = self._certified(result) if diagnose else None
        quantized = [layer for layer in self.static.chosen if layer.name not in self.in_float]
        with temporary_file(result, context.workspace) as path:
            reports = describe(
                self.static,
                self.settings,
                path,
                context.workspace,
                weights={layer.name: self._weight(layer) for layer in quantized},
                noise=self.noise if diagnose else {},
                in_float=self.in_float,
                wide=self.wide,
                certificates={layer.name: layer for layer in certificate.layers} if certificate else {},
            )
        context.quantization = QuantizationReport(
            layers=reports,
            calibration=CalibrationReport(
                method=self.settings.method,
                samples=self.calibrated.statistics.samples,
                settled=self.calibrated.settled,
                curve=self.calibrated.curve,
            ),
            tried=tuple(
                CandidateReport(in_float=tuple(sorted(tried.in_float)), loss=tried.loss)
                for tried in (self.found.tried if self.found else ())
            ),
            fallback=self._fallback() if diagnose else (),
            findings=self._looked()[1] if diagnose else (),
            portability=self._portability(certificate) if certificate else None,
        )
        self._remark(len(quantized))
        return result

    def _portability(self, certificate: Certificate) -> PortabilityReport:
        return PortabilityReport(
            safe=len(certificate.named("safe")),
            safe_on_data=len(certificate.named("safe_on_data")),
            at_risk=certificate.named("at_risk"),
            changed=tuple(sorted(set(self.weights) - set(self.in_float))),
        )

    def _fallback(self) -> tuple[str, ...]:
        """The layers in float, and as many of the next most sensitive again."""
        others = sorted((name for name in self.noise if name not in self.in_float), key=lambda name: -self.noise[name])
        return (*sorted(self.in_float), *others[: max(1, len(self.in_float))])

    def _weight(self, layer: Layer) -> QuantizedWeight:
        return self.weights.get(layer.name) or self.static.weight(layer, self.settings.weights, self.settings)

    def _remark(self, quantized: int) -> None:
        note = self.context.note
        names = sorted(self.in_float)
        if names:
            note(
                f"{quantized} layers were quantized; {len(names)} stayed in float: {', '.join(names[:3])}"
                f"{' and others' if len(names) > 3 else ''} (see `quantization.layers`)."  # noqa: PLR2004
            )
        nested = sum(1 for node in self.static.model.graph.all_nodes() if node.graph is not self.static.model.graph)
        if nested:
            note(f"The {nested} nodes in sub-graphs (If, Loop, Scan) were left alone.")


def choose_layers(
    model: ir.Model, operators: Sequence[str], include: Sequence[str], exclude: Sequence[str]
) -> list[Layer]:
    """The layers that are asked for.

    Raises:
        TechniqueFailed: There are none, or a pattern matches nothing.
    """
    found = layers(model.graph, operators)
    wanted = names_chosen(model.graph, include, exclude)
    chosen = [layer for layer in found if layer.name in wanted]
    if chosen:
        return chosen
    if found:
        raise TechniqueFailed(
            "`include` and `exclude` leave no layer to quantize.",
            hint=f"The layers are {', '.join(layer.name for layer in found[:12])}.",
        )
    types = sorted({node.op_type for node in model.graph})
    raise TechniqueFailed(
        f"The model has no {' or '.join(operators)} with a constant weight outside of sub-graphs.",
        hint=f"It has {', '.join(types[:12])}.",
    )
