"""The one check of types and ranges: annotations, messages, and the same answer in Python."""

import math
from decimal import Decimal
from typing import Annotated, Literal

import numpy as np
import pytest

from rmaat import RmaatConfig
from rmaat.errors import UserError
from rmaat.tasks import task_of
from rmaat.tasks.options import MemoryOptions
from rmaat.training.config import RunConfig
from rmaat.values import OneOf, Range, checked, kinds

Scale = Annotated[float, Range(1e-6, 1e9)] | Literal["auto"] | None


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ("5", int, "x is '5'; it must be a whole number"),
        (True, int, "x is true; it must be a whole number"),
        (1.0, int, "x is the number 1.0; it must be a whole number"),
        (np.int64(3), int, "x is np.int64(3); it must be a whole number"),
        (Decimal(1), float, "x is Decimal('1'); it must be a number"),
        (None, float, "x is null; it must be a number"),
        ("false", bool, "x is 'false'; it must be true or false"),
        (0, bool, "x is the whole number 0; it must be true or false"),
        (2, str, "x is the whole number 2; it must be text"),
        ([], dict, "x is []; it must be lines of 'key: value'"),
        ("12", Scale, "x is '12'; it must be a number, 'auto' or null"),
        (0.0, Scale, "x must be a number >= 1e-06, not 0.0"),
        (math.nan, float, "x must be a finite number, not nan"),
        (10**400, float, "x must be a finite number, not inf"),
        ("", str, "x must not be empty text"),
        ("a\0", str, "x must not be text with a NUL character"),
        (0, Annotated[int, Range(1, 3)], "x must be a whole number from 1 to 3, not 0"),
        (-1, Annotated[int, Range(0, 2**31)], "x must be a whole number >= 0, not -1"),
        (2**63, Annotated[int, Range(0, 2**31)], "x must be a whole number from 0 to 2147483648, not 92233720"),
        pytest.param(
            10**5000,
            Annotated[int, Range(0, 3)],
            "x must be a whole number from 0 to 3, not a whole number of 16,610 bits",
            id="huge",
        ),
        (0.0, Annotated[float, Range(most=1, above=0)], "x must be a number above 0 and at most 1, not 0.0"),
        (4, Annotated[int, Range(1, 9, parity="odd")], "x must be odd, not 4"),
        ("maen", Annotated[str, OneOf(("mean", "last"))], "x 'maen' is not one of its values; did you mean 'mean'?"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(value, kind, message):
    with pytest.raises(UserError) as refusal:
        checked("x", value, kind)
    assert str(refusal.value).startswith(message)


def test_only_whole_numbers_become_numbers():
    assert [type(checked("x", 1, kind)) for kind in (float, float | None, int | float)] == [float, float, int]
    assert checked("x", None, Scale) is None
    assert checked("x", "auto", Scale) == "auto"
    text = "some text"
    assert checked("x", text, str) is text


def test_python_types_are_checked_and_not_converted():
    with pytest.raises(UserError, match="max_steps is '5'; it must be a whole number"):
        RunConfig(max_steps="5").check()
    with pytest.raises(UserError, match="norm_first is 'false'; it must be true or false"):
        RmaatConfig(norm_first="false")
    with pytest.raises(UserError, match="dataset is null"):
        RunConfig.resolved({"dataset": None})
    with pytest.raises(UserError, match=r"model is \[\[\]\]; it must be text or null"):
        RunConfig.resolved({"model": [[]]})
    with pytest.raises(UserError, match=r"pairs is the number 2\.0"):
        task_of("rewrite", MemoryOptions(pairs=2.0))
    run = RunConfig(learning_rate=1)
    run.check()
    assert type(run.learning_rate) is float


@pytest.mark.parametrize("name", ["num_labels", "vocab_size", "hidden_size", "max_seq_len", "num_hidden_layers"])
@pytest.mark.parametrize("value", [2**63, -1, pytest.param(10**5000, id="huge"), True, "3"])
def test_sizes_that_would_never_end_are_refused_at_once(name, value):
    with pytest.raises(UserError, match=name):
        RmaatConfig(**{name: value})


def test_every_setting_has_a_kind_that_the_check_knows_and_its_default_passes():
    run = RunConfig()
    run.check()
    for name, kind in kinds(RunConfig).items():
        with pytest.raises(UserError):
            checked(name, object(), kind)


def test_numbers_have_bounds_beyond_which_float32_overflows():
    for setting in ({"hebbian_scale": 1e-30}, {"calcium_exponent": 1000.0}, {"layer_norm_eps": 1e-300}):
        with pytest.raises(UserError, match=next(iter(setting))):
            RmaatConfig(**setting)
