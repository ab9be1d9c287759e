"""Free memory under the limits of control groups, on folders made by hand; one meter a device."""

from pathlib import Path

import pytest
import torch

from rmaat.machine.memory import ResidentMemory, group_free_bytes, memory_of


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def group(folder: str, limit: str, use: int, cache: int) -> dict[str, str]:
    return {
        f"sys/fs/cgroup/{folder}memory.max": f"{limit}\n",
        f"sys/fs/cgroup/{folder}memory.current": f"{use}\n",
        f"sys/fs/cgroup/{folder}memory.stat": f"anon 7\ninactive_file {cache}\n",
    }


def test_the_tightest_group_above_the_process_counts(tmp_path):
    write(tmp_path, {"proc/self/cgroup": "0::/job/step\n"})
    write(
        tmp_path, {**group("job/step/", "max", 10, 0), **group("job/", "1000", 700, 100), **group("", "2000", 900, 0)}
    )
    assert group_free_bytes(tmp_path) == 400


def test_a_container_finds_its_limit_at_the_mount(tmp_path):
    write(tmp_path, {"proc/self/cgroup": "0::/seen/from/outside\n", **group("", "500", 600, 20)})
    assert group_free_bytes(tmp_path) == 0


def test_the_first_version_has_a_hierarchy_of_memory(tmp_path):
    write(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/a\n4:memory:/a\n",
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "4096\n",
            "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "1096\n",
            "sys/fs/cgroup/memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 96\n",
        },
    )
    assert group_free_bytes(tmp_path) == 3096


@pytest.mark.parametrize("cgroup", [None, "0::/job\n"])
def test_without_groups_or_limits_there_is_nothing_to_say(tmp_path, cgroup):
    if cgroup is not None:
        write(tmp_path, {"proc/self/cgroup": cgroup, **group("job/", "max", 10, 0)})
    assert group_free_bytes(tmp_path) is None


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), "meta"])
def test_all_but_a_gpu_is_measured_as_resident_memory(device):
    assert isinstance(memory_of(device), ResidentMemory)


def test_free_memory_is_no_more_than_a_group_allows(monkeypatch):
    monkeypatch.setattr("rmaat.machine.memory.group_free_bytes", lambda: 4096)
    assert ResidentMemory().free() == 4096
    monkeypatch.setattr("rmaat.machine.memory.group_free_bytes", lambda: None)
    assert ResidentMemory().free() > 4096


def test_most_of_the_free_memory_is_the_limit_if_none_is_named(monkeypatch):
    resource = pytest.importorskip("resource")
    limits = []
    monkeypatch.setattr("rmaat.machine.memory.sys.platform", "linux")
    monkeypatch.setattr("rmaat.machine.memory._data_bytes", lambda: 5)
    monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: limits.append(pair[0]))
    monkeypatch.setattr(ResidentMemory, "free", lambda self: 1000)
    ResidentMemory().limit_growth()
    ResidentMemory().limit_growth(40)
    assert limits == [855, 45]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpus_memory_is_that_of_its_tensors():
    memory = memory_of("cuda")
    baseline = memory.begin_peak()
    block = torch.ones(16 * 2**20, device="cuda")
    assert memory.used() - baseline == 64 * 2**20
    free = memory.free()
    del block
    assert (memory.used(), memory.peak() - baseline) == (baseline, 64 * 2**20)
    assert memory.free() >= free + 64 * 2**20
    memory.limit_growth(2**20)
    with pytest.raises(torch.OutOfMemoryError):
        torch.ones(16 * 2**20, device="cuda")
    memory.limit_growth()
    torch.ones(16 * 2**20, device="cuda")
