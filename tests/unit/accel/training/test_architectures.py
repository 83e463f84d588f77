"""Architectures: each writes a graph that runs in ONNX Runtime and in the differentiable executor alike."""

from __future__ import annotations

import math
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from accel.errors import AccelError, BindingMismatch, TooLarge, TrainingFailed
from accel.graph.inspect import summarize
from accel.graph.prepare import prepare
from accel.graph.torch_graph.graph import TorchGraph
from accel.training.architecture import Architecture
from accel.training.architectures import ARCHITECTURES, AnyArchitecture, adapter
from accel.training.architectures.cnn import Cnn
from accel.training.architectures.conv1d import Conv1d
from accel.training.architectures.mlp import Mlp
from accel.training.architectures.mobilenet import Mobilenet
from accel.training.architectures.recurrent import Recurrent
from accel.training.architectures.resnet import Resnet
from accel.training.architectures.timm import Timm
from accel.training.architectures.transformer import Transformer
from accel.training.default_architecture import default_architecture
from accel.training.input_shapes import InputShape
from accel.training.losses import Task

GREY = InputShape("x", "uint8", (28, 28), ids=256)
COLOUR = InputShape("x", "uint8", (32, 32, 3), ids=256)
PLANES = InputShape("x", "float32", (3, 32, 32))
TABLE = InputShape("x", "float32", (16,))
AUDIO = InputShape("x", "int16", (2000,))
SENSORS = InputShape("x", "float32", (6, 128))
STEPS = InputShape("x", "float32", (100, 4))
TEXT = InputShape("x", "int16", (12,), ids=50)

FITTING: list[tuple[Architecture, tuple[InputShape, ...]]] = [
    (Mlp(), (TABLE,)),
    (Mlp(hidden=(), batch_norm=False), (GREY,)),
    (
        Mlp(hidden=(9,), activation="silu", dropout=0.5),
        (TABLE, InputShape("age", "int64", ()), InputShape("photo", "uint8", (8, 8, 3))),
    ),
    (Cnn(), (GREY,)),
    (Cnn(), (COLOUR,)),
    (Cnn(head="average", pooling="average", convolutions=2, kernel=5), (PLANES,)),
    (Cnn(batch_norm=False, pooling="stride", activation="leaky_relu", dropout=0), (GREY,)),
    (Resnet(), (GREY,)),
    (Resnet(stem="large", depths=(1, 1), widths=(8, 16), dropout=0.1), (COLOUR,)),
    (Resnet(batch_norm=False), (PLANES,)),
    (Mobilenet(width=0.25), (GREY,)),
    (Mobilenet(width=0.25, stem="large"), (InputShape("x", "uint8", (100, 96, 3)),)),
    (Mobilenet(width=0.25, batch_norm=False, expansion=2), (COLOUR,)),
    (Conv1d(), (AUDIO,)),
    (Conv1d(first_kernel=33, first_stride=4, batch_norm=False), (AUDIO,)),
    (Conv1d(pooling=1, activation="tanh"), (STEPS,)),
    (Transformer(), (TEXT,)),
    (Transformer(pooling="first", padding_id=None, layers=1, vocabulary=60, dropout=0, activation="relu"), (TEXT,)),
    (Recurrent(), (TEXT,)),
    (Recurrent(cell="gru", layers=2, bidirectional=True, pooling="mean", width=16), (TEXT,)),
    (Recurrent(cell="gru", batch_norm=False, width=16), (STEPS,)),
    (Recurrent(layers=2, bidirectional=True, pooling="mean", width=16), (SENSORS,)),
    (Recurrent(reads="series", width=16), (InputShape("x", "uint8", (30,), ids=256),)),
]
NAMES = [f"{architecture.tag()}{number}" for number, (architecture, _) in enumerate(FITTING)]


def proto_of(
    architecture: Architecture, inputs: tuple[InputShape, ...], seed: int = 0, outputs: int = 10
) -> onnx.ModelProto:
    return ir.to_proto(architecture.build(inputs, outputs, seed))


def session_of(model: onnx.ModelProto) -> ort.InferenceSession:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def rows(inputs: tuple[InputShape, ...], model: onnx.ModelProto, count: int) -> dict[str, np.ndarray]:
    """Rows as the binding casts them: numbers of variance 1, or tokens."""
    chance = np.random.default_rng(1)
    tokens = {port.name for port in model.graph.input if port.type.tensor_type.elem_type == onnx.TensorProto.INT64}
    return {
        shape.name: chance.integers(0, shape.ids or 1, (count, *shape.shape))
        if shape.name in tokens
        else chance.standard_normal((count, *shape.shape), np.float32)
        for shape in inputs
    }


def trainable(model: ir.Model) -> int:
    """Numbers that training changes by gradients."""
    return sum(parameter.numel() for _, parameter in TorchGraph(model).trained())


@pytest.mark.parametrize(("architecture", "inputs"), FITTING, ids=NAMES)
def test_runs_alike_in_onnx_runtime_and_pytorch(architecture: Architecture, inputs: tuple[InputShape, ...]) -> None:
    model = architecture.build(inputs, 10, 0)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = session_of(proto)
    graph = TorchGraph(model)
    for count in (1, 5):
        feeds = rows(inputs, proto, count)
        (expected,) = session.run(["logits"], feeds)
        assert expected.shape == (count, 10)
        found = graph({name: torch.from_numpy(array) for name, array in feeds.items()})["logits"]
        assert isinstance(found, torch.Tensor)
        np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize(("architecture", "inputs"), FITTING, ids=NAMES)
def test_answers_are_nearly_even_at_first_and_everything_learns(
    architecture: Architecture, inputs: tuple[InputShape, ...]
) -> None:
    """A loss near that of guessing, and gradients that reach every weight but those behind a branch that is still closed."""
    model = architecture.build(inputs, 10, 0)
    graph = TorchGraph(model)
    graph.train()
    graph.mode.batch_norm = "train"
    graph.mode.generator = torch.Generator().manual_seed(0)
    feeds = rows(inputs, ir.to_proto(model), 32)
    logits = graph({name: torch.from_numpy(array) for name, array in feeds.items()})["logits"]
    assert isinstance(logits, torch.Tensor)
    labels = torch.arange(32) % 10
    loss = torch.nn.functional.cross_entropy(logits, labels)
    measured = loss.item()
    assert math.log(10) - 0.1 < measured < math.log(10) + 0.8
    assert 1e-4 < logits.var(0).mean().item() < 3  # rows are told apart
    loss.backward()
    still = {
        candidate.name
        for candidate, parameter in graph.trained()
        if parameter.grad is None or not parameter.grad.abs().max() > 0
    }
    closed = isinstance(architecture, Resnet) or (isinstance(architecture, Mobilenet) and not architecture.batch_norm)
    assert closed or not still
    assert all(".block" in name for name in still)


@pytest.mark.parametrize(("architecture", "inputs"), FITTING, ids=NAMES)
def test_techniques_can_begin_with_it(
    architecture: Architecture, inputs: tuple[InputShape, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Simplification folds batch norms and drops Dropout; the answers stay."""
    model = architecture.build(inputs, 10, 0)
    ready, _ = prepare(model, tmp_path_factory.mktemp("prepared"))
    assert not {"BatchNormalization", "Dropout"} & {node.op_type for node in ready.graph if _follows_a_conv(node)}
    feeds = rows(inputs, ir.to_proto(model), 3)
    before, after = (session_of(ir.to_proto(each)).run(None, feeds)[0] for each in (model, ready))
    np.testing.assert_allclose(before, after, atol=1e-4)


def _follows_a_conv(node: ir.Node) -> bool:
    producer = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    return producer is not None and producer.op_type == "Conv"


@pytest.mark.parametrize(("architecture", "inputs"), FITTING, ids=NAMES)
def test_one_seed_gives_one_file(architecture: Architecture, inputs: tuple[InputShape, ...]) -> None:
    first, again, other = (proto_of(architecture, inputs, seed) for seed in (7, 7, 8))
    assert first.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)
    assert first.graph.node == other.graph.node
    assert first.SerializeToString(deterministic=True) != other.SerializeToString(deterministic=True)


@pytest.mark.parametrize(("architecture", "inputs"), FITTING, ids=NAMES)
def test_signature_is_the_datasets(architecture: Architecture, inputs: tuple[InputShape, ...]) -> None:
    summary = summarize(proto_of(architecture, inputs))
    assert [port.name for port in summary.inputs] == [shape.name for shape in inputs]
    assert [port.shape for port in summary.inputs] == [("batch", *shape.shape) for shape in inputs]
    tokens = isinstance(architecture, Transformer) or (
        isinstance(architecture, Recurrent) and inputs == (TEXT,) and architecture.reads != "series"
    )
    assert {port.dtype for port in summary.inputs} == {"int64" if tokens else "float32"}
    assert summary.opset == {"ai.onnx": 21}
    assert summary.macs is not None


@pytest.mark.parametrize(
    ("task", "name"), [("classification", "logits"), ("multi_label", "logits"), ("regression", "values")]
)
def test_output_is_called_after_the_task(task: Task, name: str) -> None:
    for architecture, inputs in FITTING[::3]:
        summary = summarize(ir.to_proto(architecture.build(inputs, 3, 0, task)))
        (output,) = summary.outputs
        assert (output.name, output.shape, output.dtype) == (name, ("batch", 3), "float32")


def test_every_architecture_is_tried() -> None:
    assert {type(architecture) for architecture, _ in FITTING} | {Timm} == set(ARCHITECTURES)


@pytest.mark.parametrize(("architecture", "inputs"), FITTING, ids=NAMES)
def test_batch_norm_is_there_if_asked_for(architecture: Architecture, inputs: tuple[InputShape, ...]) -> None:
    if "batch_norm" not in type(architecture).model_fields:
        pytest.skip("it has no batch norm")
    counts = {}
    for wanted in (True, False):
        model = architecture.model_copy(update={"batch_norm": wanted}).build(inputs, 10, 0)
        counts[wanted] = sum(node.op_type == "BatchNormalization" for node in model.graph)
        convolutions = [node for node in model.graph if node.op_type == "Conv"]
        assert all((len(node.inputs) == 3) != wanted for node in convolutions)  # a norm has a bias of its own
        if wanted and convolutions:
            assert counts[wanted] == len(convolutions)
    tokens = isinstance(architecture, Recurrent) and inputs == (TEXT,)
    assert counts[False] == 0
    assert (counts[True] > 0) != tokens


def test_parameters_and_multiply_accumulates_by_hand() -> None:
    mlp = summarize(proto_of(Mlp(hidden=(8, 4), batch_norm=False), (TABLE,), outputs=3))
    assert mlp.parameters == (16 * 8 + 8) + (8 * 4 + 4) + (4 * 3 + 3)
    assert mlp.macs == 16 * 8 + 8 * 4 + 4 * 3

    cnn = summarize(proto_of(Cnn(channels=(4, 6)), (GREY,)))
    assert cnn.parameters == 9 * 4 + 4 * 4 + 9 * 4 * 6 + 4 * 6 + 49 * 6 * 10 + 10  # four vectors for each norm
    assert cnn.macs == 28 * 28 * 9 * 4 + 14 * 14 * 9 * 4 * 6 + 49 * 6 * 10

    small = Transformer(width=8, layers=1, heads=2, feed_forward=12)
    layer = 4 * (8 * 8 + 8) + (8 * 12 + 12) + (12 * 8 + 8) + 2 * 2 * 8
    assert trainable(small.build((TEXT,), 4, 0)) == 50 * 8 + 12 * 8 + layer + 2 * 8 + (8 * 4 + 4)

    lstm = Recurrent(width=5, embedding=3)
    assert trainable(lstm.build((TEXT,), 2, 0)) == 50 * 3 + 4 * 5 * (3 + 5 + 2) + (5 * 2 + 2)
    gru = Recurrent(cell="gru", width=5, bidirectional=True, batch_norm=False)
    assert trainable(gru.build((SENSORS,), 2, 0)) == 2 * 3 * 5 * (6 + 5 + 2) + (10 * 2 + 2)

    conv = Conv1d(channels=(4,), kernel=3, batch_norm=False)
    assert trainable(conv.build((SENSORS,), 2, 0)) == (6 * 3 * 4 + 4) + (4 * 2 + 2)


def test_published_networks_have_their_published_sizes() -> None:
    """ResNet-18 and MobileNetV2 for 1,000 classes at 224 x 224, as their papers and common libraries count them."""
    photo = (InputShape("image", "uint8", (224, 224, 3)),)
    resnet18 = Resnet(depths=(2, 2, 2, 2), widths=(64, 128, 256, 512)).build(photo, 1000, 0)
    assert trainable(resnet18) == 11_689_512
    assert summarize(ir.to_proto(resnet18)).macs == 1_814_073_344
    mobilenet = Mobilenet().build(photo, 1000, 0)
    assert trainable(mobilenet) == 3_504_872
    assert summarize(ir.to_proto(mobilenet)).macs == 300_774_272


def test_the_default_for_small_images_is_small() -> None:
    summary = summarize(proto_of(Cnn(), (GREY,)))
    assert summary.macs is not None
    assert summary.macs < 10_000_000


def strides(model: ir.Model) -> list[int]:
    return [node.attributes["strides"].as_ints()[0] for node in model.graph if "strides" in node.attributes]


@pytest.mark.parametrize("architecture", [Resnet(), Mobilenet(width=0.1)])
def test_only_large_images_are_halved_at_once(architecture: Architecture) -> None:
    for side, first in ((95, 1), (96, 2)):
        assert strides(architecture.build((InputShape("x", "uint8", (side, side)),), 2, 0))[0] == first


@pytest.mark.parametrize("stem", ["small", "large"])
def test_how_often_a_mobilenet_halves(stem: str) -> None:
    model = Mobilenet(width=0.1, stem=stem).build((GREY,), 2, 0)
    assert math.prod(strides(model)) == (32 if stem == "large" else 8)


def answers(architecture: Architecture, shape: InputShape, array: np.ndarray) -> np.ndarray:
    found: np.ndarray = session_of(proto_of(architecture, (shape,))).run(None, {"x": array})[0]
    return found


@pytest.mark.parametrize("architecture", [Cnn(), Resnet(), Mobilenet(width=0.1)])
def test_channels_are_found_on_either_side(architecture: Architecture) -> None:
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)
    first = answers(architecture, PLANES, images)
    last = answers(architecture, COLOUR, images.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(first, last, atol=1e-5)
    one = answers(architecture, InputShape("x", "float32", (32, 32)), images[:, 0])
    np.testing.assert_allclose(one, answers(architecture, InputShape("x", "float32", (1, 32, 32)), images[:, :1]), 1e-5)


@pytest.mark.parametrize("architecture", [Conv1d(), Recurrent()])
def test_channels_of_series_are_found_on_either_side(architecture: Architecture) -> None:
    series = np.random.default_rng(0).standard_normal((2, 6, 128), np.float32)
    turned = answers(architecture, InputShape("x", "float32", (128, 6)), series.transpose(0, 2, 1))
    np.testing.assert_allclose(answers(architecture, SENSORS, series), turned, atol=1e-5)


def test_layout_overrules_what_shapes_suggest() -> None:
    wide = InputShape("x", "float32", (128, 6))
    asked = summarize(proto_of(Recurrent(layout="channels_first", width=4), (wide,)))
    assert asked.macs == 6 * (4 * 4 * (128 + 4)) + 4 * 10  # six steps of 128 numbers
    assert summarize(proto_of(Recurrent(width=4), (wide,))).macs == 128 * (4 * 4 * (6 + 4)) + 4 * 10


@given(length=st.integers(1, 11))
@pytest.mark.parametrize("architecture", [Transformer(), Recurrent(), Recurrent(pooling="mean", bidirectional=True)])
def test_filling_makes_no_difference(architecture: Architecture, length: int) -> None:
    """The vector of the padding token may be anything."""
    model = architecture.build((TEXT,), 4, 0)
    chance = np.random.default_rng(length)
    row = np.zeros((1, 12), np.int64)
    row[0, :length] = chance.integers(1, 50, length)
    before = session_of(ir.to_proto(model)).run(None, {"x": row})[0]
    stored = model.graph.initializers["embedding.weight"]
    assert stored.const_value is not None
    vectors = stored.const_value.numpy().copy()
    vectors[0] += 100
    stored.const_value = ir.Tensor(vectors, name="embedding.weight")
    np.testing.assert_allclose(session_of(ir.to_proto(model)).run(None, {"x": row})[0], before, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "inputs", "message", "fitting"),
    [
        ({"architecture": "cnn"}, (TABLE,), r"'cnn' takes images .*gives 'x', float32 \[16\]", "conv1d, mlp, recurrent"),
        ({"architecture": "resnet"}, (AUDIO,), r"gives 'x', int16 \[2000\]", "conv1d, mlp, recurrent, transformer"),
        ({"architecture": "mobilenet"}, (TABLE, GREY), r"gives 'x', float32 \[16\]; 'x', uint8", "fit: mlp."),
        ({"architecture": "transformer"}, (TABLE,), "whole numbers .length. that stand for tokens", "conv1d, mlp"),
        ({"architecture": "transformer"}, (GREY,), r"uint8 \[28, 28\]", "cnn, conv1d, mlp, mobilenet, recurrent, resnet"),
        ({"architecture": "conv1d"}, (COLOUR,), r"or \[length, channels\].*\[32, 32, 3\]", "cnn, mlp, mobilenet, resnet"),
        ({"architecture": "recurrent"}, (COLOUR,), "series .* or whole numbers", "cnn, mlp"),
        ({"architecture": "mlp"}, (InputShape("x", "<U12", ()),), "<U12", "No architecture fits"),
        ({"architecture": "mlp"}, (InputShape("x", "float32", (0, 3)),), r"\[0, 3\]", "No architecture fits"),
        ({"architecture": "mlp"}, (), "gives nothing", "No architecture fits"),
        ({"architecture": "timm", "model": "resnet18"}, (TABLE,), "'timm' takes images", "conv1d, mlp"),
        ({"architecture": "cnn"}, (InputShape("x", "uint8", (7, 40)),), r"need 8 x 8 pixels.*\[7, 40\]", "`channels`"),
        ({"architecture": "conv1d"}, (InputShape("x", "float32", (63,)),), r"need 64 steps.*\[63\]", "`pooling`"),
        ({"architecture": "transformer"}, (InputShape("x", "int16", (9,)),), "not all of its values", "from 0"),
        ({"architecture": "transformer", "vocabulary": 49}, (TEXT,), "token 49, but the vocabulary has 49", "to 50 at"),
        ({"architecture": "recurrent", "reads": "tokens"}, (TABLE,), "shall read tokens", "`reads` to series"),
    ],
)  # fmt: skip
def test_misfits_are_named(spec: dict[str, object], inputs: tuple[InputShape, ...], message: str, fitting: str) -> None:
    with pytest.raises(BindingMismatch, match=message) as caught:
        adapter.validate_python(spec).build(inputs, 10, 0)
    assert fitting in caught.value.hint


def test_the_smallest_rows_that_are_taken_fit() -> None:
    proto_of(Cnn(), (InputShape("x", "uint8", (8, 40)),))
    proto_of(Conv1d(), (InputShape("x", "float32", (64,)),))
    proto_of(Conv1d(first_stride=4), (InputShape("x", "float32", (253,)),))
    with pytest.raises(BindingMismatch, match="need 253 steps"):
        proto_of(Conv1d(first_stride=4), (InputShape("x", "float32", (252,)),))
    proto_of(Resnet(), (InputShape("x", "uint8", (1, 1)),))
    proto_of(Mobilenet(width=0.1), (InputShape("x", "uint8", (1, 1)),))


def test_networks_beyond_a_file_are_refused() -> None:
    with pytest.raises(TooLarge, match=r"hidden1.linear.weight.*\[16384, 150528\]"):
        proto_of(Mlp(hidden=(16_384,)), (InputShape("x", "uint8", (224, 224, 3)),))


@pytest.mark.parametrize(
    "spec",
    [
        {"architecture": "perceptron"},
        {"architecture": "mlp", "hiden": [3]},
        {"architecture": "mlp", "hidden": [0]},
        {"architecture": "cnn", "kernel": 4},
        {"architecture": "cnn", "channels": []},
        {"architecture": "cnn", "dropout": 1.0},
        {"architecture": "resnet", "depths": [2, 2]},
        {"architecture": "transformer", "heads": 3},
        {"architecture": "conv1d", "first_kernel": 10},
        {"architecture": "timm", "model": "hf-hub:someone/something"},
        {"architecture": "timm"},
    ],
)
def test_specs_that_make_no_network(spec: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        adapter.validate_python(spec)


def test_specs_come_back_from_json() -> None:
    for architecture, _ in FITTING:
        assert adapter.validate_json(adapter.dump_json(architecture)) == architecture


def test_every_parameter_is_explained() -> None:
    """What a reader of the specification sees: a text for each architecture, and for each field whose name does not say it."""
    schema = TypeAdapter(AnyArchitecture).json_schema()
    plain = {"architecture", "activation", "layers", "cell"}
    for kind in ARCHITECTURES:
        described = schema["$defs"][kind.__name__]
        assert described["description"]
        assert not [
            name for name, field in described["properties"].items() if name not in plain and "description" not in field
        ]


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed")
def test_timm_says_what_is_missing() -> None:
    with pytest.raises(TrainingFailed, match="not installed on this worker: timm") as caught:
        proto_of(Timm(model="resnet18"), (GREY,))
    assert "pip install timm" in caught.value.hint


@pytest.mark.skipif(find_spec("timm") is None or find_spec("onnxscript") is None, reason="needs timm and onnxscript")
@pytest.mark.filterwarnings("default")
def test_timm_builds_what_trains() -> None:
    for shape in (GREY, COLOUR, PLANES):
        model = Timm(model="resnet18").build((shape,), 10, 0)
        feeds = rows((shape,), ir.to_proto(model), 2)
        (expected,) = session_of(ir.to_proto(model)).run(["logits"], feeds)
        found = TorchGraph(model)({name: torch.from_numpy(array) for name, array in feeds.items()})["logits"]
        assert isinstance(found, torch.Tensor)
        np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-5)
        assert any(node.op_type == "BatchNormalization" for node in model.graph)
    with pytest.raises(TrainingFailed, match="no model 'resnett18'"):
        Timm(model="resnett18").build((GREY,), 10, 0)


@pytest.mark.parametrize(
    ("inputs", "chosen"),
    [
        ((TABLE,), "mlp"),
        ((TABLE, GREY), "mlp"),
        ((InputShape("x", "float32", ()),), "mlp"),
        ((InputShape("x", "uint8", (30,), ids=200),), "mlp"),
        ((TEXT,), "transformer"),
        ((AUDIO,), "conv1d"),
        ((SENSORS,), "conv1d"),
        ((InputShape("x", "float32", (20, 4)),), "recurrent"),
        ((GREY,), "cnn"),
        ((COLOUR,), "cnn"),
        ((PLANES,), "cnn"),
        ((InputShape("x", "uint8", (4, 4, 3)),), "mlp"),
        ((InputShape("x", "uint8", (224, 224, 3)),), "resnet"),
        ((InputShape("x", "float32", (2, 3, 4, 5)),), "mlp"),
    ],
)
def test_default_fits(inputs: tuple[InputShape, ...], chosen: str) -> None:
    architecture = default_architecture(inputs)
    assert architecture.tag() == chosen
    session_of(proto_of(architecture, inputs))


dtypes = st.sampled_from(["float32", "float64", "uint8", "int16", "int64", "bool", "<U5", "complex64"])


@given(
    inputs=st.lists(
        st.tuples(dtypes, st.lists(st.integers(0, 12), max_size=4), st.sampled_from([None, 9])), min_size=1, max_size=2
    )
)
def test_default_builds_or_says_why_not(inputs: list[tuple[str, list[int], int | None]]) -> None:
    shapes = tuple(
        InputShape(f"x{number}", dtype, tuple(shape), ids if np.dtype(dtype).kind in "iu" else None)
        for number, (dtype, shape, ids) in enumerate(inputs)
    )
    try:
        architecture = default_architecture(shapes)
    except BindingMismatch as error:
        assert any(not shape.kinds() for shape in shapes)
        assert error.hint
    else:
        assert summarize(ir.to_proto(architecture.build(shapes, 2, 0))).outputs[0].shape == ("batch", 2)


@given(spec=st.sampled_from(FITTING), shape=st.lists(st.integers(1, 70), min_size=0, max_size=3))
def test_any_rows_are_taken_or_refused_in_words(
    spec: tuple[Architecture, tuple[InputShape, ...]], shape: list[int]
) -> None:
    architecture, _ = spec
    try:
        model = architecture.build((InputShape("x", "int32", tuple(shape), ids=5),), 2, 0)
    except AccelError as error:
        assert "'x', int32" in error.message
        assert error.hint
    else:
        assert model.graph.outputs[0].name == "logits"


def test_specs_load_no_heavy_library() -> None:
    """The API reads them."""
    program = (
        "import sys, accel.training.architectures, accel.training.default_architecture\n"
        "print(sorted({'torch', 'onnx', 'onnx_ir', 'onnxruntime'} & {name.split('.')[0] for name in sys.modules}))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
