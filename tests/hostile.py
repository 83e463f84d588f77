"""Files that try to break the engine, made when a test asks for them; none is kept in the repository."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests import models


@dataclass(frozen=True)
class Hostile:
    """A file, the code that refuses it, and a word that the message and hint must hold between them."""

    name: str
    make: Callable[[], bytes]
    code: str
    says: str


def external(name: str = "w") -> TensorProto:
    """A tensor that claims to lie in /etc/passwd."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    return tensor


def _value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])


def _model(nodes: list[onnx.NodeProto], **more: object) -> onnx.ModelProto:
    return models.assemble(nodes, [_value("x")], [_value("y")], **more)


def _external_initializer() -> bytes:
    model = _model([helper.make_node("Add", ["x", "w"], ["y"], "add")])
    model.graph.initializer.append(external())
    return model.SerializeToString()


def _external_constant() -> bytes:
    nodes = [
        helper.make_node("Constant", [], ["w"], "hidden", value=external()),
        helper.make_node("Add", ["x", "w"], ["y"], "add"),
    ]
    return _model(nodes).SerializeToString()


def _external_in_if() -> bytes:
    def branch(name: str) -> onnx.GraphProto:
        node = helper.make_node("Add", ["x", "inner_w"], [f"{name}_y"], name)
        return helper.make_graph([node], name, [], [_value(f"{name}_y")], [external("inner_w")])

    nodes = [
        helper.make_node("Constant", [], ["yes"], "yes", value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["yes"], ["y"], "if", then_branch=branch("a"), else_branch=branch("b")),
    ]
    return _model(nodes).SerializeToString()


def _external_in_function() -> bytes:
    function = helper.make_function(
        "local",
        "AddSecret",
        ["a"],
        ["b"],
        [
            helper.make_node("Constant", [], ["w"], "hidden", value=external()),
            helper.make_node("Add", ["a", "w"], ["b"], "add"),
        ],
        [helper.make_opsetid("", models.OPSET)],
    )
    node = helper.make_node("AddSecret", ["x"], ["y"], "call", domain="local")
    return _model([node], domains=["local"], functions=[function]).SerializeToString()


def _external_in_function_default() -> bytes:
    constant = helper.make_node("Constant", [], ["w"], "hidden")
    constant.attribute.add(name="value", ref_attr_name="secret", type=onnx.AttributeProto.TENSOR)
    function = helper.make_function(
        "local",
        "AddSecret",
        ["a"],
        ["b"],
        [constant, helper.make_node("Add", ["a", "w"], ["b"], "add")],
        [helper.make_opsetid("", models.OPSET)],
        attribute_protos=[helper.make_attribute("secret", external())],
    )
    node = helper.make_node("AddSecret", ["x"], ["y"], "call", domain="local")
    return _model([node], domains=["local"], functions=[function]).SerializeToString()


def _external_sparse() -> bytes:
    model = _model([helper.make_node("Add", ["x", "w"], ["y"], "add")])
    indices = numpy_helper.from_array(np.array([0, 1, 2, 3]), "")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(external(), indices, [4]))
    return model.SerializeToString()


def _unknown_domain() -> bytes:
    return _model([helper.make_node("Rogue", ["x"], ["y"], "rogue", domain="evil.corp")], domains=["evil.corp"])\
        .SerializeToString()  # fmt: skip


def _unknown_operator() -> bytes:
    return _model([helper.make_node("Rogue", ["x"], ["y"], "rogue")]).SerializeToString()


def _ep_context() -> bytes:
    node = helper.make_node("EPContext", ["x"], ["y"], "ctx", domain="com.microsoft", ep_cache_context="/tmp/x.so")
    return _model([node], domains=["com.microsoft"]).SerializeToString()


def _raw_data_too_short() -> bytes:
    model = _model([helper.make_node("Add", ["x", "w"], ["y"], "add")])
    model.graph.initializer.append(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], raw_data=b"\0" * 12))
    return model.SerializeToString()


def _raw_data_terabytes() -> bytes:
    model = _model([helper.make_node("Add", ["x", "w"], ["y"], "add")])
    dims = [2**20, 2**20, 2**20]
    model.graph.initializer.append(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=b"\0" * 12))
    return model.SerializeToString()


def _nothing_held() -> bytes:
    model = _model([helper.make_node("Add", ["x", "w"], ["y"], "add")])
    model.graph.initializer.append(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**30]))
    return model.SerializeToString()


def _negative_dimension() -> bytes:
    model = _model([helper.make_node("Add", ["x", "w"], ["y"], "add")])
    model.graph.initializer.append(
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-2, -2], raw_data=b"\0" * 16)
    )
    return model.SerializeToString()


def nested(depth: int) -> bytes:
    """A model whose If nodes are nested so deep, written byte by byte: protobuf's own objects cannot go far enough."""
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y0"], "deepest")], "g", [], [_value("y0")])
    inner = graph.SerializeToString()
    for level in range(1, depth + 1):
        name = f"y{level}" if level < depth else "y"
        other = helper.make_node("Identity", ["x"], [f"other{level}"], f"other{level}")
        shallow = helper.make_graph([other], "g", [], [_value(f"other{level}")])
        choose = helper.make_node("If", ["yes"], [name], f"if{level}", else_branch=shallow).SerializeToString()
        # AttributeProto: name (1), type (20) GRAPH (5), g (6). NodeProto: attribute (5). GraphProto: node (1), output (12).
        branch = _field(1, b"then_branch") + b"\xa0\x01\x05" + _field(6, inner)
        inner = _field(1, choose + _field(5, branch)) + _field(2, b"g") + _field(12, _value(name).SerializeToString())
    constant = helper.make_node("Constant", [], ["yes"], "yes", value=numpy_helper.from_array(np.array(True)))
    model = _model([])
    model.graph.Clear()
    # ModelProto: graph (7). Fields of one message that come in two pieces are merged.
    outer = _field(1, constant.SerializeToString()) + inner + _field(11, _value("x").SerializeToString())
    return model.SerializeToString() + _field(7, outer)


def _field(number: int, content: bytes) -> bytes:
    """A protobuf field with a length."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def zipped(members: dict[str, bytes]) -> bytes:
    """A zip archive in memory."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _pickle() -> bytes:
    # Protocol 4, what pickle.dumps(os.system) begins like; written by hand because nothing here makes pickles.
    return b"\x80\x04\x95\x11\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."


def _safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0" * 4


def _truncated() -> bytes:
    whole = models.convnet().SerializeToString()
    return whole[: len(whole) * 2 // 3]


def _no_output() -> bytes:
    model = _model([helper.make_node("Identity", ["x"], ["y"], "id")])
    del model.graph.output[:]
    return model.SerializeToString()


def _dangling_input() -> bytes:
    return _model([helper.make_node("Add", ["x", "nowhere"], ["y"], "add")]).SerializeToString()


def _many_nodes() -> bytes:
    nodes = [helper.make_node("Identity", ["x"], [f"t{i}"]) for i in range(100_001)]
    return _model([*nodes, helper.make_node("Identity", ["x"], ["y"])]).SerializeToString()


FILES: tuple[Hostile, ...] = (
    Hostile("empty", lambda: b"", "bad_model", "empty"),
    Hostile("text", lambda: b"<!DOCTYPE html>\n<title>404</title>\n", "bad_model", "text"),
    Hostile("git_lfs", lambda: b"version https://git-lfs.github.com/spec/v1\nsize 1\n", "bad_model", "git-lfs"),
    Hostile("truncated", _truncated, "bad_model", "cut off"),
    Hostile("noise", lambda: np.random.default_rng(1).bytes(4096), "bad_model", "not an ONNX model"),
    Hostile("no_output", _no_output, "bad_model", "no output"),
    Hostile("dangling_input", _dangling_input, "bad_model", "nowhere"),
    Hostile("external_initializer", _external_initializer, "external_data", "'w'"),
    Hostile("external_constant", _external_constant, "external_data", "'hidden'"),
    Hostile("external_in_if", _external_in_if, "external_data", "'inner_w'"),
    Hostile("external_in_function", _external_in_function, "external_data", "'hidden'"),
    Hostile("external_in_function_default", _external_in_function_default, "external_data", "secret"),
    Hostile("external_sparse", _external_sparse, "external_data", "'w'"),
    Hostile("unknown_domain", _unknown_domain, "unknown_operator", "evil.corp"),
    Hostile("unknown_operator", _unknown_operator, "unknown_operator", "Rogue"),
    Hostile("ep_context", _ep_context, "unknown_operator", "compiled"),
    Hostile("raw_data_too_short", _raw_data_too_short, "bad_model", "holds 12"),
    Hostile("raw_data_terabytes", _raw_data_terabytes, "too_large", "elements"),
    Hostile("nothing_held", _nothing_held, "bad_model", "holds 0"),
    Hostile("negative_dimension", _negative_dimension, "bad_model", "negative"),
    Hostile("many_nodes", _many_nodes, "too_large", "nodes"),
    Hostile("pickle", _pickle, "unsupported_format", "torch.onnx.export"),
    Hostile(
        "torchscript",
        lambda: zipped({"m/data.pkl": b"\x80\x02.", "m/constants.pkl": b"\x80\x02.", "m/code/m.py": b""}),
        "unsupported_format",
        "torch.onnx.export",
    ),
    Hostile(
        "pt_state_dict",
        lambda: zipped({"m/data.pkl": b"\x80\x02.", "m/data/0": b"\0" * 64}),
        "unsupported_format",
        "torch.onnx.export",
    ),
    Hostile(
        "pt2",
        lambda: zipped({"m/archive_format": b"pt2", "m/models/model.json": b"{}"}),
        "unsupported_format",
        ".pt2",
    ),
    Hostile(
        "keras",
        lambda: zipped({"metadata.json": b"{}", "config.json": b"{}", "model.weights.h5": b"\x89HDF\r\n\x1a\n"}),
        "unsupported_format",
        "model.export",
    ),
    Hostile("h5", lambda: b"\x89HDF\r\n\x1a\n" + b"\0" * 512, "unsupported_format", "model.export"),
    Hostile("npz", lambda: zipped({"x_test.npy": b"\x93NUMPY"}), "unsupported_format", "/v1/datasets"),
    Hostile("zip", lambda: zipped({"model.onnx": b"x", "model.onnx.data": b"y"}), "unsupported_format", "zip"),
    Hostile("gguf", lambda: b"GGUF\x03\0\0\0" + b"\0" * 64, "unsupported_format", "GGUF"),
    Hostile("tflite", lambda: b"\x1c\0\0\0TFL3" + b"\0" * 64, "unsupported_format", "tf2onnx"),
    Hostile("safetensors", _safetensors, "unsupported_format", "safetensors"),
    Hostile("gzip", lambda: b"\x1f\x8b\x08" + b"\0" * 64, "unsupported_format", "gzip"),
    Hostile("program", lambda: b"\x7fELF" + b"\0" * 64, "unsupported_format", "program"),
)
"""Model files that must be refused."""
