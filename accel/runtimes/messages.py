"""Messages of runtimes, made fit for callers."""

from __future__ import annotations

import re

_LENGTH = 600


def clean(text: str) -> str:
    """The message without source positions and local paths, in one line."""
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : ", "", text)
    text = re.sub(r"(/[\w.+~-]+)+/([\w.+-]+)(:\d+)?", r"\2", text)
    return " ".join(text.split())[:_LENGTH]
