"""Text that every database and every reader can hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, StringConstraints


def storable(text: str) -> str:
    """The text itself.

    Raises:
        ValueError: It has a NUL, which PostgreSQL refuses, or half of a surrogate pair, which no UTF-8 can hold.
    """
    if "\x00" in text:
        raise ValueError("must not hold a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("must not hold a lone surrogate") from error
    return text


def all_storable(document: object) -> None:
    """Check every text of a JSON document, keys included.

    Raises:
        ValueError: One is not :func:`storable`.
    """
    match document:
        case str():
            storable(document)
        case dict():
            for key, value in document.items():
                all_storable(key)
                all_storable(value)
        case list():
            for value in document:
                all_storable(value)


Name = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True), AfterValidator(storable)]
"""What people call a model or a dataset."""
