"""The memory of this process, on the CPU and on a GPU: in use, at its peak, free, and limited.

Importing this module needs neither torch nor the module `resource`, which Windows lacks.
"""

import contextlib
import ctypes
import gc
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    import torch

SHARE_OF_FREE = 0.85
"""The share of the free memory that a measurement may take, so that it fails before the machine."""


class Memory(ABC):
    """The memory of this process on one device. All sizes are in bytes."""

    @abstractmethod
    def used(self) -> int:
        """Return the size in use now."""

    @abstractmethod
    def peak(self) -> int:
        """Return the largest size in use since the start or the last `reset_peak`."""

    @abstractmethod
    def reset_peak(self) -> None:
        """Begin a new peak if the system can; otherwise the peak stays that since the start."""

    @abstractmethod
    def return_freed(self) -> None:
        """Give freed memory back to the system, if it would count as used."""

    def begin_peak(self) -> int:
        """Collect garbage, begin a new peak, and return the size in use."""
        gc.collect()
        self.return_freed()
        self.reset_peak()
        return self.used()

    @abstractmethod
    def free(self) -> int:
        """Return the size that this process could still take."""

    @abstractmethod
    def limit_growth(self, allowance: int | None = None) -> None:
        """Let allocations fail that need more than `allowance` bytes beyond what is used now.

        None stands for most of the free memory on a CPU, and for the whole of a GPU.
        """


class ResidentMemory(Memory):
    """Resident memory of the process, libraries and data included."""

    def used(self) -> int:
        """Return the resident memory."""
        return int(psutil.Process().memory_info().rss)

    def peak(self) -> int:
        """Return the peak of the resident memory."""
        status = Path("/proc/self/status")
        if status.exists():
            for line in status.read_text(encoding="utf-8").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        try:
            import resource
        except ImportError:  # Windows
            return int(psutil.Process().memory_info().peak_wset)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def reset_peak(self) -> None:
        """Begin a new peak (Linux only)."""
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")

    def return_freed(self) -> None:
        """Trim the heap of glibc, which keeps freed memory; with another C library do nothing."""
        if trim := _trim():
            trim(0)

    def free(self) -> int:
        """Return the machine's available memory, or what a container or batch system leaves."""
        available = int(psutil.virtual_memory().available)
        group = group_free_bytes()
        return available if group is None else min(available, group)

    def limit_growth(self, allowance: int | None = None) -> None:
        """Limit the data segment (Linux only; elsewhere do nothing)."""
        if sys.platform == "linux":
            import resource

            if allowance is None:
                allowance = int(SHARE_OF_FREE * self.free())
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + allowance, hard))


class CudaMemory(Memory):
    """Memory of this process's tensors on one GPU, as PyTorch's allocator counts it.

    Args:
        index: of the GPU; None means the current one, at each call.
    """

    def __init__(self, index: int | None = None) -> None:
        import torch

        self._cuda = torch.cuda
        self._index = index

    def used(self) -> int:
        """Return the size of all tensors."""
        return self._cuda.memory_allocated(self._index)

    def peak(self) -> int:
        """Return the peak of the size of all tensors."""
        return self._cuda.max_memory_allocated(self._index)

    def reset_peak(self) -> None:
        """Begin a new peak."""
        self._cuda.reset_peak_memory_stats(self._index)

    def return_freed(self) -> None:
        """Do nothing: what the allocator keeps for later does not count as used."""

    def free(self) -> int:
        """Return what the GPU has free and what the allocator keeps for later."""
        reserve = self._cuda.memory_reserved(self._index) - self.used()
        return self._cuda.mem_get_info(self._index)[0] + reserve

    def limit_growth(self, allowance: int | None = None) -> None:
        """Limit the allocator's share of the GPU."""
        # The limit counts what the allocator keeps for later.
        self._cuda.synchronize(self._index)
        self._cuda.empty_cache()
        total = self._cuda.get_device_properties(self._index).total_memory
        share = 1.0 if allowance is None else min((self.used() + allowance) / total, 1.0)
        self._cuda.set_per_process_memory_fraction(share, self._index)


def memory_of(device: "str | torch.device") -> Memory:
    """Return the memory of a device: the allocator's for 'cuda' or 'cuda:1', else the resident."""
    kind, _, index = str(device).partition(":")
    if kind == "cuda":
        return CudaMemory(int(index) if index else None)
    return ResidentMemory()


@cache
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None


def _data_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("Linux states VmData")


GROUP_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""By the name of a control group's hierarchy (version 2 has none): the files of limit and use, and
the name of the droppable cache in memory.stat."""


def group_free_bytes(root: Path = Path("/")) -> int | None:
    """Return the least that any Linux control group of this process still allows, in bytes.

    Containers and batch systems limit memory by such groups. None if no group sets a limit or the
    system has no groups. `root` is the folder in which `proc` and `sys` lie.
    """
    sizes = (_group_free(folder, hierarchy) for folder, hierarchy in _groups(root))
    return min((size for size in sizes if size is not None), default=None)


def _groups(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the folders of the process's groups and of those above, each with its hierarchy."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, names, path = line.split(":", 2)
        for hierarchy in set(names.split(",")) & GROUP_FILES.keys():
            mount = root / "sys/fs/cgroup" / hierarchy
            # A container sees its own group as the mount's root, whatever the path says.
            group = mount / path.strip("/")
            for folder in (group, *group.parents):
                if folder.is_relative_to(mount):
                    yield folder, hierarchy


def _group_free(folder: Path, hierarchy: str) -> int | None:
    limit_file, use_file, cache_name = GROUP_FILES[hierarchy]
    try:
        limit = (folder / limit_file).read_text(encoding="utf-8").strip()
        use = int((folder / use_file).read_text(encoding="utf-8"))
        lines = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    if limit == "max":
        return None
    statistics = dict(line.split() for line in lines)
    return max(int(limit) - use + int(statistics.get(cache_name, 0)), 0)
