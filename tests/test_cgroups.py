"""Limits of control groups, on folders made by hand."""

from pathlib import Path

import pytest

from rmaat.cgroups import left_bytes


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
    assert left_bytes(tmp_path) == 400


def test_a_container_finds_its_limit_at_the_mount(tmp_path):
    write(tmp_path, {"proc/self/cgroup": "0::/seen/from/outside\n", **group("", "500", 600, 20)})
    assert left_bytes(tmp_path) == 0


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
    assert left_bytes(tmp_path) == 3096


@pytest.mark.parametrize("cgroup", [None, "0::/job\n"])
def test_without_groups_or_limits_there_is_nothing_to_say(tmp_path, cgroup):
    if cgroup is not None:
        write(tmp_path, {"proc/self/cgroup": cgroup, **group("job/", "max", 10, 0)})
    assert left_bytes(tmp_path) is None
