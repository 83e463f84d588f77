"""What every technique promises, tried on every kind of model. A new file under accel/techniques/ is tried by being there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest

from accel.context import Context
from accel.data.bind import bind
from accel.data.dataset import open_dataset
from accel.data.spec import DatasetSpec
from accel.errors import DataRequired, TechniqueFailed
from accel.graph.inspect import summarize
from accel.graph.load import load, load_proto, save
from accel.runtimes.onnxruntime import open_session
from accel.technique import Technique
from accel.techniques import TECHNIQUES, adapter
from tests import models

EVERY = pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda technique: technique.tag())
FLOAT_MODELS = {name: make for name, make in models.FACTORY.items() if name != "quantized"}


def test_discovery_finds_the_techniques() -> None:
    tags = {technique.tag() for technique in TECHNIQUES}
    assert tags == {
        "bias_correction",
        "convert_bfloat16",
        "convert_float16",
        "equalize",
        "mixed_precision",
        "optimize_graph",
        "quantize_dynamic",
        "quantize_fixed_point",
        "quantize_static",
        "quantize_weights",
        "search_rounding",
        "smooth",
    }


@EVERY
def test_it_explains_itself(technique: type[Technique]) -> None:
    assert len(technique.__doc__ or "") > 40
    silent = [n for n, f in technique.model_fields.items() if n != "technique" and not f.description]
    assert not silent, f"give Field(description=...) to {silent}: Swagger UI shows it"


@EVERY
def test_its_defaults_are_valid_and_survive_json(technique: type[Technique]) -> None:
    made = technique()
    assert adapter.validate_json(made.model_dump_json()) == made


@EVERY
def test_it_says_when_it_needs_data(technique: type[Technique], tmp_path: Path) -> None:
    model = onnx_ir.from_proto(models.convnet())
    context = Context(tmp_path, 0, lambda *_: None)
    if technique.follows_quantization:
        with pytest.raises((TechniqueFailed, DataRequired)):
            technique().apply(model, context)
    elif technique.needs_data:
        with pytest.raises(DataRequired):
            technique().apply(model, context)
    else:
        technique().apply(model, context)


def applied(technique: type[Technique], proto: onnx.ModelProto, folder: Path) -> tuple[Path, bytes, bytes]:
    """Apply a technique; the path of its result, and the given model's bytes before and after."""
    folder.mkdir()
    source = models.save(proto, folder / "source.onnx")
    model = load(source)
    before = onnx_ir.to_proto(model).SerializeToString(deterministic=True)
    session = open_session(source, "onnxruntime:cpu")
    feeds = models.inputs_of(proto, rows=16)
    path = folder / "data.npz"
    np.savez(path, **{f"{name}_train": np.concatenate([feed, feed]) for name, feed in feeds.items()})
    bound = bind(session.inputs, session.outputs, open_dataset(path, DatasetSpec(), folder), "train", None)
    context = Context(folder, 0, lambda *_: None, bound)
    if technique.follows_quantization:
        quantize = next(t for t in TECHNIQUES if t.tag() == "quantize_static")
        model, context.reference = quantize().apply(model, context), model
        before = onnx_ir.to_proto(model).SerializeToString(deterministic=True)
    result = technique().apply(model, context)
    save(result, folder / "result.onnx")
    return folder / "result.onnx", before, onnx_ir.to_proto(model).SerializeToString(deterministic=True)


@EVERY
@pytest.mark.parametrize("name", sorted(FLOAT_MODELS))
def test_its_result_runs_and_keeps_the_signature(technique: type[Technique], name: str, tmp_path: Path) -> None:
    proto = FLOAT_MODELS[name]()
    try:
        result, before, after = applied(technique, proto, tmp_path / "first")
    except TechniqueFailed as refusal:
        # What does not fit is refused with a reason; that is for models which have nothing to quantize.
        assert technique.tag().startswith("quantize")
        assert name == "branching", refusal.message
        return
    assert before == after, "the given model was changed"
    loaded = load_proto(result)
    old, new = summarize(proto), summarize(loaded)
    assert [(p.name, p.dtype) for p in new.inputs] == [(p.name, p.dtype) for p in old.inputs]
    assert [(p.name, p.dtype) for p in new.outputs] == [(p.name, p.dtype) for p in old.outputs]
    feed = models.inputs_of(proto, rows=8)
    expected, found = models.run(proto, feed), models.run(result, feed)
    for output, reference in expected.items():
        assert found[output].shape == reference.shape
        scale = float(np.abs(reference).max()) or 1.0
        assert float(np.abs(found[output] - reference).max()) <= 0.15 * scale
    again, _, _ = applied(technique, proto, tmp_path / "second")
    assert again.read_bytes() == result.read_bytes(), "the same request gave other bytes"


@pytest.mark.parametrize("tag", ["quantize_static", "quantize_dynamic"])
def test_quantizing_makes_it_small_and_says_so(tag: str, tmp_path: Path) -> None:
    technique = next(t for t in TECHNIQUES if t.tag() == tag)
    proto = models.convnet()
    result, _, _ = applied(technique, proto, tmp_path / "w")
    summary = summarize(load_proto(result))
    assert summary.quantized
    assert result.stat().st_size < 0.6 * len(proto.SerializeToString())
    with pytest.raises(TechniqueFailed, match="quantized already"):
        applied(technique, load_proto(result), tmp_path / "again")


def test_static_quantization_uses_unsigned_activations_on_what_it_promises(tmp_path: Path) -> None:
    technique = next(t for t in TECHNIQUES if t.tag() == "quantize_static")
    result, _, _ = applied(technique, models.convnet(), tmp_path / "w")
    proto = load_proto(result)
    kinds = {t.name: t.data_type for t in proto.graph.initializer}
    activations = [n for n in proto.graph.node if n.op_type == "QuantizeLinear"]
    assert activations
    assert {kinds[n.input[2]] for n in activations} == {onnx.TensorProto.UINT8}


def test_float16_halves_the_file(tmp_path: Path) -> None:
    technique = next(t for t in TECHNIQUES if t.tag() == "convert_float16")
    proto = models.convnet()
    result, _, _ = applied(technique, proto, tmp_path / "w")
    assert result.stat().st_size < 0.65 * len(proto.SerializeToString())
