"""Sequences and optional values, in graphs of a few nodes, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from accel.errors import TrainingFailed
from accel.graph.torch_graph.graph import TorchGraph, nothing
from tests.onnxruntime_reference import reference

X = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)


def chain(nodes: Sequence[onnx.NodeProto], constants: dict[str, Any], *, opset: int = 17) -> onnx.ModelProto:
    """A graph from ``x0`` to ``y0``."""
    x = helper.make_tensor_value_info("x0", TensorProto.FLOAT, [5, 4])
    held = [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "chain", [x], [helper.make_empty_tensor_value_info("y0")], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def found(model: onnx.ModelProto) -> torch.Tensor:
    y = TorchGraph(ir.from_proto(model), nothing)({"x0": torch.from_numpy(X)})["y0"]
    assert isinstance(y, torch.Tensor)
    return y


def agrees(nodes: Sequence[onnx.NodeProto], constants: dict[str, Any], *, opset: int = 17) -> None:
    model = chain(nodes, constants, opset=opset)
    torch.testing.assert_close(found(model), torch.from_numpy(np.array(reference(model, [X])[0])))


SPLIT = helper.make_node("SplitToSequence", ["x0", "sizes"], ["parts"], axis=0)
SIZES = {"sizes": [1, 3, 1]}


@pytest.mark.parametrize("place", [0, 2, -1, -3])
def test_one_of_the_parts(place: int) -> None:
    agrees([SPLIT, helper.make_node("SequenceAt", ["parts", "place"], ["y0"])], {**SIZES, "place": place})


@pytest.mark.parametrize("place", [None, 0, 2, 3, -1, -3])
@pytest.mark.parametrize("axis", [0, -2])
def test_a_part_put_in(axis: int, place: int | None) -> None:
    nodes = [
        SPLIT,
        helper.make_node("SequenceInsert", ["parts", "x0", *([] if place is None else ["place"])], ["more"]),
        helper.make_node("ConcatFromSequence", ["more"], ["y0"], axis=axis),
    ]
    agrees(nodes, SIZES if place is None else {**SIZES, "place": place})


@pytest.mark.parametrize("place", [None, 0, 2, -1, -3])
def test_a_part_taken_out(place: int | None) -> None:
    nodes = [
        SPLIT,
        helper.make_node("SequenceErase", ["parts", *([] if place is None else ["place"])], ["fewer"]),
        helper.make_node("ConcatFromSequence", ["fewer"], ["y0"], axis=0),
    ]
    agrees(nodes, SIZES if place is None else {**SIZES, "place": place})


@pytest.mark.parametrize(("operator", "last"), [("SequenceInsert", 3), ("SequenceErase", 2)])
def test_a_place_that_is_not_there_is_said(operator: str, last: int) -> None:
    for place in (last + 1, -4):
        given = ["parts", "x0", "place"] if operator == "SequenceInsert" else ["parts", "place"]
        nodes = [SPLIT, helper.make_node(operator, given, ["n"]), helper.make_node("SequenceLength", ["n"], ["y0"])]
        with pytest.raises(TrainingFailed, match=f"there is no place {place} in a sequence of 3 tensors"):
            found(chain(nodes, {**SIZES, "place": place}))


@pytest.mark.parametrize("sizes", [None, 2, 5, 9, [2, 3]])
@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("opset", [11, 24])
def test_parts_side_by_side_or_end_to_end(opset: int, kept: int, sizes: Any) -> None:
    given = ["x0"] if sizes is None else ["x0", "sizes"]
    # with sizes the standard leaves keepdims aside; the runtime fails on a single one
    keep = 1 if isinstance(sizes, int) else kept
    split = helper.make_node("SplitToSequence", given, ["parts"], keepdims=keep)
    constants = {} if sizes is None else {"sizes": sizes}
    agrees([split, helper.make_node("SequenceLength", ["parts"], ["y0"])], constants, opset=opset)
    if sizes is None and not kept:
        agrees([split, helper.make_node("ConcatFromSequence", ["parts"], ["y0"], axis=-1, new_axis=1)], {}, opset=opset)
    else:
        agrees([split, helper.make_node("ConcatFromSequence", ["parts"], ["y0"], axis=0)], constants, opset=opset)


def test_with_sizes_the_axis_is_always_kept() -> None:
    split = helper.make_node("SplitToSequence", ["x0", "sizes"], ["parts"], keepdims=0)
    join = helper.make_node("ConcatFromSequence", ["parts"], ["y0"], axis=0)
    np.testing.assert_array_equal(found(chain([split, join], {"sizes": 1})), X)


def test_a_sequence_that_is_made() -> None:
    nodes = [
        helper.make_node("SequenceConstruct", ["x0", "x0"], ["parts"]),
        helper.make_node("ConcatFromSequence", ["parts"], ["y0"], axis=1, new_axis=1),
    ]
    agrees(nodes, {})
    empty = [helper.make_node("SequenceEmpty", [], ["none"]), helper.make_node("SequenceLength", ["none"], ["y0"])]
    agrees(empty, {})
    erased = [
        empty[0],
        helper.make_node("SequenceErase", ["none"], ["n"]),
        helper.make_node("SequenceLength", ["n"], ["y0"]),
    ]
    with pytest.raises(TrainingFailed, match="there is no place -1 in a sequence of 0 tensors"):
        found(chain(erased, {}))


def test_a_part_that_was_put_in_is_not_in_the_sequence_before() -> None:
    nodes = [
        helper.make_node("SequenceConstruct", ["x0"], ["one"]),
        helper.make_node("SequenceInsert", ["one", "x0"], ["two"]),
        helper.make_node("SequenceErase", ["two"], ["again"]),
        helper.make_node("SequenceLength", ["one"], ["y0"]),
    ]
    assert found(chain(nodes, {})).tolist() == 1


def test_gradients_pass_through_sequences() -> None:
    nodes = [
        SPLIT,
        helper.make_node("SequenceErase", ["parts", "place"], ["fewer"]),
        helper.make_node("ConcatFromSequence", ["fewer"], ["y0"], axis=0),
    ]
    graph = TorchGraph(ir.from_proto(chain(nodes, {**SIZES, "place": 1})), nothing)
    x = torch.from_numpy(X).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda value: graph({"x0": value})["y0"], [x])


def test_optional_values() -> None:
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Optional", ["x0"], ["some"]),
        helper.make_node("OptionalGetElement", ["some"], ["y0"]),
    ]
    agrees(nodes, {})
    agrees([nodes[0], helper.make_node("OptionalHasElement", ["some"], ["y0"])], {})
    none = helper.make_node("Optional", [], ["none"], type=tensor)
    agrees([none, helper.make_node("OptionalHasElement", ["none"], ["y0"])], {})
    agrees([helper.make_node("OptionalHasElement", ["x0"], ["y0"])], {}, opset=18)
    agrees([helper.make_node("OptionalHasElement", [], ["y0"])], {}, opset=18)
    with pytest.raises(TrainingFailed, match="the optional value is empty"):
        found(chain([none, helper.make_node("OptionalGetElement", ["none"], ["y0"])], {}))
