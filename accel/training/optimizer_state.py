"""What an optimiser keeps between steps, as tensors and JSON."""

from __future__ import annotations

import json
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def taken(optimizer: Optimizer) -> tuple[str, dict[str, Tensor]]:
    """Its state: numbers as JSON, and tensors by the parameter's number and their name."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for place, held in state["state"].items():
        for name, value in held.items():
            if isinstance(value, Tensor):
                tensors[f"{place}.{name}"] = value
            else:
                numbers.setdefault(str(place), {})[name] = value
    return json.dumps({"state": numbers, "groups": state["param_groups"]}), tensors


def put_back(optimizer: Optimizer, said: str, tensors: dict[str, Tensor]) -> None:
    """Restore a state that was taken."""
    read = json.loads(said)
    state: dict[int, dict[str, Any]] = {int(place): dict(held) for place, held in read["state"].items()}
    for key, held in tensors.items():
        place, _, name = key.partition(".")
        state.setdefault(int(place), {})[name] = held
    optimizer.load_state_dict({"state": state, "param_groups": read["groups"]})
