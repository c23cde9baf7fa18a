"""Locks in folders that several machines may share, also over NFS. Needs no torch.

A lock is a lease of `filelock`: a file beside what it protects. The file is created with ``O_CREAT | O_EXCL``, names
the machine and the process of its holder, and is touched every few seconds. Two properties of the file system are
needed, and NFS has both since version 3: exclusive creation, and fresh attributes for a process that opens a file.
``flock`` is not used: a mount with ``nolock`` or ``local_lock`` grants it on each machine separately, without an error.

No lock stays for ever. If the holder was killed, its own machine notices at once; another machine notices when the file
was not touched for `LEASE` seconds of its own clock. If the holder was suspended or cut off for so long that another
process took the lease, the old holder is terminated; its work can be resumed.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from pathlib import Path

from filelock import SoftFileLease, Timeout

from kd.errors import KDError

log = logging.getLogger(__name__)

LEASE, TOUCH = 60.0, 10.0
"""Seconds without a touch after which a holder counts as gone, and seconds between two touches."""


def lock(place: Path, timeout: float = -1) -> SoftFileLease:
    """Return the lock of a file or folder. Used in a ``with`` statement, it waits until the lock is free.

    Args:
        place: the file or folder to protect. The lock's own file is made beside it.
        timeout: seconds to wait at most; -1 waits without a limit.
    """
    return SoftFileLease(
        f"{place}.lease",
        lease_duration=LEASE,
        heartbeat_interval=TOUCH,
        timeout=timeout,
        on_compromise=end_this_process,
    )


def lock_or_refuse(place: Path, refusal: str) -> SoftFileLease:
    """Acquire a lock at once or raise.

    If the holder is on another machine, this takes until the holder's file is touched, or until the lease has expired.

    Args:
        place: the file or folder to protect.
        refusal: the rest of the error message: what the other process does, and what the user can do.

    Raises:
        KDError: another process holds the lock.
    """
    lease, touched = lock(place, timeout=1.0), None
    deadline = time.monotonic() + LEASE + TOUCH
    while True:
        try:
            lease.acquire()
            return lease
        except Timeout:
            owner, before, touched = lease.owner, touched, last_touch(lease.lock_file)
        alive = before is not None and touched is not None and before != touched
        if owner and (alive or is_here(owner.hostname) or time.monotonic() > deadline):
            raise KDError(f"another process ({owner.pid} on {owner.hostname.split('?')[0]}) {refusal}") from None


def end_this_process(loss: object) -> None:
    """Terminate this process, whose lease another process has taken."""
    log.error("this process lost its lock while it was suspended or cut off from the disk (%s): it stops", loss)
    os.kill(os.getpid(), signal.SIGTERM)


def is_here(hostname: str) -> bool:
    """Return whether a holder runs on this machine, in the same container.

    `filelock` appends the container's process namespace to the host name.
    """
    name, _, namespace = hostname.partition("?pidns-")
    return name == socket.gethostname() and (not namespace or int(namespace, 16) == os.stat("/proc/self/ns/pid").st_ino)


def last_touch(lease: str) -> tuple[int, int] | None:
    """Return the time of the last touch, by the file server's clock, and the file's inode; None without a file."""
    try:
        with open(lease, "rb") as file:  # without opening the file, NFS would return cached attributes
            found = os.fstat(file.fileno())
            return found.st_mtime_ns, found.st_ino
    except OSError:
        return None


def mark() -> str:
    """Return a part for names of temporary files that no other process on any machine has."""
    return f"{socket.gethostname()}-{os.getpid()}"


def look_again(folder: Path) -> None:
    """Make files visible that other machines have written to a folder: NFS caches a missing file for up to a minute."""
    if folder.is_dir():
        os.close(os.open(folder, os.O_RDONLY))  # opening the folder refreshes the cache
