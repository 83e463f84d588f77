"""A network of the library timm."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from accel.errors import TrainingFailed
from accel.training.architecture import OUTPUTS, ImageArchitecture
from accel.training.input_shapes import InputShape
from accel.training.losses import Task

if TYPE_CHECKING:
    import onnx_ir

_PACKAGES = ("timm", "torch", "onnxscript")


class Timm(ImageArchitecture):
    """A network for images from the library timm, by its name there, with new weights.

    Only where the packages timm and onnxscript are installed on the worker. Nothing is downloaded. What drops at random in training
    (dropout, stochastic depth) is not part of the graph.
    """

    architecture: Literal["timm"] = "timm"

    model: str = Field(
        min_length=1,
        max_length=200,
        pattern=r"^[A-Za-z0-9_.]+$",
        description="Its name in timm, without weights.",
        examples=["resnet18", "mobilenetv3_small_050"],
    )

    def build(
        self, inputs: tuple[InputShape, ...], outputs: int, seed: int, task: Task = "classification"
    ) -> onnx_ir.Model:
        """Make the network in PyTorch, and write down its graph.

        Raises:
            BindingMismatch: The rows are no images.
            TrainingFailed: A package is missing, timm has no such model, or it cannot be written as an ONNX graph.
        """
        self.refuse_misfit(inputs)
        missing = [package for package in _PACKAGES if find_spec(package) is None]
        if missing:
            raise TrainingFailed(
                f"The architecture 'timm' needs packages that are not installed on this worker: {', '.join(missing)}.",
                hint=f"Install them there (pip install {' '.join(missing)}), or choose the architecture resnet or mobilenet.",
            )
        from accel.training.exporting import export_timm

        (shape,) = inputs
        return export_timm(self.model, shape, self.layout, outputs, seed, OUTPUTS[task])
