"""What Linux control groups, by which containers and batch systems limit memory, leave this process."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")

FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""By the name of the hierarchy (version 2 has none): the files of limit and use, and the part of the use that is cache to drop."""


def left_bytes(root: Path = ROOT) -> int | None:
    """The least that any group of this process still allows; None where none sets a limit or the system has no groups."""
    found = [left for folder, name in _groups(root) if (left := _left(folder, name)) is not None]
    return min(found, default=None)


def _groups(root: Path) -> Iterator[tuple[Path, str]]:
    """The folders of the process's groups with what is above them, each with its hierarchy's name."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, names, path = line.split(":", 2)
        for name in set(names.split(",")) & FILES.keys():
            mount = root / "sys/fs/cgroup" / name
            # A container sees its own group as the mount's root, whatever the path says.
            group = mount / path.strip("/")
            yield from ((folder, name) for folder in (group, *group.parents) if folder.is_relative_to(mount))


def _left(folder: Path, name: str) -> int | None:
    limit_file, use_file, cache_name = FILES[name]
    try:
        limit = (folder / limit_file).read_text().strip()
        use = int((folder / use_file).read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    return None if limit == "max" else max(int(limit) - use + int(statistics.get(cache_name, 0)), 0)
