"""Messages: one printable line, and no more than 200 characters of a user's value."""

import pickle
import tracemalloc

import pytest

from rmaat.errors import LONGEST_MESSAGE, UserError, did_you_mean, one_line, quoted


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\u202etxt\u200b\u2066\u2028", r"\u202etxt\u200b\u2066\u2028"),
        ("\udcff", r"\udcff"),
        ("日本語 é", "日本語 é"),
    ],
)
def test_a_line_has_no_character_that_a_terminal_obeys(text, line):
    assert one_line(text) == str(UserError(text)) == line


@pytest.mark.parametrize("value", ["x" * 10**6, "a b " * 1000, "it's " * 1000, "\x1b" * 5000])
def test_long_values_are_shortened(value):
    message = str(UserError(f"'{value}' is no name of a task; known: listops"))
    assert len(message) <= LONGEST_MESSAGE
    assert message.startswith("'")
    assert " ... " in message
    assert message.endswith("known: listops")
    assert len(quoted(value)) <= 202


def test_a_value_without_quotes_inside_shows_200_characters():
    message = str(UserError(f"file 'a b' has no column '{'long name ' * 100}'; known: text"))
    assert message.startswith("file 'a b' has no column 'long name")
    assert len(message) < 260


def test_values_that_cannot_be_printed_are_quoted():
    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError

    assert "Hostile" in quoted(Hostile())
    assert quoted(10**5000) == "a whole number of 16,610 bits"
    nested: list = []
    nested.append(nested)
    assert len(quoted(nested)) <= 200
    assert [quoted(value) for value in (None, True, False, "a", 2, 0.5)] == ["null", "true", "false", "'a'", "2", "0.5"]


def test_an_error_survives_a_process():
    error = pickle.loads(pickle.dumps(UserError("a\nb")))
    assert str(error) == r"a\nb"


def test_a_long_listing_is_cut():
    known = [f"name_{i:02}" for i in range(50)]
    assert did_you_mean("zzz", known).endswith("name_19 and 30 more")
    assert did_you_mean("nam_40", known) == "did you mean 'name_40'?"


def test_a_message_of_megabytes_takes_little_memory():
    message = f"'{chr(0) * 10**6}' is no name of a task; known: listops"
    tracemalloc.start()
    line = one_line(message)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert line.endswith("known: listops")
    assert len(line) <= LONGEST_MESSAGE
    assert peak < 2 * 10**6
