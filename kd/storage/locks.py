"""Locks in folders that several machines may share, NFS included.

A lock is a lease of `filelock`: a file beside what it guards, made with ``O_CREAT | O_EXCL``, which names its holder's
machine and process and is touched every few seconds. It asks of a file system what NFS has given since version 3:
exclusive creation, and the server's attributes for whoever opens a file. It does not ask for ``flock``, which a mount
with ``nolock`` or ``local_lock`` grants on each machine by itself, without a word. A holder that was killed is noticed
at once on its own machine, and after `LEASE` seconds without a touch elsewhere, measured on the waiting machine's own
clock: no lock stays for ever. A holder that lost its lease, because it was stopped or cut off for so long that another
took it, is ended: what it did is resumed.
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
"""Seconds after which a silent holder counts as gone, and between two signs of life."""


def lock(place: Path, timeout: float = -1) -> SoftFileLease:
    """The lock of a file or folder, as a context; it waits for its holder, however long.

    Args:
        place: what it guards; the lock stands beside it.
        timeout: seconds to wait at most; -1: for ever.
    """
    return SoftFileLease(
        f"{place}.lease",
        lease_duration=LEASE,
        heartbeat_interval=TOUCH,
        timeout=timeout,
        on_compromise=end_this_process,
    )


def lock_or_refuse(place: Path, refusal: str) -> SoftFileLease:
    """The lock, taken, of something that nobody shall wait for.

    Where its holder is on another machine, this takes as long as it takes to see a sign of life of it, or none.

    Args:
        refusal: what another process does there, and what to do about it.

    Raises:
        KDError: it has one.
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
    """What a holder does that finds its lease in other hands."""
    log.error("the lock was lost while this process was stopped or cut off from the disk (%s): it ends", loss)
    os.kill(os.getpid(), signal.SIGTERM)


def is_here(hostname: str) -> bool:
    """Whether a holder's processes are this machine's; `filelock` puts a container's namespace behind the name."""
    name, _, namespace = hostname.partition("?pidns-")
    return name == socket.gethostname() and (not namespace or int(namespace, 16) == os.stat("/proc/self/ns/pid").st_ino)


def last_touch(lease: str) -> tuple[int, int] | None:
    """When a lease was touched, by the file server's clock, and which file it is; None where there is none."""
    try:
        with open(lease, "rb") as file:  # opened: NFS answers a mere stat from its memory
            found = os.fstat(file.fileno())
            return found.st_mtime_ns, found.st_ino
    except OSError:
        return None


def mark() -> str:
    """What tells this process's temporary files from those of all others, on all machines."""
    return f"{socket.gethostname()}-{os.getpid()}"


def look_again(folder: Path) -> None:
    """Have what other machines made in a folder seen: NFS remembers for up to a minute that there was nothing."""
    if folder.is_dir():
        os.close(os.open(folder, os.O_RDONLY))  # opening it asks the server
