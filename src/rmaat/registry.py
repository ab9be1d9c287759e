"""A typed table of named things, filled with objects or with the place to import them from."""

import importlib
from typing import Generic, TypeVar, cast

from rmaat.errors import UserError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to things of one kind.

    An entry given as the string `"module:attribute"` is imported when it is first asked for, so that listing names
    costs nothing.
    """

    def __init__(self, kind: str, entries: dict[str, T | str] | None = None) -> None:
        """`kind` is the word used in messages ("task"); `entries` are registered in their order."""
        self._kind = kind
        self._entries: dict[str, T | str] = {}
        for name, entry in (entries or {}).items():
            self.register(name, entry)

    def register(self, name: str, entry: T | str) -> None:
        """Add an entry; raises `ValueError` where the name is taken."""
        if name in self._entries:
            raise ValueError(f"{self._kind} '{name}' is registered already")
        self._entries[name] = entry

    def names(self) -> tuple[str, ...]:
        """All names, in the order of registration."""
        return tuple(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> T:
        """The entry of that name; raises `UserError` with the nearest name where there is none."""
        if name not in self._entries:
            raise UserError(f"unknown {self._kind} '{name}'; {did_you_mean(str(name), self._entries)}")
        entry = self._entries[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = cast(T, getattr(importlib.import_module(module), attribute))
            self._entries[name] = entry
        return entry
