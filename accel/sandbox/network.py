"""A network of this process's own, with nothing on it but itself: processes of one training then meet by the loopback interface.

Source: namespaces(7), network_namespaces(7), user_namespaces(7), netdevice(7).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

_NEWUSER, _NEWNET = 0x1000_0000, 0x4000_0000
_SET_FLAGS = 0x8914
_UP = 1
_PROCESS = Path("/proc/self")


def isolate() -> str:
    """Move this process into a network without interfaces but loopback; its children are born there.

    Call it before there is a second thread.

    Returns:
        An empty string, or why this host does not let it.
    """
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEWNET) != 0:
        # Without privileges a user namespace has to come first; in it the user stays who it is.
        if libc.unshare(_NEWUSER | _NEWNET) != 0:
            return f"this host has no network namespaces for it ({os.strerror(ctypes.get_errno())})"
        _write("setgroups", "deny")
        _write("uid_map", f"{user} {user} 1")
        _write("gid_map", f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sH22x", b"lo", _UP))
    return ""


def _write(name: str, text: str) -> None:
    (_PROCESS / name).write_text(text)
