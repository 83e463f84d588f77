"""How fast processors compute, by the features that they say they have: what a prediction rests on.

Only ratios matter to a speed-up, and of the absolute figures only how arithmetic compares with memory and with the fixed
cost of a node. They were read off ONNX Runtime 1.32's profiler on a processor with AVX-512 and VNNI (Zen 5, one thread,
ten models in float and in int8): a float convolution runs at 128 multiply-accumulates a nanosecond and an integer one at
450 to 520. Other processors follow from the instructions: a VNNI instruction does the work of three without it (so
that integers are at most 1.3 to 2 times as fast as floats), and AMX that of several. These were not measured: their
ranges are wider.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Processor:
    """One core of a kind of processor. Rates are multiply-accumulates a nanosecond at best."""

    what: str
    float_rate: float
    int8_rate: float
    doubt: float
    """By which factor the ratio of both may be wrong, either way."""
    x86: bool
    block: int = 16
    """Channels that float convolutions take at a time."""
    saturates: bool = False
    """Whether sums of two products are held in 16 bits: results differ from those of other processors."""


_X86 = (
    ({"amx_int8"}, Processor("AMX", 85, 6.0 * 85, 1.6, x86=True)),
    ({"avx512f", "avx512_vnni"}, Processor("AVX-512 VNNI", 120, 4.0 * 120, 1.25, x86=True)),
    ({"avx512f"}, Processor("AVX-512 without VNNI", 85, 1.4 * 85, 1.5, x86=True, saturates=True)),
    ({"avx2", "avx_vnni"}, Processor("AVX-VNNI", 48, 3.6 * 48, 1.4, x86=True, block=8)),
    ({"avx2"}, Processor("AVX2 without VNNI", 48, 1.6 * 48, 1.5, x86=True, block=8, saturates=True)),
    ({"avx"}, Processor("AVX", 24, 1.3 * 24, 1.6, x86=True, block=8, saturates=True)),
)
_ARM = (
    ({"i8mm"}, Processor("Arm i8mm", 28, 5.0 * 28, 1.6, x86=False)),
    ({"asimddp"}, Processor("Arm dot products", 24, 3.2 * 24, 1.5, x86=False)),
    ({"asimd"}, Processor("Arm without dot products", 12, 1.3 * 12, 1.6, x86=False)),
)
_UNKNOWN = Processor("a processor of unknown features", 24, 2.0 * 24, 2.0, x86=False)


def processor(features: Collection[str]) -> Processor:
    """What a processor with these features is like; see :class:`accel.report.Environment`."""
    return next((found for wanted, found in (*_X86, *_ARM) if wanted <= set(features)), _UNKNOWN)


RUN_NS = 3_000.0
"""A call of the runtime, whatever the model: Python's side of it included."""
NODE_NS = 300.0
"""A node, whatever its size."""
INTEGER_NODE_NS = 700.0
"""What an integer kernel takes besides, to set up its scales."""
BYTE_NS = 1 / 48
"""A byte of a tensor that a kernel reads or writes, from the third cache or memory."""
NEAR_BYTES = 400_000
"""What stays in the second cache costs a convolution nothing besides its arithmetic."""
WEIGHT_BYTE_NS = ((1 << 20, 1 / 200), (4 << 20, 1 / 115), (1 << 62, 1 / 38))
"""A byte of a float matrix that one row is multiplied with, and so used once: by the size of all weights, which stay in the
second cache from run to run, in the third, or come from memory."""
INT8_WEIGHT_BYTE_NS = 1 / 50
"""The same of an integer matrix, wherever it is: with one row its kernel is slower than memory."""

IM2COL_NS = 1.1
"""A copy of one kernel position's channels, which integer convolutions make for each output position; 64 bytes at most."""
IM2COL_FLOAT_NS = 0.13
"""A number that is copied for a float convolution that has no kernel of its own."""
REQUANTIZE_NS = 0.05
"""An output of an integer kernel on its way to the next one's scale."""
QUANTIZE_NS = 0.065
DEQUANTIZE_NS = 0.092
REORDER_NS = 0.09
"""A float between the layouts of convolutions and of everything else, one way."""

BEST_SHARE = 0.95
"""Of the best rate, what a large convolution or product reaches."""
FIRST_LAYER_SHARE = 0.75
"""The same with fewer input channels than a block of them."""
DEPTHWISE_FLOAT_SHARE = 0.75
DEPTHWISE_INT8_SHARE = 0.14
"""Rate of integers for depthwise convolutions, against four times that of floats: they gain little from VNNI."""
DEPTHWISE_OUTPUT_NS = 0.09
UNEVEN_POSITION_NS, UNEVEN_CHANNEL_NS = 1.8, 0.06
"""Of a depthwise integer convolution whose channels are no multiple of 16: each kernel position of each output position, and
each channel of it. That is 2 to 5 times as slow as with even channels."""
RECURRENT_SHARE = 0.33
SIGNED_SLOWDOWN = 2.5
"""Signed activations on x86-64, whose instructions multiply unsigned by signed bytes: measured 1.4 to 3.1."""
DYNAMIC_CONV_SHARE = 0.03
"""ConvInteger has no kernel to speak of: 4 to 10 times slower than float."""

ELEMENT_NS = {
    "Reshape": 0.01, "Squeeze": 0.01, "Unsqueeze": 0.01, "Flatten": 0.01, "Identity": 0.01, "Shape": 0.0, "Constant": 0.0,
    "Slice": 0.08, "Cast": 0.08, "Gather": 0.1, "Transpose": 0.12, "Concat": 0.13, "Split": 0.15, "Pad": 0.25, "Expand": 0.1,
    "MaxPool": 0.1, "AveragePool": 0.1, "GlobalAveragePool": 0.12, "GlobalMaxPool": 0.1, "Resize": 0.3,
    "Sigmoid": 0.27, "Tanh": 0.22, "Exp": 0.3, "Sqrt": 0.3, "Pow": 0.3, "Log": 1.4, "Erf": 0.3, "Gelu": 0.5, "BiasGelu": 0.5,
    "QuickGelu": 0.2, "FastGelu": 0.3, "HardSigmoid": 0.1, "Softmax": 0.4, "LayerNormalization": 0.6,
    "SkipLayerNormalization": 0.6, "SimplifiedLayerNormalization": 0.5, "BatchNormalization": 0.15, "Where": 0.35,
    "ReduceMean": 0.3, "ReduceSum": 0.5, "ReduceMax": 0.15, "ReduceMin": 0.15,
    "QuantizeLinear": QUANTIZE_NS, "DequantizeLinear": DEQUANTIZE_NS, "DynamicQuantizeLinear": 0.2,
    "QLinearAdd": 0.08, "QLinearMul": 0.1, "QLinearSigmoid": 0.1, "QLinearConcat": 0.3, "QLinearSoftmax": 0.3,
    "QLinearGlobalAveragePool": 0.1, "QLinearAveragePool": 0.1, "QLinearLeakyRelu": 0.1,
}  # fmt: skip
"""A number of the larger of a node's input and output, by operator."""
OTHER_ELEMENT_NS = 0.1
