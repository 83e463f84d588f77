"""The architectures, one file each. Every file of this folder is imported, so adding one is all it takes."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field, TypeAdapter

from accel.training.architecture import Architecture


def _load() -> tuple[type[Architecture], ...]:
    # Nothing is caught: an architecture that fails to import must stop the process, not vanish from the list.
    for module in pkgutil.iter_modules(__path__, __name__ + "."):
        importlib.import_module(module.name)
    return tuple(known for _, known in sorted(Architecture.known.items()))


ARCHITECTURES: tuple[type[Architecture], ...] = _load()

if TYPE_CHECKING:
    AnyArchitecture = Architecture
else:
    AnyArchitecture = Annotated[Union[ARCHITECTURES], Field(discriminator="architecture")]  # noqa: UP007 (made at run time)

adapter: TypeAdapter[Architecture] = TypeAdapter(AnyArchitecture)
