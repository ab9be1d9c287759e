"""The space of a search: how its text is read, and what is refused."""

import re

import pytest

from rmaat.errors import UserError
from rmaat.grid.space import Choice, Interval, around, parse_space


@pytest.mark.parametrize(
    ("text", "values", "stored", "logarithmic"),
    [
        ("learning_rate=1e-4:1e-2", Interval(1e-4, 1e-2), "0.0001:0.01", True),
        ("learning_rate = 7e-5 : 7e-4", Interval(7e-5, 7e-4), "7e-05:0.0007", True),
        ("learning_rate=1e-4:9e-4", Interval(1e-4, 9e-4), "0.0001:0.0009", False),
        ("weight_decay=0:1", Interval(0.0, 1.0), "0.0:1.0", False),
        ("num_segments=1:16", Interval(1, 16), "1:16", False),
        ("hidden_dropout_prob=0,0.1", Choice((0.0, 0.1)), "0.0,0.1", None),
        ("bf16=true,auto", Choice((True, "auto")), "true,auto", None),
        ("truncated_segments=null,1,1", Choice((None, 1)), "null,1", None),
    ],
)
def test_values_are_read_with_the_types_of_the_settings(text, values, stored, logarithmic):
    (read,) = parse_space([text]).values()
    assert read == values
    assert [type(extreme) for extreme in read.extremes] == [type(v) for v in values.extremes]
    assert str(read) == stored
    assert getattr(read, "logarithmic", None) == logarithmic
    assert all(extreme in read for extreme in read.extremes)


def test_a_space_holds_what_lies_between_its_ends():
    assert 3 in Interval(1, 16)
    assert 17 not in Interval(1, 16)
    assert None not in Interval(1, 16)
    # Python counts True as the number 1.
    assert Interval(1, 16).__contains__(True) is False
    assert "last" not in Choice(("first", "mean"))


def test_the_default_is_a_tenth_to_ten_times_the_rate():
    assert around(2e-3) == Interval(2e-4, 2e-2)
    assert around(2e-3).logarithmic


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["learning_rat=1e-4:1e-2"], "no setting 'learning_rat'; did you mean 'learning_rate'"),
        (["learning_rate"], "--space 'learning_rate' is not a space; write name=low:high, or"),
        (["learning_rate="], "is not a space"),
        (["=1:2"], "is not a space"),
        (["learning_rate=1e-3"], "one value only; give it as --learning_rate"),
        (["learning_rate=1e-2:1e-4"], "the low end 0.01 must be below the high end 0.0001"),
        (["learning_rate=1e-3:1e-3"], "the low end 0.001 must be below the high end 0.001"),
        (["learning_rate=1e-3:1e-2:1e-1"], "more than two ends"),
        (["learning_rate=0:1"], "learning_rate must be a number above 0 and at most 10, not 0.0"),
        (["learning_rate=a:b"], "'learning_rate=a:b': learning_rate is 'a'; it must be a number"),
        (["learning_rate=nan:1"], "learning_rate is 'nan'"),
        (["num_segments=1.5:4"], "num_segments is '1.5'; it must be a whole number"),
        (["readout=last:first"], "the ends of an interval are numbers"),
        (["bf16=false:true"], "the ends of an interval are numbers"),
        (["readout=last,frist"], "readout 'frist' is not one of its values; did you mean 'first'"),
        (["macro_model={a: 1},{b: 2}"], "the values of a choice are numbers and words"),
        (["seed=1,2"], "seed is the same in all trials"),
        (["max_steps=10:20"], "max_steps is the same in all trials"),
        (["test_examples=1:20"], "test_examples is the same in all trials"),
        (["weight_decay=0:1", "weight_decay=0,1"], "--space has weight_decay twice"),
    ],
)
def test_what_is_no_space_is_refused(texts, message):
    with pytest.raises(UserError, match=re.escape(message)):
        parse_space(texts)
