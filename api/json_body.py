"""JSON bodies, read strictly: what a database or another parser would trip over is refused here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute

from api.errors import Fault, HttpFault

MAX_DEPTH: Final = 64
_TOO_DEEP = f"The JSON body is nested deeper than {MAX_DEPTH} levels."


def parse(text: bytes | bytearray) -> object:
    """Read JSON as RFC 8259 means it.

    Raises:
        HttpFault: ``bad_json`` for anything else: NaN and infinities, lone surrogates, NUL, deep nesting.
    """
    try:
        value: object = json.loads(
            text.decode(), parse_constant=_constant, parse_float=_float, object_pairs_hook=_object
        )
    except json.JSONDecodeError as error:
        raise HttpFault("bad_json", f"The body is not JSON: {error.msg} at character {error.pos}.") from None
    except UnicodeDecodeError:
        raise HttpFault("bad_json", "The body is not UTF-8.") from None
    except RecursionError:
        raise HttpFault("bad_json", _TOO_DEEP) from None
    except ValueError:
        raise HttpFault("bad_json", "The body holds a number with too many digits.") from None
    _look_through(value)
    return value


def _constant(name: str) -> NoReturn:
    raise HttpFault("bad_json", f"{name} is not JSON.", hint="Send a finite number, or null where it is allowed.")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise HttpFault("bad_json", "The body holds a number that is too large.")
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        name = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise HttpFault("bad_json", f"The name {name[:100]!a} occurs twice in one object.")
    return value


def _look_through(value: object) -> None:
    level = [("", value)]
    for _ in range(MAX_DEPTH + 1):
        below: list[tuple[str, object]] = []
        for pointer, item in level:
            if isinstance(item, str):
                check_text(item, pointer)
            elif isinstance(item, dict):
                for name, part in item.items():
                    check_text(name, pointer)
                    below.append((f"{pointer}/{escape(name)}", part))
            elif isinstance(item, list):
                below.extend((f"{pointer}/{index}", part) for index, part in enumerate(item))
        if not below:
            return
        level = below
    raise HttpFault("bad_json", _TOO_DEEP)


def check_text(text: str, pointer: str) -> None:
    """Refuse text that UTF-8 or a database cannot hold.

    Raises:
        HttpFault: ``bad_json``: a lone surrogate, or NUL.
    """
    fault = ""
    if "\0" in text:
        fault = "holds the character NUL"
    elif not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        fault = "holds half of a surrogate pair"
    if fault:
        raise HttpFault("bad_json", f"A text of the request {fault}.", faults=[Fault(pointer, f"The text {fault}.")])


def escape(name: str) -> str:
    """A name as a part of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


class StrictRequest(Request):
    """A request whose JSON is read by ``parse``, and whose body has a limit."""

    async def body(self) -> bytes:
        """The whole body.

        Raises:
            HttpFault: ``body_too_large``.
        """
        if not hasattr(self, "_body"):
            limit: int = self.app.state.settings.json_limit_bytes
            told = self.headers.get("content-length", "")
            if told.isdigit() and int(told) > limit:
                raise _too_large(limit)
            read = bytearray()
            async for chunk in self.stream():
                read += chunk
                if len(read) > limit:
                    raise _too_large(limit)
            self._body = bytes(read)
        return self._body


def _too_large(limit: int) -> HttpFault:
    # The rest of the body is not read, so the connection cannot be used again.
    return HttpFault("body_too_large", f"The body is larger than {limit} bytes.", headers={"Connection": "close"})


class StrictRoute(APIRoute):
    """A route with a JSON body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, given a ``StrictRequest`` that has been read."""
        handle = super().get_route_handler()
        has_body = self.body_field is not None

        async def handler(request: Request) -> Response:
            strict = StrictRequest(request.scope, request.receive)
            if has_body:
                kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
                # FastAPI turns every error of its own reading into one message, so the body is read here first.
                body = await strict.body()
                if kind != "application/json" and not kind.endswith("+json"):
                    raise HttpFault(
                        "unsupported_media_type",
                        f"The body must be application/json, not {kind or 'of no stated type'}.",
                        headers={"Accept": "application/json"},
                    )
                strict._json = parse(body)  # noqa: SLF001  (the cache that Request.json() keeps its answer in)
            return await handle(strict)

        return handler
