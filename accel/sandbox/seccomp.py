"""Seccomp: system calls that an engine never needs answer "not permitted"."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

NETWORK = ("socket", "connect", "bind", "listen", "accept", "accept4")
DENIED = (
    # the network
    *NETWORK, "sendmmsg", "recvmmsg",
    # other processes
    "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "process_madvise", "kcmp",
    # the kernel itself
    "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register",
    "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "iopl", "ioperm", "syslog",
    "add_key", "request_key", "keyctl", "reboot", "swapon", "swapoff", "settimeofday", "clock_settime", "adjtimex",
    # the file system's shape, and namespaces
    "mount", "umount2", "pivot_root", "chroot", "setns", "unshare", "move_mount", "open_tree", "fsopen", "fsmount",
    "name_to_handle_at", "open_by_handle_at", "quotactl", "acct", "mknod", "mknodat",
)  # fmt: skip
"""A list of what is refused, not of what is allowed: the runtimes' libraries use calls that differ from release to
release, and Landlock already holds the file system. ``socketpair`` stays: Python's own subprocess code uses it."""


_INTERNET = (2, 10)
"""Address families IPv4 and IPv6. Others, such as local sockets, reach what is no network."""
_NETLINK, _ROUTE = 16, 0
"""How the kernel is asked which interfaces there are, which gloo must know; the other protocols of the family are refused."""
_FAMILIES = 64
"""More than there are; families from here on are refused by one rule."""


def prepare(*, sockets: bool = False) -> tuple[Callable[[], None] | None, str]:
    """Build the filter; calling what is returned puts it in force. None, with the reason, where it cannot be built.

    Args:
        sockets: Whether sockets of the internet's families are let through.
    """
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError) as error:
        return None, f"libseccomp is not to be had: {error}"
    rules = pyseccomp.SyscallFilter(defaction=pyseccomp.ALLOW)
    for name in DENIED:
        if sockets and name in NETWORK:
            continue
        try:
            number = pyseccomp.resolve_syscall(pyseccomp.system_arch(), name)
        except ValueError:
            continue  # this processor's Linux does not have the call, so nobody can make it
        if number >= 0:
            rules.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
    if sockets:
        # One argument may be compared once in a rule, so that each of the others is refused by itself.
        allowed = (*_INTERNET, _NETLINK)
        refused: list[tuple[Any, ...]] = [
            (pyseccomp.Arg(0, pyseccomp.EQ, family),) for family in range(_FAMILIES) if family not in allowed
        ]
        refused.append((pyseccomp.Arg(0, pyseccomp.GE, _FAMILIES),))
        refused.append((pyseccomp.Arg(0, pyseccomp.EQ, _NETLINK), pyseccomp.Arg(2, pyseccomp.NE, _ROUTE)))
        for arguments in refused:
            rules.add_rule(pyseccomp.ERRNO(errno.EPERM), "socket", *arguments)
    return rules.load, ""
