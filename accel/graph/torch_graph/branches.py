"""Take the branch of an If out of it, so that its nodes can be looked at one by one."""

from __future__ import annotations

import onnx_ir as ir

from accel.graph.load import copied


def with_branch(model: ir.Model, output: str, *, taken: bool) -> ir.Model:
    """A copy with the branch of an If in place of the If.

    Args:
        model: A model without functions of its own.
        output: An output of the If, which is a node of the main graph.
        taken: Whether it is the branch for a condition that holds.
    """
    copy = copied(model)
    graph = copy.graph
    node = next(node for node in graph if output in {value.name for value in node.outputs})
    branch = node.attributes["then_branch" if taken else "else_branch"].as_graph()
    # Two branches may use one name for values of their own.
    known = {value.name for other in graph for value in other.outputs} | {value.name for value in graph.inputs}
    known |= graph.initializers.keys()
    for value in list(branch.initializers.values()):
        branch.initializers.pop(value.name or "")
        value.name = _free(value.name or "", known)
        graph.initializers.add(value)
    for inner in list(branch):
        branch.remove(inner)
        for value in inner.outputs:
            value.name = _free(value.name or "", known) if value.name else value.name
        graph.insert_before(node, inner)
    for place, (outer, given) in enumerate(zip(node.outputs, branch.outputs, strict=True)):
        name, outer.name = outer.name, None
        passed = ir.Node("", "Identity", [given], name=f"{node.name}_{place}")
        passed.outputs[0].name, passed.outputs[0].type, passed.outputs[0].shape = name, outer.type, outer.shape
        graph.insert_before(node, passed)
        ir.convenience.replace_all_uses_with(outer, passed.outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return copy


def _free(name: str, known: set[str | None]) -> str:
    """The name, with a number where another value has it; it is known from now on."""
    free, number = name, 1
    while free in known:
        free, number = f"{name}_{number}", number + 1
    known.add(free)
    return free
