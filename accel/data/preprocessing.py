"""What is fed to a model, held against what its first layer was trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from accel.data.bind import Bound, Feed
from accel.report.quantization import Finding

if TYPE_CHECKING:
    import onnx_ir

    from accel.numerics.activity import Expectation, Moments

Array = npt.NDArray[np.generic]
Change = Callable[[Any], Any]
"""Another preprocessing of a batch of floats."""
Stream = Callable[[], Iterator[dict[str, Array]]]

_FEWEST = 16
_BATCH = 8
_LOOKED_AT = 32
"""Rows whose values are looked at."""
_IMAGE_RANK = 4
_TEXTURE = 8
"""Smaller pictures show no texture."""
_LARGE = 1e4
_WHOLE = 100
"""Whole numbers up to here may be counts or classes; beyond, they are probably pixels or samples of sound."""
_WIDE = 30.0
"""A layer whose outputs spread more than this was hardly trained on such inputs: initialisation and norms aim at 1."""
_SPREADS = (1 / 8, 2.5)
"""How far the spread may be from the expected one. Low contrast is common; more than full contrast is not."""
_FAR = 2.0
"""How many standard deviations of the training the mean may be off."""
_MISFIT = 0.7
_BETTER = 3.0
"""Another preprocessing is named where it fits so many times better."""
_ORDER_MISFIT = 0.05
"""Where the order of channels is wrong, little else is: a small misfit counts where the other order has nearly none."""
_ANSWERS = 64
_SURE = 4.0
"""Standard errors by which another preprocessing must do better."""
_GAIN = 0.05


@dataclass(frozen=True, slots=True)
class _Fed:
    """What was seen of the values that an input is fed."""

    feed: Feed
    low: float
    high: float
    whole: bool
    alike: bool
    """Whether all channels of the images are the same."""
    mixed: bool
    """Whether neighbours in a row look like channels of one pixel."""
    channels: int | None
    """The axis of three channels; None where it is no image in colour."""

    @property
    def name(self) -> str:
        return self.feed.port.name


def mismatches(calibration: Bound, model: onnx_ir.Model, rows: int, workspace: Path) -> list[Finding]:
    """Look for values that do not fit what the first layer expects, by themselves and by statistics in the graph.

    Args:
        calibration: Its first ``rows`` rows are looked at, 32 at most.
        model: The float model as it was given, with its batch norms if it has any.
        rows: How many rows there are to look at.
        workspace: Folder for instrumented graphs.
    """
    stream = _stream(calibration, rows)
    findings = []
    for feed in calibration.feeds:
        if feed.rows is None or feed.port.dtype is None or feed.port.dtype.kind != "f":
            continue
        fed = _look(feed, stream)
        first = _against_the_graph(fed, model, stream, min(rows, _LOOKED_AT), workspace)
        found = first or _by_themselves(fed, model, stream, workspace)
        if found is not None:
            findings.append(found)
        if fed.alike:
            findings.append(
                Finding(
                    code="preprocessing_mismatch",
                    severity="info",
                    message=f"All channels of the images that are fed to {fed.name!r} are the same.",
                    hint="Nothing is wrong if the pictures are grey; the order of the channels cannot be checked then.",
                )
            )
    return findings


def _stream(bound: Bound, rows: int, looked: int = _LOOKED_AT) -> Stream:
    """About ``looked`` rows at even distances, in batches of one size."""
    size = min(bound.fixed_batch or _BATCH, rows)
    count = max(min(looked, rows) // size, 1)
    starts = np.linspace(0, rows - size, count).astype(int).tolist()
    return lambda: (bound.feed(start, start + size) for start in starts)


def _look(feed: Feed, stream: Stream) -> _Fed:
    low, high, whole, alike = math.inf, -math.inf, True, True
    channels, steps = None, np.zeros(4)
    for batch in stream():
        values = batch[feed.port.name]
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        whole = whole and bool((values == np.rint(values)).all())
        channels = _channel_axis(values)
        if channels is not None:
            parts = np.moveaxis(values, channels, 0)
            alike = alike and bool((parts[0] == parts[1]).all() and (parts[0] == parts[2]).all())
        if channels == 1 and min(values.shape[2:]) >= _TEXTURE:
            steps += _steps(values[:1])
    near, third = steps[:3], steps[3]
    mixed = bool(third < 0.7 * near.mean() or near[:2].max() < near[2] / 2)
    return _Fed(feed, low, high, whole, alike and channels is not None, mixed, channels)


def _channel_axis(values: Array) -> int | None:
    if values.ndim != _IMAGE_RANK:
        return None
    return 1 if values.shape[1] == 3 else 3 if values.shape[3] == 3 else None  # noqa: PLR2004  (colours)


def _steps(images: Array) -> npt.NDArray[np.float64]:
    """How far values are from the next in their row, for each of three phases of memory, and from the third next."""
    rows = images.astype(np.float64)
    near = np.abs(np.diff(rows, axis=-1))
    phase = np.arange(math.prod(rows.shape[1:])).reshape(rows.shape[1:])[..., :-1] % 3
    return np.array([*(near[:, phase == p].mean() for p in range(3)), np.abs(rows[..., 3:] - rows[..., :-3]).mean()])


def _by_themselves(fed: _Fed, model: onnx_ir.Model, stream: Stream, workspace: Path) -> Finding | None:
    """What the values show without anything to compare them with."""
    from accel.numerics.activity import channel_meter, first_layer

    if fed.low == fed.high:
        return _mismatch(
            f"What is fed to {fed.name!r} is always {fed.low:g}.",
            "Bind the column that holds the samples, and check its steps.",
        )
    if fed.mixed:
        return _mismatch(
            f"In what is fed to {fed.name!r}, values side by side look like the colours of one pixel: pictures of the shape "
            "[height, width, channels] were reshaped to [channels, height, width].",
            'Put {"step": "transpose", "axes": [2, 0, 1]} in place of the reshape.',
        )
    layer = first_layer(model, fed.name)
    largest = max(abs(fed.low), abs(fed.high))
    if layer is None:
        return None
    if largest > _LARGE:
        return _mismatch(
            f"Values up to {largest:.3g} are fed to {fed.name!r}, and nothing scales them before {layer.op_type}.",
            "Scale the column by a step `scale` or `normalize`, as it was scaled in the training.",
        )
    if layer.op_type == "Conv" and fed.whole and largest >= _WHOLE:
        output = str(layer.outputs[0].name)
        meter = channel_meter(model, {output: 1}, next(stream()), workspace)
        spread = float(np.median(meter.measure(stream())[output].spread))
        if spread > _WIDE:
            return _mismatch(
                f"Whole numbers from {fed.low:g} to {fed.high:g} are fed to {fed.name!r} and nothing scales them before the "
                f"first Conv, whose outputs spread by {spread:.0f} where about 1 is usual.",
                'Scale them as in the training, such as {"step": "scale", "multiply": 0.00392156862} for pixels.',
            )
    return None


def _against_the_graph(fed: _Fed, model: onnx_ir.Model, stream: Stream, rows: int, workspace: Path) -> Finding | None:
    """Compare what is fed with what the graph says about it."""
    from accel.numerics.activity import channel_meter, expectation

    expected = expectation(model, fed.name)
    if expected is None or rows < _FEWEST // 2:
        return None
    meter = channel_meter(model, {expected.value: expected.axis}, next(stream()), workspace)

    def seen(change: Change) -> Moments:
        batches = ({**batch, fed.name: change(batch[fed.name])} for batch in stream())
        return meter.measure(batches)[expected.value]

    moments = seen(lambda values: values)
    if len(moments.mean) != len(expected.moments.mean):
        return None
    if expected.kind == "scale":
        return _scaled_twice(fed, expected, moments)
    far, spread = expected.moments.distance(moments)
    hint = _cause(fed, expected, moments, lambda change: expected.moments.misfit(seen(change)), rows)
    if hint is None and _SPREADS[0] <= spread <= _SPREADS[1] and far <= _FAR:
        return None
    source = "has seen in the training" if expected.kind == "batch norm" else "takes for mean and spread"
    return _mismatch(
        f"What is fed to {fed.name!r} ({fed.low:.3g} to {fed.high:.3g}) does not look like what {expected.source!r} (a "
        f"{expected.kind}) {source}: the mean of a channel is off by {far:.2g} standard deviations, and the spread is "
        f"{spread:.2g} times the expected one ({rows} rows, median of {len(moments.mean)} channels).",
        hint or "Compare the steps of the binding with the training: scaling, mean, order of the channels.",
    )


def _cause(
    fed: _Fed, expected: Expectation, moments: Moments, misfit_of: Callable[[Change], float], rows: int
) -> str | None:
    """What would fit much better than what is fed; None where nothing is known that would."""
    misfit = expected.moments.misfit(moments)
    unit = replace(moments, mean=np.zeros_like(moments.mean), spread=np.ones_like(moments.spread))
    if expected.kind == "normalisation" and misfit >= _MISFIT and unit.misfit(moments) * _BETTER <= misfit:
        return "The values seem to be normalised already, and the graph does it again: feed them as they were."
    candidates = [(words, misfit_of(change)) for words, change in _candidates(fed, scalings=misfit >= _MISFIT)]
    if not candidates:
        return None
    words, best = min(candidates, key=lambda found: found[1])
    least = _ORDER_MISFIT if words == _SWAPPED and rows >= _FEWEST else _MISFIT
    if misfit < least or best * _BETTER > misfit:
        return None
    return f"{words[0].upper()}{words[1:]} would fit better (misfit {best:.2g} instead of {misfit:.2g})."


def _scaled_twice(fed: _Fed, expected: Expectation, moments: Moments) -> Finding | None:
    """A scale alone says only how large values are, roughly."""
    unit = float(np.median(expected.moments.spread))
    size = float(np.median(np.hypot(moments.mean, moments.spread))) / unit
    if 1 / 50 < size < 50:  # noqa: PLR2004
        return None
    return _mismatch(
        f"The graph divides what is fed to {fed.name!r} by {unit:.3g}, and {fed.low:.3g} to {fed.high:.3g} were fed: {size:.2g} "
        "is left of it, where about 1 is usual.",
        "The values seem to be scaled twice, or not enough: compare the steps of the binding with the training.",
    )


def compare_answers(calibration: Bound, model: onnx_ir.Model, samples: int, workspace: Path) -> tuple[Finding, ...]:
    """Feed pictures in other orders and scalings, and say so where a classifier then knows its classes much better.

    A classifier that gets what it was trained on is sure of its answers, and gives many different ones: they tell much about
    the sample (mutual information, in nats). This needs no labels and no statistics in the graph. Logits are compared at the
    same spread, because larger inputs alone make larger logits.

    Costs up to six runs of the model on 16 rows, and of what comes close on 64 rows.

    Args:
        calibration: The rows that calibration used are its first ``samples``.
        model: The float model, with one output of scores or probabilities [rows, classes].
        samples: How many rows were used.
        workspace: Folder for the file that the runtime loads.

    Raises:
        RuntimeFailed: The model does not run on the rows.
    """
    from accel.graph.temporary import opened

    feeds = [
        f for f in calibration.feeds if f.rows is not None and f.port.dtype is not None and f.port.dtype.kind == "f"
    ]
    rows = min(samples, len(calibration))
    if len(feeds) != 1 or rows < _LOOKED_AT:
        return ()
    fed = _look(feeds[0], _stream(calibration, rows))
    if fed.channels is None:
        return ()
    session = opened(model, workspace)

    def answers(change: Change, looked: int) -> npt.NDArray[np.float64]:
        stream = _stream(calibration, rows, looked)
        feed = ({**batch, fed.name: np.ascontiguousarray(change(batch[fed.name]))} for batch in stream())
        return np.concatenate([_logits(session.run(f, [calibration.output])[calibration.output]) for f in feed])

    given = answers(lambda values: values, _FEWEST)
    if given.ndim != 2 or given.shape[1] < 3:  # noqa: PLR2004  (rows of at least three classes)
        return ()
    spread = float(given.std())
    told = _told(given, spread)
    close = [
        (words, change)
        for words, change in _candidates(fed, scalings=True)
        if _told(answers(change, _FEWEST), spread).mean() > told.mean()
    ]
    best, best_gain = "", 0.0
    if close:
        given = answers(lambda values: values, _ANSWERS)
        spread = float(given.std())
        told = _told(given, spread)
    for words, change in close:
        gain = _told(answers(change, _ANSWERS), spread) - told
        certain = gain.mean() >= _SURE * gain.std(ddof=1) / math.sqrt(len(gain))
        if certain and gain.mean() > max(best_gain, _GAIN):
            best, best_gain = words, float(gain.mean())
    if not best:
        return ()
    return (
        _mismatch(
            f"The model knows its classes better when {fed.name!r} is fed {best}: its answers on {len(told)} samples tell "
            f"{told.mean() + best_gain:.2f} nats about the sample instead of {told.mean():.2f}.",
            "Compare the steps of the binding with the training: scaling, mean, order of the channels.",
        ),
    )


def _logits(output: Array) -> npt.NDArray[np.float64]:
    """Scores with a mean of 0 in each row; probabilities become their logarithms."""
    scores = output.astype(np.float64)
    if scores.min() >= 0 and np.allclose(scores.sum(-1), 1, atol=1e-3):
        scores = np.log(np.maximum(scores, 1e-12))
    scores -= scores.mean(-1, keepdims=True)
    return scores


def _told(logits: npt.NDArray[np.float64], spread: float) -> npt.NDArray[np.float64]:
    """How many nats each answer tells: its divergence from the mean answer."""
    scaled = logits * (spread / max(float(logits.std()), 1e-12))
    chances = np.exp(scaled - scaled.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    told: npt.NDArray[np.float64] = (
        chances * np.log(np.maximum(chances, 1e-30) / np.maximum(chances.mean(0), 1e-30))
    ).sum(1)
    return told


_SWAPPED = "channels in the opposite order (BGR instead of RGB, or the other way round)"
_IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)


def _candidates(fed: _Fed, *, scalings: bool) -> list[tuple[str, Change]]:
    """Other preprocessings of the same pictures; without ``scalings``, the order of channels alone."""
    axis = fed.channels
    if axis is None:
        return []
    found: list[tuple[str, Change]] = [(_SWAPPED, lambda x: np.flip(x, axis))]
    mean, std = (part.reshape([3 if a == axis else 1 for a in range(_IMAGE_RANK)]) for part in _IMAGENET)
    forms: dict[str, tuple[Change, Change]] = {
        "pixels from 0 to 255": (lambda x: x, lambda x: x),
        "pixels from 0 to 1": (lambda x: x * 255, lambda x: x / 255),
        "pixels from -1 to 1": (lambda x: (x + 1) * 127.5, lambda x: x / 127.5 - 1),
        "pixels normalised by the mean and the spread of ImageNet": (
            lambda x: (x * std + mean) * 255,
            lambda x: (x / 255 - mean) / std,
        ),
    }
    ranges = ((0, 255), (0, 1), (-1, 1), (-2.2, 2.7))
    limits = dict(zip(forms, ranges, strict=True))
    fitting = [name for name, (low, high) in limits.items() if low - 0.02 <= fed.low and fed.high <= high + 0.02]
    if not scalings or not fitting:
        return found
    given = min(fitting, key=lambda name: limits[name][1] - limits[name][0])
    back = forms[given][0]
    return found + [(n, lambda x, to=to: to(back(x)).astype(x.dtype)) for n, (_, to) in forms.items() if n != given]


def _mismatch(message: str, hint: str) -> Finding:
    return Finding(code="preprocessing_mismatch", severity="warning", message=message, hint=hint)
