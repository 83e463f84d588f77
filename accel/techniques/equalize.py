"""Even out the weights of neighbouring layers before they are quantized."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from accel.technique import Technique

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx_ir

    from accel.context import Context
    from accel.graph.chains import Broken, Chain

    Floats = npt.NDArray[np.floating]
    Extremes = dict[str, tuple[Floats, Floats]]

_BATCH = 8
_SWEEPS = 100
_SETTLED = 1e-3
"""Logarithm of a scale that no longer counts as a move."""
_NAMED = 3
"""Names that a note gives as examples."""
_LONGEST = 60
"""Characters of a name that a note gives."""


class Equalize(Technique):
    """Even out the weights of neighbouring layers, so that one scale fits all channels. Put it before a quantizing step.

    Where two layers are joined by a Relu, a pooling or nothing, a channel can be divided by a number in the first and
    multiplied by it in the second: the network computes the same, but its weights lose less when they are rounded. This
    is for weights with a single scale for each tensor, which some accelerators insist on; where each channel has a scale
    of its own, it gains nothing, and activations may lose.
    """

    technique: Literal["equalize"] = "equalize"
    clip: Literal["leave", "per_channel"] = Field(
        "leave",
        description="Layers with a bounded Clip (Relu6) between them: `leave` them, or give each channel a bound of its "
        "own by a Min, which keeps the function but is not computed together with the layer, so that the quantized model "
        "gets slower.",
    )
    absorb_bias: bool = Field(
        True,
        description="Move what a channel never falls below into the biases of the layers behind it. Needs samples, and is "
        "exact for values that are not below theirs; switch it off where the function must not change at all.",
    )
    samples: int = Field(
        128, ge=1, le=100_000, description="Rows of the dataset, if there is one, that `absorb_bias` looks at."
    )

    def apply(self, model: onnx_ir.Model, context: Context) -> onnx_ir.Model:
        """Equalize all pairs until no scale moves, then absorb high biases (Nagel et al. 2019, arXiv 1906.04721)."""
        from accel.graph.chains import Broken, chain, known_shapes, layer_source
        from accel.graph.layers import layers
        from accel.graph.prepare import prepare, refuse_quantized
        from accel.graph.rescale import bound_channels, rescale

        refuse_quantized(model)
        ready, notes = prepare(model, context.workspace)
        for note in notes:
            context.note(note)
        known, shapes = layers(ready.graph), known_shapes(ready)
        chains, broken = [], []
        for layer in known:
            found = chain(layer_source(layer), known, shapes)
            if isinstance(found, Broken):
                broken.append(found)
            elif found.bounds and self.clip == "leave":
                broken.append(Broken(found.source, "a Clip with an upper bound follows"))
            else:
                chains.append(found)
        _explain(chains, broken, context)
        seen = self._observed(ready, chains, context)
        absorbed = 0
        for item, factors in zip(chains, _balanced(chains), strict=True):
            rescale(ready.graph, item, factors)
            taken = _absorbed(ready.graph, item, factors, seen)
            absorbed += int((taken > 0).sum())
            for bound in item.bounds:
                bound_channels(ready.graph, bound, bound.upper / factors - taken)
        if absorbed:
            context.note(f"The high bias of {absorbed} channels was moved into the layers behind.")
        return ready

    def _observed(self, model: onnx_ir.Model, chains: list[Chain], context: Context) -> Extremes:
        """The extremes of the channels that a bias can be moved from."""
        import numpy as np

        from accel.context import rows_in
        from accel.graph.observe import Probe, observe

        probes = [
            Probe(str(item.activated.name), "channel_extremes", item.source.axis) for item in chains if item.shifts
        ]
        found: Extremes = {}
        if not self.absorb_bias or not probes:
            return found
        if context.data is None:
            context.note("High biases were not absorbed: that needs samples, and the job has no dataset.")
            return found
        watched, done = None, 0
        for batch in context.data.batches(self.samples, context.data.batch_size(_BATCH)):
            watched = watched or observe(model, probes, batch, context.workspace)
            for probe, (low, high) in watched.run(batch).items():
                before = found.get(probe.value, (low, high))
                found[probe.value] = (np.minimum(before[0], low), np.maximum(before[1], high))
            done += rows_in(batch)
            context.progress("measuring channels", done, self.samples, "")
        return found


def _balanced(chains: list[Chain]) -> list[Floats]:
    """The scales of all chains: pair after pair, again and again, until nothing moves.

    A depthwise layer between two others needs no rule of its own: the pairs on both sides of it settle where all three have
    the same extents.
    """
    import numpy as np

    from accel.graph.rescale import by_channel
    from accel.numerics.equalization import equalizing_scales, input_extents, output_extents

    layers = [layer for item in chains for layer in (item.source.layer, *(reader.layer for reader in item.readers))]
    weights = {layer.name: by_channel(layer, layer.weight.astype(np.float64)) for layer in layers if layer is not None}
    totals: list[Floats] = [np.ones(item.source.channels) for item in chains]
    for _ in range(_SWEEPS):
        moved = 0.0
        for number, item in enumerate(chains):
            name = str(item.source.node.name)
            read = np.max([input_extents(weights[part.layer.name], part.spread) for part in item.readers], axis=0)
            scales = equalizing_scales(output_extents(weights[name]), read)
            totals[number] = totals[number] * scales
            weights[name] = weights[name] / scales.reshape(weights[name].shape[0], -1, 1, 1)
            for part in item.readers:
                weight = weights[part.layer.name]
                factors = np.repeat(scales, part.spread).reshape(weight.shape[0], 1, -1, 1)
                weights[part.layer.name] = weight * factors
            moved = max(moved, float(np.abs(np.log(scales)).max(initial=0.0)))
        if moved < _SETTLED:
            break
    return totals


def _absorbed(graph: onnx_ir.Graph, item: Chain, factors: Floats, seen: Extremes) -> Floats:
    """Move what the channels of a source never fall below into what reads them; what was taken off each."""
    import numpy as np

    from accel.graph.chains import output_channels
    from accel.graph.layers import constant
    from accel.graph.rescale import bias_slot, by_channel, set_constant
    from accel.numerics.equalization import absorbable

    nothing = np.zeros(item.source.channels)
    if not item.shifts or str(item.activated.name) not in seen:
        return nothing
    low, high = seen[str(item.activated.name)]
    taken = absorbable(low / factors, high / factors)
    changes = {bias_slot(item.source.node, item.source.channels): -taken}
    for reader in item.readers:
        slot = bias_slot(reader.layer.node, output_channels(reader.layer))
        weight = by_channel(reader.layer, np.asarray(constant(reader.layer.node.inputs[1]), np.float64)).sum(3)
        given = np.repeat(taken, reader.spread).reshape(weight.shape[0], 1, -1)
        changes[slot] = (weight * given).sum(2).ravel()
    if None in changes or not taken.any():
        return nothing
    for slot, change in changes.items():
        node, position = slot  # type: ignore[misc]  # there is a slot, or nothing was taken
        old = constant(node.inputs[position]) if len(node.inputs) > position else None
        new = change if old is None else np.asarray(old, np.float64) + change
        set_constant(graph, node, position, new.astype(np.float32))
    return taken


def _explain(chains: list[Chain], broken: list[Broken], context: Context) -> None:
    pairs = sum(len(item.readers) for item in chains)
    context.note(f"{pairs} {'pair' if pairs == 1 else 'pairs'} of layers {'was' if pairs == 1 else 'were'} equalized.")
    reasons: dict[str, list[str]] = defaultdict(list)
    for item in broken:
        reasons[item.reason].append(str(item.source.node.name))
    for reason, names in reasons.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        listed = ", ".join(name if len(name) <= _LONGEST else f"...{name[-_LONGEST:]}" for name in names[:_NAMED])
        context.note(f"Not equalized with what follows: {listed}{more} ({reason}).")
