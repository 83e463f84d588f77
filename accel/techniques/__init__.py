"""The techniques, one file each. Every file of this folder is imported, so adding one is all it takes."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field, TypeAdapter

from accel.technique import Technique


def _load() -> tuple[type[Technique], ...]:
    # Nothing is caught: a technique that fails to import must stop the process, not vanish from the list.
    for module in pkgutil.iter_modules(__path__, __name__ + "."):
        importlib.import_module(module.name)
    return tuple(known for _, known in sorted(Technique.known.items()))


TECHNIQUES: tuple[type[Technique], ...] = _load()

if TYPE_CHECKING:
    AnyTechnique = Technique
else:
    AnyTechnique = Annotated[Union[TECHNIQUES], Field(discriminator="technique")]  # noqa: UP007 (made at run time)

adapter: TypeAdapter[Technique] = TypeAdapter(AnyTechnique)
