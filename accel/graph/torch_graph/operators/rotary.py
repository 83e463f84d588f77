"""Places told by turning pairs of numbers (RoPE, Su et al. 2021, arXiv 2104.09864)."""

from __future__ import annotations

import torch
from torch import Tensor

from accel.graph.torch_graph.attention import heads, merged
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator, unsupported


@operator("RotaryEmbedding", since=23)
def rotary_embedding(node: Node) -> Run:
    """Each head turned by angles that its place has; sines and cosines are given, for all places or for these."""
    count, size, interleaved = _attributes(node)

    def run(x: Tensor, cosines: Tensor, sines: Tensor, places: Tensor | None = None) -> Tensor:
        if places is not None:
            cosines, sines = cosines[places], sines[places]
        flat = x.ndim == 3  # noqa: PLR2004  (heads side by side)
        turned = rotated(heads(x, count) if flat else x, cosines, sines, size, interleaved=interleaved)
        return merged(turned) if flat else turned

    return run


@operator("RotaryEmbedding", domain="com.microsoft")
def rotary_embedding_by_places(node: Node) -> Run:
    """As ONNX's own, with the places as the second input; one place is that of the first of a sequence.

    Without ``num_heads`` the last axis of the sines tells how large a head is.
    """
    count, size, interleaved = _attributes(node)
    if node.float("scale", 1.0) != 1:
        raise unsupported(node, "it scales what it turns")
    if node.int("is_packed_batching", 0):
        raise unsupported(node, "its sequences are laid end to end (is_packed_batching)")

    def run(x: Tensor, places: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        flat = x.ndim == 3  # noqa: PLR2004  (heads side by side)
        length = x.shape[1] if flat else x.shape[2]
        if places.numel() == 1:
            places = (places.reshape(1, 1) + torch.arange(length, device=places.device)).expand(x.shape[0], length)
        given = heads(x, count or x.shape[-1] // (2 * cosines.shape[-1])) if flat else x
        turned = rotated(given, cosines[places], sines[places], size, interleaved=interleaved)
        return merged(turned) if flat else turned

    return run


def rotated(x: Tensor, cosines: Tensor, sines: Tensor, size: int, *, interleaved: bool) -> Tensor:
    """Pairs of numbers turned by angles.

    Args:
        x: [batch, heads, places, head size].
        cosines: [batch, places, size / 2].
        sines: As ``cosines``.
        size: How much of a head is turned; 0 for all of it.
        interleaved: Whether pairs are neighbours; otherwise the second of each is half of ``size`` further.
    """
    whole = size == 0 or size == x.shape[-1]
    part = x if whole else x[..., :size]
    first, second = (part[..., ::2], part[..., 1::2]) if interleaved else part.chunk(2, -1)
    cosines, sines = cosines.unsqueeze(1), sines.unsqueeze(1)
    pair = cosines * first - sines * second, sines * first + cosines * second
    turned = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    return turned if whole else torch.cat([turned, x[..., size:]], -1)


def _attributes(node: Node) -> tuple[int, int, bool]:
    return node.int("num_heads", 0), node.int("rotary_embedding_dim", 0), bool(node.int("interleaved", 0))
