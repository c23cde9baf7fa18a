"""The energy meter on counters made by hand: this machine may have none."""

import pytest

from kd.measure.energy import Counter, EnergyMeter, gpu_counters, processor_counters


def zone(folder, name, label, microjoules, wraps_at=1_000_000_000):
    path = folder / name
    path.mkdir(parents=True)
    for file, value in (("name", label), ("energy_uj", microjoules), ("max_energy_range_uj", wraps_at)):
        (path / file).write_text(f"{value}\n")
    return path / "energy_uj"


def test_packages_are_summed_and_their_parts_are_not(tmp_path):
    first = zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 1_000_000)
    part = zone(tmp_path, "intel-rapl:0:0", "core", 4_000_000)
    zone(tmp_path, "intel-rapl:2", "psys", 0)
    meter = EnergyMeter(processor_counters(tmp_path))
    for counter, joules in ((first, 12), (second, 2.5), (part, 9)):
        counter.write_text(str(int(joules * 1e6)))
    told = meter.stop()
    assert told["joules"] == pytest.approx(7 + 1.5)
    assert told["sources"] == ["RAPL package-0", "RAPL package-1"] and told["seconds"] >= 0


def test_a_counter_that_begins_again(tmp_path):
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 990_000_000)
    meter = EnergyMeter(processor_counters(tmp_path))
    counter.write_text("20000000")
    assert meter.stop()["joules"] == pytest.approx(30)


def test_counters_that_may_not_be_read_tell_nothing(tmp_path):
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    counter.unlink()
    assert EnergyMeter(processor_counters(tmp_path)).stop() is None
    assert processor_counters(tmp_path / "nowhere") == []

    def refused() -> float:
        raise PermissionError

    values = iter([1.0, 4.0])
    meter = EnergyMeter([Counter("no", refused), Counter("yes", lambda: next(values))])
    assert meter.stop()["sources"] == ["yes"]


def test_without_the_library_there_is_no_gpu_counter(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    assert gpu_counters({}) == []


class Library:
    """NVML of two GPUs, of which the second draws twice as much."""

    def __init__(self):
        self.calls = 0

    def nvmlInit_v2(self):
        return 0

    def nvmlDeviceGetCount_v2(self, count):
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, device):
        device._obj.value = index + 1
        return 0

    def nvmlDeviceGetHandleByUUID(self, name, device):
        return 1

    def nvmlDeviceGetTotalEnergyConsumption(self, device, millijoules):
        self.calls += 1
        millijoules._obj.value = 1000 * self.calls * device.value
        return 0


@pytest.mark.parametrize(("visible", "joules"), [("1", 2), ("0", 1), (None, 6), ("", 0), ("GPU-other", 0)])
def test_only_the_visible_gpus_count(monkeypatch, visible, joules):
    monkeypatch.setattr("ctypes.CDLL", lambda name: Library())
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    told = EnergyMeter(gpu_counters(environment)).stop()
    assert (told["joules"] if told else 0) == pytest.approx(joules)
