"""Why a model is no faster than its baseline, on pairs that each have one reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from accel.benchmark.profile import profile
from accel.benchmark.reasons import machine
from accel.benchmark.reasons.evidence import Evidence, Kernel, Layers, Side
from accel.benchmark.reasons.slower import slower
from accel.benchmark.reasons.weights import zeros_by_layer
from accel.benchmark.reasons.zeros import zeros
from accel.benchmark.why import why
from accel.context import Context
from accel.errors import RuntimeFailed
from accel.numerics.scales import Scheme
from accel.report import OperatorTime, Profile, SpeedFinding
from accel.technique import Technique
from accel.techniques.convert_float16 import ConvertFloat16
from accel.techniques.quantize_dynamic import QuantizeDynamic
from accel.techniques.quantize_weights import QuantizeWeights
from tests import models
from tests.rewriting import build, node, rewritten, weights

VNNI = ("avx512_vnni",)


@dataclass(frozen=True)
class Pair:
    """A baseline and a model in files, with the profiles of both."""

    baseline: Path
    model: Path
    before: Profile
    after: Profile

    def reasons(self, *, threads: int = 1, latency_ms: float | None = None) -> tuple[SpeedFinding, ...]:
        found = why(self.baseline, self.model, self.before, self.after, threads=threads, cores=2, latency_ms=latency_ms)
        assert len(found) <= 10
        shares = [2.0 if finding.share is None else finding.share for finding in found]
        assert shares == sorted(shares, reverse=True)
        assert all(0 <= share <= 1 for share in shares if share != 2.0)
        return found

    def one(self, kind: str) -> SpeedFinding:
        """The greatest reason of a kind."""
        found = self.reasons()
        return next(finding for finding in found if finding.kind == kind)


def profiled(path: Path) -> Profile:
    found = profile(path, "onnxruntime:cpu", threads=1, batch_size=1, shapes={}, seed=0, trace=None)
    assert found is not None
    return found


def pair(folder: Path, baseline: onnx.ModelProto, model: onnx.ModelProto) -> Pair:
    """Both models run for real."""
    first, second = models.save(baseline, folder / "first.onnx"), models.save(model, folder / "second.onnx")
    return Pair(first, second, profiled(first), profiled(second))


def applied(technique: Technique, proto: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    return ir.to_proto(technique.apply(ir.from_proto(proto), Context(folder, 0, lambda *_: None)))


def told(*rows: tuple[str, str, float], provider: str = "CPUExecutionProvider", bytes_: int = 1000) -> Profile:
    """A profile as it would be with these times, of nodes by name and operator, in milliseconds."""
    total = sum(ms for *_, ms in rows)
    layers = tuple(
        OperatorTime(
            name=name, operator=operator, provider=provider, calls=1, milliseconds=ms, share=ms / total, activation_bytes=bytes_
        )
        for name, operator, ms in rows
    )  # fmt: skip
    kinds = {operator: [row for row in layers if row.operator == operator] for _, operator, _ in rows}
    operators = tuple(
        OperatorTime(
            name=operator, operator=operator, provider=provider, calls=len(mine),
            milliseconds=sum(row.milliseconds for row in mine), share=sum(row.share for row in mine),
            activation_bytes=bytes_ * len(mine),
        )
        for operator, mine in kinds.items()
    )  # fmt: skip
    return Profile(runs=5, run_ms=total, operators=operators, layers=layers)


def stack(middle: str | None = "Relu", *, depth: int = 3, size: int = 24) -> onnx.ModelProto:
    """Convolutions with an operator behind each."""
    nodes, value = [], "x"
    for number in range(depth):
        nodes.append(node("Conv", f"{value} w{number} b{number}", f"c{number}", pads=[1, 1, 1, 1]))
        value = f"c{number}"
        if middle is not None:
            nodes.append(node(middle, value, f"r{number}"))
            value = f"r{number}"
    nodes.append(node("GlobalAveragePool", value, "y"))
    held = {f"w{number}": weights(16, 16, 3, 3, scale=0.1) for number in range(depth)}
    held |= {f"b{number}": weights(16) for number in range(depth)}
    return build(nodes, ["n", 16, size, size], held)


def integers(proto: onnx.ModelProto, folder: Path, **settings: object) -> onnx.ModelProto:
    return rewritten(proto, folder, read_back=False, **settings).model  # type: ignore[arg-type]


def test_pairs_with_signed_activations_are_not_fused(tmp_path: Path) -> None:
    float_model = stack()
    signed = Scheme(8, signed=True, symmetric=True)
    found = pair(tmp_path, float_model, integers(float_model, tmp_path, activation=signed)).one("pair_not_fused")
    assert found.share is not None
    assert found.share > 0.2
    assert "Conv layers stayed in float though quantized" in found.text
    assert "use unsigned ones" in found.text
    assert set(found.nodes) <= {"make_c0", "make_c1", "make_c2"}


def test_sixteen_bits_have_no_kernel(tmp_path: Path) -> None:
    float_model = stack()
    wide = integers(float_model, tmp_path, activation=Scheme(16, signed=False, symmetric=False), opset=21)
    found = pair(tmp_path, float_model, wide).one("pair_not_fused")
    assert "3 Conv layers" in found.text
    assert "16 bits have no integer kernel on processors: use 8" in found.text


def test_a_float_operator_between_integer_layers_is_an_island(tmp_path: Path) -> None:
    float_model = stack("Sin")
    found = pair(tmp_path, float_model, integers(float_model, tmp_path)).one("float_island")
    assert found.text.startswith("Sin is computed in float between quantized layers, in 2 places: ")
    assert "for QuantizeLinear and DequantizeLinear around them" in found.text
    assert set(found.nodes) == {"make_r0", "make_r1"}


def test_what_is_fused_throughout_leaves_no_island(tmp_path: Path) -> None:
    float_model = stack()
    kinds = {(finding.kind, finding.text.split(":")[0]) for finding in
             pair(tmp_path, float_model, integers(float_model, tmp_path)).reasons()}  # fmt: skip
    assert not {kind for kind, _ in kinds} & {"float_island", "zeros_unused", "oversubscribed"}
    assert not [text for _, text in kinds if "though quantized" in text]


def test_half_floats_are_computed_in_float32(tmp_path: Path) -> None:
    float_model = models.linear(weights(1024, 1024))
    made = pair(tmp_path, float_model, applied(ConvertFloat16(), float_model, tmp_path))
    found = made.one("no_integer_kernel")
    assert "stored in float16, but the CPU provider computes MatMul in float32" in found.text
    assert "`compute: float32`" in found.text
    stored = pair(tmp_path, float_model, applied(ConvertFloat16(compute="float32"), float_model, tmp_path))
    assert stored.one("no_integer_kernel").text.endswith("no faster on processors.")


def test_integer_weights_alone_become_floats_at_load(tmp_path: Path) -> None:
    float_model = stack()
    stored = applied(QuantizeWeights(bits=8, format="unpack"), float_model, tmp_path)
    found = pair(tmp_path, float_model, stored).one("no_integer_kernel")
    assert found.text.startswith(
        "Weights are stored in integers (int8) and become float32 when the file is loaded; Conv: "
    )


def test_integer_weights_alone_become_floats_in_every_run(tmp_path: Path) -> None:
    float_model = stack()
    stored = applied(QuantizeWeights(bits=8, format="dequantize"), float_model, tmp_path)
    found = pair(tmp_path, float_model, stored).one("pair_not_fused")
    assert found.text.startswith("Integer weights of 3 FusedConv layers become floats in every run: ")


def pruned(shape: tuple[int, ...], share: float = 0.9) -> np.ndarray:
    dense = weights(*shape)
    dense[np.abs(dense) <= np.quantile(np.abs(dense), share)] = 0
    return dense


def test_zeros_that_no_kernel_skips(tmp_path: Path) -> None:
    dense, sparse = models.linear(weights(512, 512)), models.linear(pruned((512, 512)))
    found = pair(tmp_path, dense, sparse).one("zeros_unused")
    assert found.text.startswith("90% of the weights of 1 layer are zeros, and no kernel here skips them")
    assert "in the baseline" in found.text
    assert found.nodes == ("product",)
    assert found.share is not None
    assert found.share > 0.5


def test_zeros_of_the_baseline_and_of_rounding_are_no_reason(tmp_path: Path) -> None:
    sparse = models.linear(pruned((128, 128)))
    assert "zeros_unused" not in {finding.kind for finding in pair(tmp_path, sparse, sparse).reasons()}
    half_band = weights(64, 64)
    half_band[::2] *= 1e-6
    float_model = models.linear(half_band)
    found = pair(tmp_path, float_model, applied(QuantizeDynamic(), float_model, tmp_path)).reasons()
    assert "zeros_unused" not in {finding.kind for finding in found}


def test_zeros_that_were_there_under_another_name_are_no_reason(tmp_path: Path) -> None:
    renamed = models.linear(pruned((128, 128)))
    renamed.graph.node[0].name = "renamed"
    sides = [
        Side.load(models.save(proto, tmp_path / f"{name}.onnx"), told((name, "MatMul", 1.0)), tmp_path)
        for name, proto in (("product", models.linear(pruned((128, 128)))), ("renamed", renamed))
    ]
    assert sides[1].zeros["renamed"] == sides[0].zeros["product"]
    assert not list(zeros(Evidence(*sides, 1, 2, None)))
    dense = Side.load(
        models.save(models.linear(weights(128, 128)), tmp_path / "d.onnx"), told(("product", "MatMul", 1.0)), tmp_path
    )
    assert [finding.kind for finding in zeros(Evidence(dense, sides[1], 1, 2, None))] == ["zeros_unused"]


@pytest.mark.parametrize("form", ["initializer", "Constant", "asymmetric"])
def test_zeros_are_counted_wherever_weights_are_kept(form: str) -> None:
    weight = np.array([[0, 0, 3], [0, -2, 1]], np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    held: dict[str, np.ndarray] = {}
    if form == "initializer":
        held = {"w": weight}
    elif form == "Constant":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weight)))
    else:
        nodes.insert(0, helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"]))
        held = {"q": (weight + 7).astype(np.uint8), "s": np.float32(1), "z": np.uint8(7)}
    port = helper.make_tensor_value_info
    model = models.assemble(nodes, [port("x", TensorProto.FLOAT, ["n", 2])], [port("y", 1, ["n", 3])], held)
    assert zeros_by_layer(model) == {"product": (6, 3)}


def test_a_tiny_network_is_mostly_calls(tmp_path: Path) -> None:
    float_model = models.regression()
    made = pair(tmp_path, float_model, applied(QuantizeDynamic(), float_model, tmp_path))
    (found,) = made.reasons(latency_ms=0.005)
    assert found.kind == "overhead"
    assert "A run takes 5 µs, of which" in found.text
    assert "for each of 4 operators (the baseline has 2), measured on this host" in found.text
    assert "overhead" not in {finding.kind for finding in made.reasons(latency_ms=50.0)}


def test_more_threads_than_cores_come_first(tmp_path: Path) -> None:
    path = models.save(models.regression(), tmp_path / "model.onnx")
    same = Pair(path, path, told(("first", "FusedGemm", 1.0)), told(("first", "FusedGemm", 1.0)))
    found = same.reasons(threads=8)
    assert (found[0].kind, found[0].share) == ("oversubscribed", None)
    assert found[0].text.startswith("8 threads share 2 cores")
    assert "oversubscribed" not in {finding.kind for finding in same.reasons(threads=2)}


def test_integer_convolutions_that_are_slower_are_named_with_both_times(tmp_path: Path) -> None:
    float_model = stack()
    made = pair(tmp_path, float_model, applied(QuantizeDynamic(convolutions=True), float_model, tmp_path))
    found = made.one("operator_slower")
    assert "(ConvInteger)" in found.text
    assert "(Conv) in the baseline" in found.text
    assert "Most of it: 'make_c" in found.text
    assert "quantize convolutions statically" in found.text
    assert all("integer" in name for name in found.nodes)


BEFORE = (
    ("r0_nchwc", "Conv", 1.0),
    ("r1_nchwc", "Conv", 1.0),
    ("r2_nchwc", "Conv", 1.0),
    ("make_y", "GlobalAveragePool", 0.1),
)


def evidence(folder: Path, before: Profile, after: Profile) -> Evidence:
    """A float stack and its integers, with times that are told."""
    float_model = stack()
    first = models.save(float_model, folder / "first.onnx")
    second = models.save(integers(float_model, folder), folder / "second.onnx")
    return Evidence(Side.load(first, before, folder), Side.load(second, after, folder), 1, 2, None)


def layers_of(folder: Path, *ms: float) -> tuple[tuple[str, str, float], ...]:
    """The integer layers of a stack, with these times."""
    found = evidence(folder, told(*BEFORE), told(("any", "QLinearConv", 1.0)))
    kernels = [kernel for kernel in found.after.kernels if kernel.operator == "QLinearConv"]
    assert [found.layer(kernel) for kernel in kernels] == ["make_c0", "make_c1", "make_c2"]
    return tuple((kernel.name, kernel.operator, time) for kernel, time in zip(kernels, ms, strict=True))


@pytest.mark.parametrize(
    ("times", "share", "said"),
    [
        (
            (2.0, 1.0, 1.0),
            1 / 4.0,
            ("Convolutions: 4 ms (QLinearConv), 3 ms (Conv) in the baseline", "'make_c0' 1 ms → 2 ms"),
        ),
        ((0.2, 1.5, 0.2), 0.5 / 1.9, ("some of them are slower, by 500 µs", "'make_c1' 1 ms → 1.5 ms", "`exclude`")),
        ((1.0, 0.9, 1.0), 1.0, ("Integers are hardly faster here.", "VNNI")),
    ],
)
def test_slower_layers_are_found_by_name(
    times: tuple[float, ...], share: float, said: tuple[str, ...], tmp_path: Path
) -> None:
    after = told(*layers_of(tmp_path, *times))
    (found,) = slower(evidence(tmp_path, told(*BEFORE), after), ())
    assert found.share == pytest.approx(share)
    assert all(text in found.text for text in said)


def test_gains_need_no_reason(tmp_path: Path) -> None:
    after = told(*layers_of(tmp_path, 0.3, 0.4, 0.3))
    assert not list(slower(evidence(tmp_path, told(*BEFORE), after), VNNI))


def test_products_with_few_rows_wait_for_memory(tmp_path: Path) -> None:
    path = models.save(models.linear(weights(1024, 1024)), tmp_path / "model.onnx")
    moved = 4 * 1024 * 1024 + 2 * 4 * 1024
    near, far = (
        told(("product", "MatMul", factor * moved / machine.copy_speed(1)), bytes_=8192) for factor in (1.2, 8.0)
    )
    found = Pair(path, path, near, near).one("memory_bound")
    assert found.text.startswith("1 MatMul layer with few rows: 4.2 MB in ")
    assert "memory_bound" not in {finding.kind for finding in Pair(path, path, far, far).reasons()}


def test_operators_that_only_copy_wait_for_memory(tmp_path: Path) -> None:
    path = models.save(stack(), tmp_path / "model.onnx")
    size = 1 << 22
    rows = told(("make_r0", "Transpose", size / machine.copy_speed(1)), ("r0_nchwc", "Conv", 0.001), bytes_=size)
    found = Pair(path, path, rows, rows).one("memory_bound")
    assert found.text.startswith("Transpose: 4.19 MB in ")


@pytest.mark.parametrize("make", [models.branching, models.opset_11, models.constant_mlp, models.quantized])
def test_every_kind_of_graph_is_looked_into(make: object, tmp_path: Path) -> None:
    assert callable(make)
    path = models.save(make(), tmp_path / "model.onnx")
    once = profiled(path)  # two runs of one model differ by noise
    found = Pair(path, path, once, once).reasons()
    assert not {"operator_slower", "zeros_unused"} & {finding.kind for finding in found if (finding.share or 0) > 0.5}


def test_what_another_provider_compiled_is_not_taken_apart(tmp_path: Path) -> None:
    path = models.save(stack(), tmp_path / "model.onnx")
    compiled = told(("fused_0", "Fused_0", 1.0), provider="OpenVINOExecutionProvider")
    assert Pair(path, path, compiled, compiled).reasons() == ()


def test_a_file_that_does_not_load_is_said(tmp_path: Path) -> None:
    good = models.save(models.regression(), tmp_path / "good.onnx")
    broken = models.regression()
    broken.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights(3, 3), broken.graph.initializer[0].name))
    bad = models.save(broken, tmp_path / "bad.onnx")
    row = told(("first", "Gemm", 1.0))
    with pytest.raises(RuntimeFailed, match="The optimised graph is not to be had"):
        why(good, bad, row, row, threads=1, cores=2)


@pytest.mark.parametrize(
    ("kernel", "layer"),
    [
        ("fused first", "first"),
        ("first_token_3", "first"),
        ("first/MatMulAddFusion", "first"),
        ("first_integer", "first"),
        ("InsertedPrecisionFreeCast_r_nchwc", "first"),
        ("r_nchwc", "first"),
        ("second", "second"),
        ("elsewhere", None),
    ],
)
def test_kernels_are_told_by_their_names(kernel: str, layer: str | None) -> None:
    found = Layers(models.regression()).of(Kernel(kernel, "FusedGemm", (), (), 1.0, None))
    assert found == layer


def test_layers_without_a_name_go_by_their_output() -> None:
    model = models.convnet()
    for part in model.graph.node:
        part.name = ""
    assert Layers(model).of(Kernel("r_nchwc", "Conv", (), (), 1.0, None)) == model.graph.node[0].output[0]


def test_measures_of_the_host_are_plausible() -> None:
    call, operator = machine.call_cost()
    assert 0 < operator < call < 1
    assert machine.copy_speed(1) > 1e5  # bytes a millisecond: 0.1 GB/s
