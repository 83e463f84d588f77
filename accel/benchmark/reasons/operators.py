"""Operators that do the same work, whatever a runtime calls them."""

from __future__ import annotations

FAMILIES = {
    "Convolutions": (
        "Conv", "FusedConv", "NhwcFusedConv", "QLinearConv", "ConvInteger", "ConvTranspose", "QLinearConvTranspose",
        "ConvTransposeWithDynamicPads",
    ),
    "Matrix products": (
        "MatMul", "FusedMatMul", "TransposeMatMul", "Gemm", "FusedGemm", "QGemm", "QLinearMatMul", "MatMulInteger",
        "MatMulIntegerToFloat", "MatMulInteger16", "DynamicQuantizeMatMul", "MatMulNBits", "Einsum", "Attention",
        "MultiHeadAttention", "QAttention",
    ),
    "Recurrent layers": ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"),
    "Elementwise operators": (
        "Abs", "Add", "BiasGelu", "Ceil", "Clip", "Cos", "Div", "Elu", "Equal", "Erf", "Exp", "FastGelu", "Floor", "Gelu",
        "Greater", "HardSigmoid", "HardSwish", "LeakyRelu", "Less", "Log", "Max", "Min", "Mul", "Neg", "Not", "PRelu",
        "Pow", "QuickGelu", "Reciprocal", "Relu", "Selu", "Sigmoid", "Sin", "Softplus", "Sqrt", "Sub", "Sum", "Tanh",
        "Where", "QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearWhere",
    ),
    "Changes of layout": ("Transpose", "ReorderInput", "ReorderOutput", "Concat", "QLinearConcat", "Split", "Slice", "Pad"),
    "Changes of number format": ("Cast", "DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear"),
}  # fmt: skip
"""Operators that do the same work, in float or in integers, fused or not."""
WEIGHTED = frozenset((*FAMILIES["Convolutions"], *FAMILIES["Matrix products"], *FAMILIES["Recurrent layers"]))
VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze"})
"""They move nothing."""
_FAMILY = {operator: family for family, operators in FAMILIES.items() for operator in operators}


def family(operator: str) -> str:
    """Operators of one family do the same work; one without a family is a family of its own."""
    return _FAMILY.get(operator, operator.removeprefix("QLinear"))
