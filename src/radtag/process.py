"""How a process of radtag's uses its machine. The command line sets it; a library must not, and does not.

What is set was measured on two cores, PyTorch on the CPU: docs/results.md, "Speed". What the user has set stays.
"""

from __future__ import annotations

import ctypes
import os
import sys

KEPT_BYTES = 2**31 - 1
"""Freed memory that stays with the process, and the largest that is not asked for anew: the most that mallopt takes."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def keep_memory() -> bool:
    """Lets the C library keep what a network's step frees for the next step.

    By default glibc gives memory of more than a few megabytes back at once, and every step of training asks the
    system for all its activations again, page by page: a third of its time on a CPU.

    Returns:
        Whether it could be told; elsewhere than on glibc there is nothing to tell.
    """
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    # One arena for all threads: those of further threads hold 64 MiB at most, and larger features would not be kept.
    # Before 2.35 glibc takes no more than 32 MiB for a threshold; and where one is set, it adapts the other no more.
    if not (mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES) or mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)):
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES) and mallopt(_M_ARENA_MAX, 1))


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def let_waiting_threads_sleep() -> None:
    """Lets the network's threads sleep when they wait, and not spin on cores that read and write; before torch is.

    Tagging with two cores takes a fifth less time, and the network alone takes no longer.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
