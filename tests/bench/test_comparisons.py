"""Both comparisons, with invented measurements: what is run, refused, written and drawn."""

import json

import pytest
from PIL import Image

from rmaat.bench.comparison import Comparison
from rmaat.bench.figures import draw_memory
from rmaat.bench.gradient_check import GradientCheck, check_gradients
from rmaat.bench.measure import Measurement, matrix_product_rate, measure, model_operations
from rmaat.bench.tables import longest_table, memory_table, speed_table
from rmaat.errors import UserError
from rmaat.machine.files import write_json
from rmaat.machine.processes import OutOfMemoryError

METHODS = ("replay", "full", "one_segment", "rmt", "memformer")
WRONG = "gradients wrong by 0.3 in memory_slots, by 0.1 over all (bound 0.0001)"


class InventedCalls:
    """Results in place of processes: replay is flat, full grows up to 256 tokens, memformer is wrong."""

    def __init__(self) -> None:
        self.measured: list[tuple[str, int, int]] = []
        self.most = 1000

    def __call__(self, function, *arguments):
        if function is check_gradients:
            refusal = WRONG if arguments[0] == "memformer" else None
            return GradientCheck(arguments[0], "full", 0.0, refusal=refusal)
        if function is matrix_product_rate:
            return 1e9
        if function is model_operations:
            return 10**8
        assert function is measure
        name, shape, device, _, steps, *allowance = arguments
        assert device == "cpu"
        if len(self.measured) == self.most:
            raise KeyboardInterrupt
        self.measured.append((name, shape.tokens, shape.batch))
        if name == "full" and shape.tokens > 256:
            raise OutOfMemoryError("a step wanted more memory than it was allowed")
        if name == "rmt" and allowance and shape.tokens > 128:
            raise OutOfMemoryError("its process was killed")
        peak = {"one_segment": 100, "replay": 110}.get(name, shape.tokens * shape.batch)
        seconds = {"replay": 0.5, "full": 0.25}.get(name, 1.0)
        return Measurement(1000, peak, 5, tuple(seconds * (1 + index) for index in range(steps)))


@pytest.fixture
def calls():
    return InventedCalls()


@pytest.fixture
def memory(tiny, calls):
    """Make a comparison of memory, with changes to its settings."""

    def make(**changes):
        settings = {
            "shape": tiny,
            "methods": METHODS,
            "absent": {"other": "package not installed: pip install 'other'"},
            "device": "cpu",
            "call": calls,
            "warm_up": 1,
            "steps": 3,
            "tokens": (64, 256, 512),
            "limit": None,
            "longest": 1024,
        }
        return Comparison(**settings | changes)

    return make


@pytest.fixture
def speed(tiny, calls):
    """Make a comparison of speed, with changes to its settings."""

    def make(**changes):
        settings = {
            "shape": tiny,
            "methods": METHODS,
            "absent": {},
            "device": "cpu",
            "call": calls,
            "warm_up": 1,
            "steps": 3,
            "tokens": (64,),
            "repeats": 3,
            "least_steps": 5,
            "rated": True,
        }
        return Comparison(**settings | changes)

    return make


def ran(comparison):
    """Run a comparison; return the names of the pieces of work and what was saved."""
    begun, saved = [], []
    comparison.run(begun.append, saved.append)
    assert len(begun) <= comparison.pieces
    return begun, saved


def test_memory_reports_what_passed_and_stops_where_memory_ends(memory, tmp_path):
    found = memory()
    ran(found)
    peaks = {(row.method, row.tokens): row.peak_bytes for row in found.rows}
    assert peaks == {
        **{("replay", tokens): 110 for tokens in (64, 256, 512)},
        ("full", 64): 128,
        ("full", 256): 512,
        ("full", 512): None,
        ("one_segment", 16): 100,
        **{("rmt", tokens): 2 * tokens for tokens in (64, 256, 512)},
    }
    assert {row.failure for row in found.rows} == {None, "a step wanted more memory than it was allowed"}
    assert found.rows[0].seconds == 1.0  # the median of 0.5, 1.0, 1.5

    write_json(tmp_path / "memory.json", found.to_json())
    stored = json.loads((tmp_path / "memory.json").read_text())
    assert set(stored) == {
        *("command", "commit", "machine", "threads", "environment", "device", "shape"),
        *("gradients", "absent", "matrix_product_rates", "rows", "largest"),
    }
    assert stored["shape"]["segment_length"] == 16
    assert stored["rows"][0]["step_seconds"] == [0.5, 1.0, 1.5]
    draw_memory(found, tmp_path / "memory.png")
    with Image.open(tmp_path / "memory.png") as image:
        assert min(image.size) > 300

    table = memory_table(found)
    assert all(len(row) == len(table.headings) for row in table.rows)
    assert table.rows[0][3] == "1.10"
    assert found.unreported() == [
        f"memformer: not reported, {WRONG}",
        "other: not run, package not installed: pip install 'other'",
    ]


def test_the_longest_sequence_is_found_by_doubling(memory, calls):
    found = memory(tokens=(64,), limit=300, longest=1040)
    ran(found)
    assert {row.method: (row.tokens, row.exceeded_at) for row in found.largest} == {
        "replay": (1040, None),
        "full": (256, 512),
        "rmt": (128, 256),
    }
    assert [tokens for name, tokens, batch in calls.measured if name == "replay" and batch == 1] == [
        *(128, 256, 512, 1024),
        1040,
    ]
    assert [row[1] for row in longest_table(found).rows] == ["1,040", "256", "128"]
    none = memory(tokens=(64,), limit=105, longest=128)
    ran(none)
    assert [(row.tokens, row.exceeded_at) for row in none.largest] == [(None, 128)] * 3


def test_speed_takes_turns_and_sets_medians_in_relation(speed, calls, tmp_path):
    found = speed()
    ran(found)
    order = [name for name, _, _ in calls.measured]
    assert order == ["replay", "full", "one_segment", "rmt"] * 3
    rows = {row.method: row for row in found.rows}
    assert set(rows) == {"replay", "full", "one_segment", "rmt"}
    assert rows["replay"].seconds == 1.0
    assert rows["replay"].relative_to == {"full": 2.0, "rmt": 0.5}
    assert rows["replay"].tokens_per_second == 128
    assert rows["one_segment"].tokens == 16
    assert rows["replay"].share == pytest.approx(0.1)

    write_json(tmp_path / "speed.json", found.to_json())
    stored = json.loads((tmp_path / "speed.json").read_text())
    assert stored["matrix_product_rates"] == [1e9] * 3
    assert stored["rows"][0]["step_seconds"] == [0.5, 1.0, 1.5] * 3
    table = speed_table(found)
    assert all(len(row) == len(table.headings) for row in table.rows)
    assert table.rows[0] == ["replay", "64", "1.000", "128", "2.00", "0.50", "10.0", "1,000"]


def test_gradients_are_checked_just_before_a_methods_first_figures(memory, speed):
    begun, _ = ran(memory(tokens=(64, 128), limit=100, longest=128))
    assert begun == [
        *("gradients of replay", "replay, 64 tokens", "replay, 128 tokens"),
        *("gradients of full", "full, 64 tokens", "full, 128 tokens"),
        *("gradients of one_segment", "one_segment, 64 tokens"),
        *("gradients of rmt", "rmt, 64 tokens", "rmt, 128 tokens"),
        "gradients of memformer",
        *(f"longest sequence of {name}" for name in ("replay", "full", "rmt")),
    ]
    begun, _ = ran(speed(methods=("replay", "memformer", "full"), repeats=2))
    assert begun == [
        "matrix products, round 1",
        *("gradients of replay", "operations of replay", "replay, round 1"),
        "gradients of memformer",
        *("gradients of full", "operations of full", "full, round 1"),
        *("matrix products, round 2", "replay, round 2", "full, round 2"),
    ]


def test_an_interrupted_comparison_has_saved_its_measurements(memory, speed, calls):
    saved = []
    calls.most = 1
    with pytest.raises(KeyboardInterrupt):
        memory().run(lambda piece: None, saved.append)
    assert [[(row["method"], row["tokens"]) for row in found["rows"]] for found in saved] == [[("replay", 64)]]
    assert [check["method"] for check in saved[0]["gradients"]] == ["replay"]

    saved.clear()
    calls.most = 6
    with pytest.raises(KeyboardInterrupt):
        speed(methods=("replay", "full"), repeats=5).run(lambda piece: None, saved.append)
    medians = [[row["seconds"] for row in found["rows"]] for found in saved]
    assert medians == [[1.0], *[[1.0, 0.5]] * 4]
    assert [len(found["matrix_product_rates"]) for found in saved] == [1, 1, 2, 2, 3]
    assert [len(row["step_seconds"]) for row in saved[3]["rows"]] == [6, 6]
    assert saved[-1]["rows"][0]["relative_to"] == {"full": 2.0}


def test_a_method_that_runs_out_of_memory_in_a_later_round_has_no_times(speed, calls):
    def turn(function, *arguments):
        if function is measure and [name for name, _, _ in calls.measured].count("rmt") == 1:
            raise OutOfMemoryError("no more")
        return calls(function, *arguments)

    _, saved = ran(speed(methods=("replay", "rmt"), call=turn, repeats=2))
    assert [row["failure"] for row in saved[1]["rows"]] == [None, None]
    assert saved[1]["rows"][0]["relative_to"] == {"rmt": 0.5}
    figures = ("seconds", "tokens_per_second", "share", "relative_to", "failure")
    last = [[row[name] for name in figures] for row in saved[-1]["rows"]]
    assert last == [[None, None, None, {}, "no more"]] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": (64, 100)}, "near multiples: 96, 112"),
        ({"limit": 2**30, "longest": 1000}, "tokens 1000 is not a multiple of segment_length 16"),
        ({"steps": 0}, "steps must be >= 1"),
        ({"tokens": ()}, "names no length"),
    ],
)
def test_impossible_comparisons(memory, changes, message):
    with pytest.raises(UserError, match=message):
        memory(**changes).check()


def test_too_few_steps_make_no_median(speed):
    with pytest.raises(UserError, match="steps must be >= 5"):
        speed(repeats=2, steps=2).check()
