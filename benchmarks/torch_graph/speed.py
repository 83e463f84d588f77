"""Forward and backward of two networks, by the graph and as plain modules, in turn and each in a process of its own."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from quantization.process import Bounds, run
from quantization.table import Goal, Section
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (as everybody calls it)

from accel.graph.load import load
from accel.graph.torch_graph.executable import executable
from accel.graph.torch_graph.graph import TorchGraph
from torch_graph.networks import EfficientNetLite0, FashionCnn, Network, loaded

_HERE = Path(__file__).resolve()
_GOAL = 1.3
_WARM_UP = 3
_SECONDS = 5.0
_SAME = 1e-4
_TIMEOUT_S = 900.0

Step = Callable[[], Tensor]


def networks(data: Path) -> dict[str, Network]:
    """What is compared."""
    return {
        "fashion_cnn": Network(_HERE.parents[2] / "examples/fashion_cnn.onnx", FashionCnn, (1, 28, 28), 64),
        "efficientnet_lite0": Network(data / "efficientnet_lite0.onnx", EfficientNetLite0, (3, 224, 224), 8),
    }


def measure(data: Path, turns: int, section: Section) -> None:
    """Fill the section."""
    section.begin(
        "Speed",
        ("network", "batch", "graph", "plain module", "ratio", "of the turns", "outputs and gradients apart"),
        "Milliseconds of a step forward and backward (cross-entropy) in the median of a turn.",
    )
    for name, network in networks(data).items():
        apart = _child("compare", name, data)
        pairs = []
        for turn in range(turns):
            took = {way: _child(way, name, data) for way in (("graph", "plain") if turn % 2 else ("plain", "graph"))}
            pairs.append((took["graph"], took["plain"]))
        ratios = sorted(ours / theirs for ours, theirs in pairs)
        ratio = statistics.median(ratios)
        ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        section.rows.append((name, network.batch_size, ours, theirs, f"{ratio:.2f}", spread, f"{apart:.0e}"))
        section.goals += [
            Goal(f"the plain {name} computes the same", f"{apart:.0e}", f"<= {_SAME:.0e}", met=apart <= _SAME),
            Goal(f"a step of {name} over one of the plain module", f"{ratio:.2f}", f"<= {_GOAL}", met=ratio <= _GOAL),
        ]


def child(way: str, name: str, data: Path) -> float:
    """What a process of its own does: milliseconds of a step, or for ``compare`` how far the two are apart."""
    network = networks(data)[name]
    chance = torch.Generator().manual_seed(0)
    images = torch.randn((network.batch_size, *network.input_shape), generator=chance)
    sides = {"graph": _graph, "plain": _plain}
    if way != "compare":
        return _timed(sides[way](network, images)[0])
    found = []
    for make in sides.values():
        step, gradients = make(network, images)
        found.append({"loss": step(), **gradients()})
    ours, theirs = found
    return max(float((ours[key] - theirs[key]).norm() / theirs[key].norm()) for key in theirs)


def _graph(network: Network, images: Tensor) -> tuple[Step, Callable[[], Mapping[str, Tensor]]]:
    graph = TorchGraph(executable(load(network.path)))
    (given,), (taken,) = graph.inputs, graph.outputs
    forward: Callable[[], Tensor] = lambda: graph({given: images})[taken]  # noqa: E731
    return _step(graph, forward), lambda: _gradients(graph)


def _plain(network: Network, images: Tensor) -> tuple[Step, Callable[[], Mapping[str, Tensor]]]:
    module = loaded(network)
    return _step(module, lambda: module(images)), lambda: _gradients(module)


def _step(module: torch.nn.Module, forward: Callable[[], Tensor]) -> Step:
    parameters = list(module.parameters())

    def step() -> Tensor:
        for parameter in parameters:
            parameter.grad = None
        logits = forward()
        loss = F.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[1])
        loss.backward()
        return loss.detach()

    return step


def _gradients(module: torch.nn.Module) -> dict[str, Tensor]:
    """Sums of each weight's gradient and of its square, sorted by these: the two name and order weights in other ways."""
    found = [parameter.grad.flatten() for parameter in module.parameters() if parameter.grad is not None]
    return {
        f"{place}": gradient
        for place, gradient in enumerate(sorted(found, key=lambda one: (len(one), float(one.norm()))))
    }


def _timed(step: Step) -> float:
    for _ in range(_WARM_UP):
        step()
    samples = []
    until = time.perf_counter() + _SECONDS
    while not samples or time.perf_counter() < until:
        begun = time.perf_counter()
        step()
        samples.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(samples)


def _child(way: str, name: str, data: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        ended = run(
            [
                sys.executable,
                str(_HERE.parents[1] / "torch_graph.py"),
                "--child",
                way,
                name,
                "--data",
                str(data.resolve()),
            ],
            None,
            folder=Path(folder),
            environment={**os.environ, "PYTHONPATH": f"{_HERE.parents[2]}:{_HERE.parents[1]}"},
            bounds=Bounds(_TIMEOUT_S, 12e9),
        )
    if ended.code:
        raise RuntimeError(ended.reason)
    return float(json.loads(ended.stdout.splitlines()[-1]))
