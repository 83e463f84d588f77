"""What can go wrong in the engine. Each error has a stable ``code``, a message that names the object, and a hint."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from accel.events import ResultFile


class AccelError(Exception):
    """Something about the request, the model or the data keeps the engine from doing the work."""

    code: ClassVar[str] = "engine_error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.files: tuple[ResultFile, ...] = ()
        """What was made of use before."""


class BadRequest(AccelError):
    """The request on standard input is not one that the engine understands."""

    code = "bad_request"


class UnsupportedFormat(AccelError):
    """The file is of a format that is not taken, because it can carry code or is not an ONNX graph."""

    code = "unsupported_format"


class BadModel(AccelError):
    """The file is not a valid ONNX model."""

    code = "bad_model"


class ExternalData(AccelError):
    """The ONNX model keeps tensors outside its own file."""

    code = "external_data"


class UnknownOperator(AccelError):
    """The ONNX model uses an operator or a domain that no runtime here knows."""

    code = "unknown_operator"


class TooLarge(AccelError):
    """A file asks for more memory, nodes or bytes than the limits allow."""

    code = "too_large"


class BadDataset(AccelError):
    """The file is not a dataset that can be read without running code."""

    code = "bad_dataset"


class BindingMismatch(AccelError):
    """The columns of the dataset do not fit the inputs or outputs of the model."""

    code = "binding_mismatch"


class LabelsOutOfRange(AccelError):
    """The target column holds labels that the model has no class for."""

    code = "labels_out_of_range"


class DataRequired(AccelError):
    """The work needs a dataset and none was given."""

    code = "dataset_required"


class TechniqueFailed(AccelError):
    """A technique could not be applied to this model."""

    code = "technique_failed"


class UnsupportedOperator(AccelError):
    """A node's operator cannot be differentiated, so the model cannot be trained."""

    code = "unsupported_operator"


class TrainingFailed(AccelError):
    """A model could not be run for training, or its training came to nothing."""

    code = "training_failed"


class ResultBroken(AccelError):
    """A compressed model does not load or run in its runtime, or no longer computes anything of use."""

    code = "result_broken"


class RuntimeUnavailable(AccelError):
    """The runtime that was asked for is not to be had on this host."""

    code = "runtime_unavailable"


class RuntimeFailed(AccelError):
    """The runtime refused to load or to run the model."""

    code = "runtime_failed"


class OutOfMemory(AccelError):
    """The work needs more memory than the limit allows."""

    code = "out_of_memory"


class DiskFull(AccelError):
    """There is no space left for the result."""

    code = "disk_full"


class EngineCrashed(AccelError):
    """The engine's process ended without an answer."""

    code = "engine_crashed"


class EngineTimeout(AccelError):
    """The engine's process took longer than it may."""

    code = "engine_timeout"


class EngineFailed(AccelError):
    """The engine answered that the work cannot be done; ``code`` is the engine's own."""

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code  # type: ignore[misc]  # here the code belongs to the instance: it came from another process
