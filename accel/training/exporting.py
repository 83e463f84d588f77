"""Write down a network of PyTorch as a graph that can be trained."""

from __future__ import annotations

import difflib
from importlib import import_module

import onnx_ir as ir
import torch
from torch import Tensor, nn

from accel.errors import TrainingFailed
from accel.graph.building import BATCH, OPSET
from accel.training.input_shapes import InputShape, Layout


class _Images(nn.Module):
    """A network that takes images as the dataset has them."""

    def __init__(self, network: nn.Module, *, grey: bool) -> None:
        super().__init__()
        self.network = network
        self._grey = grey

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.network(images.unsqueeze(1) if self._grey else images.permute(0, 3, 1, 2))
        return found


def export_timm(name: str, shape: InputShape, layout: Layout, outputs: int, seed: int, output: str) -> ir.Model:
    """A network of timm with new weights.

    Args:
        name: Its name there.
        shape: Images, as the dataset has them.
        layout: Where they have their channels.
        outputs: Numbers that it gives for each image.
        seed: Of the weights.
        output: Name of the output.

    Returns:
        Its graph in the form for inference, batch norms not folded.

    Raises:
        TrainingFailed: timm has no such model, or it cannot be made for these images, or written as an ONNX graph.
    """
    timm = import_module("timm")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3)
        raise TrainingFailed(
            f"timm {timm.__version__} has no model {name!r}.", hint=f"It has {', '.join(near)}." if near else ""
        )
    grey = len(shape.shape) == 2  # noqa: PLR2004  (height and width)
    last = not grey and shape.channels_last(layout)
    channels = 1 if grey else shape.shape[-1 if last else 0]
    height, width = shape.shape[:2] if grey or last else shape.shape[1:]
    settings = timm.get_pretrained_cfg(name)
    sized = {"img_size": (height, width)} if settings is not None and settings.fixed_input_size else {}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = timm.create_model(name, pretrained=False, in_chans=channels, num_classes=outputs, **sized)
        whole = _Images(network, grey=grey) if grey or last else network
        return _export(whole.eval(), torch.zeros(2, *shape.shape), shape.name, output)
    except Exception as error:
        raise TrainingFailed(
            f"The model {name!r} of timm could not be made for {shape}: {' '.join(str(error).split())[:300]}",
            hint="Choose another model, or the architecture resnet or mobilenet.",
        ) from error


def _export(network: nn.Module, sample: Tensor, name: str, output: str) -> ir.Model:
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    program = torch.onnx.export(
        network,
        (sample,),
        dynamo=True,
        opset_version=OPSET,
        input_names=[name],
        output_names=[output],
        dynamic_shapes=({0: torch.export.Dim(BATCH)},),
        optimize=False,  # which would fold batch norms
        verbose=False,
    )
    if program is None:
        raise TypeError("PyTorch's exporter gave no program")
    model: ir.Model = program.model
    import_module("onnxscript.optimizer").fold_constants(model)
    RemoveUnusedNodesPass()(model)
    for node in model.graph.all_nodes():
        node.metadata_props.clear()  # where in which file it came from
        for value in node.outputs:
            value.metadata_props.clear()
    return model
