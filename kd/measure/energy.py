"""Measure the energy of a training, where the hardware has a counter. Needs no torch.

There are two kinds: the RAPL counters of Intel's and AMD's processor packages (Linux, ``/sys/class/powercap``, often
readable by root alone), and NVML's counter of a GPU (since Volta). Both count a whole device, with all its processes.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Counter:
    """A counter of one device.

    Args:
        source: name of the device, for the report.
        read: returns the joules since some moment.
        wraps_at: joules after which it starts at 0 again, or None.
    """

    source: str
    read: Callable[[], float]
    wraps_at: float | None = None


class EnergyMeter:
    """Measures the joules from its creation to `stop`.

    >>> meter = EnergyMeter([])
    >>> meter.stop() is None
    True
    """

    def __init__(self, counters: list[Counter]):
        self.started = time.perf_counter()
        self.counters = [(counter, first) for counter in counters if (first := _value(counter)) is not None]

    @classmethod
    def of_this_machine(cls, gpus: bool) -> EnergyMeter:
        """Return a meter of the processor, and of the visible GPUs where ``gpus`` is true."""
        return cls([*processor_counters(), *(gpu_counters(os.environ) if gpus else ())])

    def stop(self) -> dict[str, object] | None:
        """Return ``joules``, ``seconds`` and ``sources``; None where no counter can be read."""
        joules, sources = 0.0, []
        for counter, first in self.counters:
            last = _value(counter)
            if last is None:
                continue
            if last < first and counter.wraps_at:
                last += counter.wraps_at
            joules += max(0.0, last - first)
            sources.append(counter.source)
        seconds = round(time.perf_counter() - self.started, 2)
        return {"joules": round(joules, 2), "seconds": seconds, "sources": sources} if sources else None


def processor_counters(folder: Path = POWERCAP) -> list[Counter]:
    """Return a counter for each processor package; counters of its cores and memory are left out."""
    found = []
    for zone in sorted(folder.glob("*-rapl:*")):
        if zone.name.count(":") > 1:
            continue  # a part of a package
        try:
            name = (zone / "name").read_text().strip()
            wraps_at = int((zone / "max_energy_range_uj").read_text()) / 1e6
        except (OSError, ValueError):
            continue
        if name.startswith("package"):
            found.append(Counter(f"RAPL {name}", _microjoules(zone / "energy_uj"), wraps_at))
    return found


def gpu_counters(environment: Mapping[str, str]) -> list[Counter]:
    """Return a counter for each GPU that ``CUDA_VISIBLE_DEVICES`` leaves visible, read by NVIDIA's NVML library."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        count = ctypes.c_uint()
        if library.nvmlInit_v2() or library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            return []
    except (OSError, AttributeError):
        return []
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    names = list(map(str, range(count.value))) if visible is None else [name.strip() for name in visible.split(",")]
    found = []
    for name in filter(None, names):
        device = ctypes.c_void_p()
        if name.isdigit():
            failed = library.nvmlDeviceGetHandleByIndex_v2(int(name), ctypes.byref(device))
        else:
            failed = library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(device))
        if not failed:
            found.append(Counter(f"NVML GPU {name}", _gpu_joules(library, device)))
    return found


def _microjoules(path: Path) -> Callable[[], float]:
    return lambda: int(path.read_text()) / 1e6


def _gpu_joules(library: ctypes.CDLL, device: ctypes.c_void_p) -> Callable[[], float]:
    def read() -> float:
        millijoules = ctypes.c_ulonglong()
        if failed := library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(millijoules)):
            raise OSError(failed, "NVML cannot read the energy of this GPU")
        return millijoules.value / 1000

    return read


def _value(counter: Counter) -> float | None:
    """Read a counter; None where it cannot be read."""
    try:
        return counter.read()
    except (OSError, ValueError, AttributeError):
        return None
