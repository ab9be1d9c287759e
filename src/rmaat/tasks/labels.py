"""The label column of each problem type: read from the user's own files, encoded, stored.

Axes: E examples, C labels, N tokens.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rmaat.errors import UserError
from rmaat.problems import IGNORED, MULTI_LABEL, NEXT_TOKEN, REGRESSION, SINGLE_LABEL

if TYPE_CHECKING:
    from rmaat.tasks.base import EncodedLabel

SEPARATOR = "|"
"""The character between the labels of an example, in CSV and in what is printed."""

Label = str | tuple[str, ...] | float
"""A label as `LabelColumn.parse` returns it; equal for all spellings of one value."""


MOST_LABELS_SHOWN = 8
"""Labels of an example's tokens that a text shows."""


class LabelStorage(ABC):
    """How encoded labels of a problem type are stored."""

    @abstractmethod
    def feature(self, names: Sequence[str]) -> Any:
        """Return the feature of `datasets` that stores the labels."""

    @abstractmethod
    def array(self, labels: Sequence[EncodedLabel]) -> pa.Array:
        """Return the labels of some examples as they are stored."""

    @abstractmethod
    def text(self, label: Any, names: Sequence[str]) -> str:
        """Return an encoded label for people to read."""


class LabelColumn(LabelStorage):
    """How the labels of a problem type are read from a column, and encoded as numbers.

    Attributes:
        expected: what a value of the column must be, for messages.
    """

    expected: str

    @abstractmethod
    def parse(self, value: object) -> Label | None:
        """Return the label of a value in a file, or None if it is none."""

    @abstractmethod
    def names(self, labels: Iterable[Any], column: str, where: str) -> tuple[str, ...]:
        """Return the names of the model's outputs, from the labels of the training file.

        Args:
            labels: one for each example.
            column: the name of the column.
            where: the file, for messages.

        Raises:
            UserError: if there is nothing to learn.
        """

    def advice(self, value: object) -> str:
        """Return, for a message, the problem type of which a value could be a label; else nothing."""
        return ""

    def unknown(self, label: Any, ids: Mapping[str, int]) -> str | None:
        """Return the first class of a label that has no id, or None."""
        return None

    @abstractmethod
    def encode(self, label: Any, ids: Mapping[str, int]) -> EncodedLabel:
        """Return a label as a number, or numbers (C,)."""

    def strata(self, labels: Sequence[Any], ids: Mapping[str, int]) -> NDArray[np.int64]:
        """Return the group of each example, (E,), of which a tenth is held out each."""
        return np.zeros(len(labels), np.int64)


class ClassColumn(LabelColumn):
    """One class for each example: its id, int64."""

    expected = "a string or a whole number"

    def parse(self, value: object) -> str | None:
        """Return the name of a class, or None."""
        return _class_name(value)

    def advice(self, value: object) -> str:
        """Return the problem type for a list or a number."""
        if isinstance(value, list):
            return f"; problem_type '{MULTI_LABEL}' is for lists"
        return f"; problem_type '{REGRESSION}' is for numbers" if isinstance(value, float) else ""

    def names(self, labels: Iterable[str], column: str, where: str) -> tuple[str, ...]:
        """Return the classes; raise `UserError` if there is only one."""
        names = _sorted_names(labels)
        if len(names) < 2:
            raise UserError(f"{where}: column '{column}' has {len(names)} label; at least 2 are needed")
        return names

    def unknown(self, label: str, ids: Mapping[str, int]) -> str | None:
        """Return the class if it has no id."""
        return None if label in ids else label

    def encode(self, label: str, ids: Mapping[str, int]) -> int:
        """Return the id."""
        return ids[label]

    def strata(self, labels: Sequence[str], ids: Mapping[str, int]) -> NDArray[np.int64]:
        """Return the ids, so that a tenth of each class is held out."""
        return np.array([ids[label] for label in labels], np.int64)

    def feature(self, names: Sequence[str]) -> Any:
        """Return a `ClassLabel`."""
        from datasets import ClassLabel

        return ClassLabel(names=list(names))

    def array(self, labels: Sequence[EncodedLabel]) -> pa.Array:
        """Return int64."""
        return pa.array(np.array(labels, np.int64))

    def text(self, label: Any, names: Sequence[str]) -> str:
        """Return the class."""
        return names[int(label)]


class LabelSetColumn(LabelColumn):
    """Any number of labels for each example: a row (C,) uint8 of ones and zeros."""

    expected = f"a list of labels, or labels separated by '{SEPARATOR}'"

    def parse(self, value: object) -> tuple[str, ...] | None:
        """Return the labels, sorted and each once; an empty text or list has none."""
        if isinstance(value, str):
            value = value.split(SEPARATOR) if value else []
        if not isinstance(value, list):
            value = [value]
        names = [_class_name(one) for one in value]
        if any(name is None or SEPARATOR in name for name in names):
            return None
        return tuple(sorted({name for name in names if name is not None}))

    def names(self, labels: Iterable[tuple[str, ...]], column: str, where: str) -> tuple[str, ...]:
        """Return all labels; raise `UserError` if no example has one."""
        names = _sorted_names(name for some in labels for name in some)
        if not names:
            raise UserError(f"{where}: column '{column}' has no label in any row; at least 1 is needed")
        return names

    def unknown(self, label: tuple[str, ...], ids: Mapping[str, int]) -> str | None:
        """Return the first label without an id."""
        return next((name for name in label if name not in ids), None)

    def encode(self, label: tuple[str, ...], ids: Mapping[str, int]) -> NDArray[np.uint8]:
        """Return the row."""
        row = np.zeros(len(ids), np.uint8)
        row[[ids[name] for name in label]] = 1
        return row

    def feature(self, names: Sequence[str]) -> Any:
        """Return lists of one length."""
        from datasets import List, Value

        return List(Value("uint8"), length=len(names))

    def array(self, labels: Sequence[EncodedLabel]) -> pa.Array:
        """Return lists of one length."""
        rows_EC = np.array(labels, np.uint8)
        return pa.FixedSizeListArray.from_arrays(pa.array(rows_EC.reshape(-1)), rows_EC.shape[1])

    def text(self, label: Any, names: Sequence[str]) -> str:
        """Return the labels, separated as in CSV."""
        return SEPARATOR.join(name for name, has in zip(names, label, strict=True) if has)


class NumberColumn(LabelColumn):
    """One number for each example, float64."""

    expected = "a finite number"

    def parse(self, value: object) -> float | None:
        """Return the number, or None."""
        if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        try:
            number = float(value)
        except OverflowError:
            return None
        # The model computes in float32.
        return number if math.isfinite(number) and abs(number) < FLOAT32_MAX else None

    def names(self, labels: Iterable[float], column: str, where: str) -> tuple[str, ...]:
        """Return the column's name; raise `UserError` if all examples have one number."""
        if len(set(labels)) < 2:
            raise UserError(f"{where}: column '{column}' has the same number in each row; there is nothing to learn")
        return (column,)

    def encode(self, label: float, ids: Mapping[str, int]) -> float:
        """Return the number."""
        return label

    def feature(self, names: Sequence[str]) -> Any:
        """Return float64."""
        from datasets import Value

        return Value("float64")

    def array(self, labels: Sequence[EncodedLabel]) -> pa.Array:
        """Return float64."""
        return pa.array(np.array(labels, np.float64))

    def text(self, label: Any, names: Sequence[str]) -> str:
        """Return six digits."""
        return f"{float(label):.6g}"


class TokenLabels(LabelStorage):
    """A label for each token: the id that follows the token before it, or `IGNORED`, (N,) int32."""

    def feature(self, names: Sequence[str]) -> Any:
        """Return lists of any length."""
        from datasets import List, Value

        return List(Value("int32"))

    def array(self, labels: Sequence[EncodedLabel]) -> pa.Array:
        """Return lists of any length."""
        rows = [np.asarray(label, np.int32) for label in labels]
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(rows)))

    def text(self, label: Any, names: Sequence[str]) -> str:
        """Return the first answers with their positions, and the number of all."""
        label = np.asarray(label)
        asked = np.flatnonzero(label != IGNORED)
        shown = " ".join(f"{place}:{label[place]}" for place in asked[:MOST_LABELS_SHOWN])
        return f"{shown}{' ...' * (len(asked) > MOST_LABELS_SHOWN)}, {len(asked)} answers"


LABEL_COLUMNS: dict[str, LabelColumn] = {
    SINGLE_LABEL: ClassColumn(),
    MULTI_LABEL: LabelSetColumn(),
    REGRESSION: NumberColumn(),
}
"""The label column of each problem type of files."""

LABEL_STORAGE: dict[str, LabelStorage] = {**LABEL_COLUMNS, NEXT_TOKEN: TokenLabels()}
"""How the labels of each problem type are stored."""

FLOAT32_MAX = 3.4e38

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}\.0+")


def _class_name(value: object) -> str | None:
    """Return a class's name, equal for all spellings of a number; None if it is no class."""
    match value:
        case bool():
            return str(value).lower()
        case float() if value.is_integer():
            return str(int(value))
        case int():
            return str(value)
        # pandas writes a column of whole numbers with a gap in it as 0.0, 1.0.
        case str() if _WHOLE_NUMBER.fullmatch(value):
            return str(int(value.partition(".")[0]))
        case str() if value:
            return value
    return None


def _sorted_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct names, ordered by value if all are whole numbers, else by name."""
    names = set(labels)
    try:
        key: Callable[[str], Any] = {name: (int(name), name) for name in names}.__getitem__
    except ValueError:
        return tuple(sorted(names))
    return tuple(sorted(names, key=key))
