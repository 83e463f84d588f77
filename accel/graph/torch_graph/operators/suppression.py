"""NonMaxSuppression: the best of boxes that lie on one another."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator


@operator("NonMaxSuppression", since=10)
def non_max_suppression(node: Node) -> Run:
    """For each image and class, boxes by falling score, without those that overlap a better one too much.

    Boxes [images, boxes, 4], scores [images, classes, boxes]; gives [chosen, 3] int64: image, class and box.
    """
    centred = bool(node.int("center_point_box", 0))

    def run(
        boxes: Tensor,
        scores: Tensor,
        most: Tensor | None = None,
        overlap: Tensor | None = None,
        least: Tensor | None = None,
    ) -> Tensor:
        count = 0 if most is None else int(most)
        limit = 0.0 if overlap is None else overlap.item()
        floor = None if least is None else least.item()
        lows, highs = _corners(boxes.detach(), centred=centred)
        found = [
            (image, kind, box)
            for image, classes in enumerate(scores.detach())
            for kind, row in enumerate(classes)
            for box in _best(lows[image], highs[image], row, floor, count, limit)
        ]
        return torch.tensor(found, dtype=torch.int64).reshape(-1, 3)

    return run


def _corners(boxes: Tensor, *, centred: bool) -> tuple[Tensor, Tensor]:
    """Lower and upper corners [images, boxes, 2] each."""
    first, second = boxes[..., :2], boxes[..., 2:]
    if centred:
        return first - second / 2, first + second / 2
    return torch.minimum(first, second), torch.maximum(first, second)


def _best(lows: Tensor, highs: Tensor, scores: Tensor, floor: float | None, most: int, limit: float) -> Iterator[int]:
    """Numbers of the boxes that are kept, the best first. Each round keeps one and drops what overlaps it."""
    order = scores.sort(descending=True, stable=True).indices
    if floor is not None:
        order = order[scores[order] > floor]
    lows, highs = lows[order], highs[order]
    areas = (highs - lows).prod(-1)
    for _ in range(most):
        if not order.numel():
            return
        yield int(order[0])
        sides = (torch.minimum(highs, highs[0]) - torch.maximum(lows, lows[0])).clamp(min=0)
        shared = sides.prod(-1)
        # a box without area overlaps nothing: 0 / 0 is not greater than any limit
        apart = ~(shared / (areas + areas[0] - shared) > limit)
        apart[0] = False
        order, lows, highs, areas = order[apart], lows[apart], highs[apart], areas[apart]
