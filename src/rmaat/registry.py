"""`Registry`, a typed table of named objects, which are imported on first use."""

import importlib
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar, cast

from rmaat.errors import UserError, did_you_mean

T = TypeVar("T")


def import_object(place: str) -> Any:
    """Return the object at `"module:attribute"`."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Registry(Generic[T]):
    """A table from names to objects of one type.

    An entry given as the string `"module:attribute"` is imported on its first use, so that listing
    names imports nothing. Installed packages can add entries through an entry point group. The group
    is read if a name is not known here, and when all names are listed.
    """

    def __init__(
        self,
        kind: str,
        entries: dict[str, T | str] | None = None,
        *,
        group: str | None = None,
        entry_type: type[T] | None = None,
    ) -> None:
        """Register the entries in their order.

        Args:
            kind: the word used in messages ("task").
            entries: names and their objects, or the strings to import them from.
            group: entry point group (importlib.metadata) of entries from other packages, or None.
            entry_type: class that entries from other packages must be instances of; needs `group`.
        """
        self._kind = kind
        self._entries: dict[str, T | str] = {}
        self._group = group
        self._entry_type = entry_type
        self._packages: dict[str, str] | None = None
        for name, entry in (entries or {}).items():
            self.register(name, entry)

    def register(self, name: str, entry: T | str) -> None:
        """Add an entry; raise `ValueError` if the name is taken."""
        if name in self._entries:
            raise ValueError(f"{self._kind} '{name}' is registered already")
        self._entries[name] = entry

    def names(self) -> tuple[str, ...]:
        """Return all names in the order of registration, then those of other packages."""
        self._read_group()
        return tuple(self._entries)

    def __contains__(self, name: object) -> bool:
        if name not in self._entries:
            self._read_group()
        return name in self._entries

    def __getitem__(self, name: str) -> T:
        """Return the entry of that name.

        Raises:
            UserError: for an unknown name, with the nearest one; or if another package's entry
                cannot be imported or is of another type.
        """
        if name not in self:
            raise UserError(f"unknown {self._kind} '{name}'; {did_you_mean(str(name), self._entries)}")
        entry = self._entries[name]
        if isinstance(entry, str):
            package = (self._packages or {}).get(name)
            entry = cast(
                T, import_object(entry) if package is None else self._import_from_package(name, package, entry)
            )
            self._entries[name] = entry
        return entry

    def _read_group(self) -> None:
        """Add the entries of other packages, once: the search goes through all installed packages."""
        if self._group is None or self._packages is not None:
            return
        places: dict[str, str] = {}
        packages: dict[str, str] = {}
        for point in entry_points(group=self._group):
            package = point.dist.name if point.dist else "?"
            if point.name in self._entries or point.name in places:
                raise UserError(
                    f"the package '{package}' registers {self._kind} '{point.name}', which is "
                    "taken; rename it there, or uninstall that package"
                )
            places[point.name] = f"{point.module}:{point.attr}"
            packages[point.name] = package
        self._entries.update(places)
        self._packages = packages

    def _import_from_package(self, name: str, package: str, place: str) -> Any:
        where = f"{self._kind} '{name}' of the package '{package}'"
        try:
            entry = import_object(place)
        except (ImportError, AttributeError) as error:
            raise UserError(f"{where} cannot be imported from '{place}': {error}") from error
        if self._entry_type is not None and not isinstance(entry, self._entry_type):
            expected = f"{self._entry_type.__module__}.{self._entry_type.__qualname__}"
            raise UserError(f"{where}: '{place}' is a {type(entry).__name__}, not a {expected}")
        return entry
