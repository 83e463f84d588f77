"""Landlock: the kernel's file system and network rules for an unprivileged process (Linux 5.13 and later).

Source: https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Sequence
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULE_PATH_BENEATH = 1
_VERSION = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_ALL_BUT_LATE = (1 << 13) - 1
"""The thirteen rights of the first version; later versions add REFER (2), TRUNCATE (3) and IOCTL_DEV (5)."""
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_NET = 0b11
"""Bind and connect by TCP (4)."""
_SCOPE = 0b11
"""Abstract Unix sockets and signals stay within the domain (6)."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("access", ctypes.c_uint64), ("parent", ctypes.c_int32))


def restrict(*, readable: Sequence[Path], writable: Sequence[Path], sockets: bool = False) -> str:
    """Allow reading and executing beneath ``readable``, everything beneath ``writable``, and nothing else.

    Args:
        readable: Files and folders.
        writable: Files and folders.
        sockets: Whether to bind and connect by TCP is left as it is.

    Returns:
        An empty string, or why this kernel cannot.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    if version < 1:
        return f"this kernel has no Landlock ({os.strerror(ctypes.get_errno())})"
    rights = _ALL_BUT_LATE | (_REFER if version >= 2 else 0)  # noqa: PLR2004  (the ABI's own numbers)
    rights |= (_TRUNCATE if version >= 3 else 0) | (_IOCTL_DEV if version >= 5 else 0)  # noqa: PLR2004
    rules = _Ruleset(fs=rights, net=_NET if version >= 4 and not sockets else 0, scoped=_SCOPE if version >= 6 else 0)  # noqa: PLR2004
    # An older kernel refuses a structure that is longer than it knows.
    size = 8 if version < 4 else 16 if version < 6 else 24  # noqa: PLR2004
    ruleset = _checked(libc.syscall(_CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(size), 0))
    try:
        for path in readable:
            _allow(libc, ruleset, path, rights & (_EXECUTE | _READ_FILE | _READ_DIR))
        for path in writable:
            _allow(libc, ruleset, path, rights & ~_EXECUTE)
        _checked(libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return ""


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= _ON_FILES
        rule = _PathBeneath(access=rights, parent=place)
        _checked(libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0))
    finally:
        os.close(place)


def _checked(answer: int) -> int:
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"landlock: {os.strerror(code)}")
    return answer
