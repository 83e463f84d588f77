"""Move the outliers of activations into weights before both are quantized."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from accel.technique import Technique

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx_ir

    from accel.context import Calibration, Context
    from accel.graph.chains import Chain, Reader

    Floats = npt.NDArray[np.floating]

_BATCH = 8
_ROWS = 32
"""Rows of a layer's input that each batch gives to the search for alpha."""
_KEPT = 512
"""Rows of a layer's input that the search for alpha sees in all."""
_ALPHAS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_NAMED = 3
"""Names that a note gives as examples."""


class Smooth(Technique):
    """Move the outliers of activations into weights (SmoothQuant). For transformers; put it before `quantize_static`.

    A few channels of a transformer's activations are far larger than the others, and a single scale for all leaves the
    others few integers. Each channel is divided by a number and the weights that read it are multiplied by it, so that the
    network computes the same. The division costs nothing: it goes into the scale and bias of the norm, or into the layer,
    that the channels come from.
    """

    technique: Literal["smooth"] = "smooth"
    needs_data: ClassVar[bool] = True

    alpha: Literal["auto"] | Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.5,
        description="Share of the spread that is moved into the weights: more where activations have strong outliers. "
        "`auto` tries several for each group of layers, and none, and takes what loses least on samples.",
    )
    samples: int = Field(128, ge=1, le=100_000, description="Rows of the dataset to measure the ranges of channels on.")
    explicit: bool = Field(
        False,
        description="Put a multiplication before layers where nothing before them can take the division; it costs time.",
    )

    def apply(self, model: onnx_ir.Model, context: Context) -> onnx_ir.Model:
        """Find the groups of layers that read the same channels, measure, and scale (Xiao et al. 2022, arXiv 2211.10438)."""
        from accel.graph.prepare import prepare, refuse_quantized

        calibration = context.calibration("smooth")
        refuse_quantized(model)
        ready, notes = prepare(model, context.workspace)
        for note in notes:
            context.note(note)
        groups, left = _groups(ready, explicit=self.explicit)
        self._measure(ready, groups, calibration, context)
        smoothed = 0
        for group in groups:
            scales, alpha = self._scales(group)
            if scales is None:
                continue
            smoothed += 1
            group.write(ready.graph, scales)
            if self.alpha == "auto":
                context.note(f"{_listed(group.names)}: alpha {alpha}.")
        layers = sum(len(group.readers) for group in groups)
        context.note(f"{layers} matrix products in {len(groups)} groups were looked at, {smoothed} groups smoothed.")
        if left:
            context.note(f"Nothing before these layers can take the division, so they were left: {_listed(left)}.")
        return ready

    def _measure(self, model: onnx_ir.Model, groups: list[_Group], calibration: Calibration, context: Context) -> None:
        """Note the largest magnitude of each channel, and some rows where alpha is to be searched."""
        import numpy as np

        from accel.context import rows_in
        from accel.graph.observe import Probe, observe

        probes = {group.value: Probe(group.value, "channel_extremes", -1) for group in groups}
        rows = {group.value: Probe(group.value, "all") for group in groups} if self.alpha == "auto" else {}
        watched, done = None, 0
        for batch in calibration.batches(self.samples, calibration.batch_size(_BATCH)) if groups else ():
            watched = watched or observe(model, [*probes.values(), *rows.values()], batch, context.workspace)
            found = watched.run(batch)
            for group in groups:
                low, high = found[probes[group.value]]
                extent = np.maximum(high, np.negative(low))
                group.extent = extent if group.extent is None else np.maximum(group.extent, extent)
                if rows:
                    group.keep(found[rows[group.value]][0])
            done += rows_in(batch)
            context.progress("measuring channels", done, self.samples, "")

    def _scales(self, group: _Group) -> tuple[Floats | None, float | None]:
        """The scales of a group's channels and their alpha; None where smoothing does not pay."""
        import numpy as np

        from accel.numerics.equalization import product_error, smoothing_scales

        if group.extent is None:
            return None, None
        read = np.max([np.abs(matrix).max(1) for matrix in group.matrices], axis=0)
        activations, weights = (part.reshape(-1, group.spread).max(1) for part in (group.extent, read))
        if self.alpha != "auto":
            return smoothing_scales(activations, weights, self.alpha), self.alpha
        seen = np.concatenate(group.rows)[:_KEPT]
        best, chosen, which = product_error(seen, group.matrices, np.ones(len(group.extent))), None, None
        for alpha in _ALPHAS:
            scales = smoothing_scales(activations, weights, alpha)
            error = product_error(seen, group.matrices, np.repeat(scales, group.spread))
            if error < best:
                best, chosen, which = error, scales, alpha
        return chosen, which


@dataclass(slots=True)
class _Group:
    """Matrix products that read the same channels."""

    value: str
    """What they read."""
    readers: tuple[Reader, ...]
    chain: Chain | None
    """What the channels come from; None where nothing takes a division."""
    extent: Floats | None = None
    """The largest magnitude of each input, [inputs]."""
    rows: list[Floats] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The layers."""
        return [reader.layer.name for reader in self.readers]

    @property
    def spread(self) -> int:
        """Inputs that stand for one channel."""
        return self.readers[0].spread

    @property
    def matrices(self) -> list[Floats]:
        """The weights, each [inputs, outputs]."""
        from accel.graph.rescale import by_channel

        return [by_channel(reader.layer, reader.layer.weight)[0, :, :, 0].T for reader in self.readers]

    def keep(self, values: npt.NDArray[np.generic]) -> None:
        """Keep some rows of a batch, at even distances."""
        import numpy as np

        if sum(map(len, self.rows)) < _KEPT:
            flat = np.asarray(values, np.float32).reshape(-1, values.shape[-1])
            self.rows.append(flat[:: max(1, len(flat) // _ROWS)].copy())

    def write(self, graph: onnx_ir.Graph, scales: Floats) -> None:
        """Divide the channels, and multiply the weights."""
        from accel.graph.rescale import divide_before, rescale

        if self.chain is not None:
            rescale(graph, self.chain, scales)
        else:
            divide_before(graph, self.readers, scales)


def _groups(model: onnx_ir.Model, *, explicit: bool) -> tuple[list[_Group], list[str]]:
    """The groups that can be smoothed, and the matrix products that nothing can be done for."""
    from accel.graph.chains import Broken, Reader, chain, constant_sources, known_shapes, layer_source, unfit
    from accel.graph.layers import layers

    known, shapes = layers(model.graph), known_shapes(model)
    place = {node: number for number, node in enumerate(model.graph)}
    sources = [*map(layer_source, known), *constant_sources(model.graph)]
    # The nearest source takes the division: what lies further ahead then has nothing left to do.
    sources.sort(key=lambda source: -place[source.node])
    matrices = {layer.name: layer for layer in known if layer.operator in {"Gemm", "MatMul"}}
    groups: list[_Group] = []
    taken: set[str] = set()
    for source in sources:
        found = chain(source, known, shapes)
        if isinstance(found, Broken) or found.bounds:
            continue
        names = {reader.layer.name for reader in found.readers}
        values = {str(reader.layer.input.name) for reader in found.readers}
        spreads = {reader.spread for reader in found.readers}
        if names <= matrices.keys() and not names & taken and len(values) == len(spreads) == 1:
            groups.append(_Group(min(values), found.readers, found))
            taken |= names
    left = [layer for name, layer in matrices.items() if name not in taken]
    groups.reverse()
    if not explicit:
        return groups, [layer.name for layer in left]
    alone = [layer for layer in left if not unfit(layer)]
    for value in dict.fromkeys(str(layer.input.name) for layer in alone):
        readers = tuple(Reader(layer, 1) for layer in alone if layer.input.name == value)
        groups.append(_Group(value, readers, None))
    named = {name for group in groups for name in group.names}
    return groups, [layer.name for layer in left if layer.name not in named]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
