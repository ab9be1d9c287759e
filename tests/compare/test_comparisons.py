"""The bookkeeping of both comparisons, with measurements made up: what is run, refused, written and drawn."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from rmaat.compare import figures, tables
from rmaat.compare.gate import Verdict, judge
from rmaat.compare.measure import Measurement, OutOfMemoryError, measure
from rmaat.compare.memory import MemoryPlan, compare_memory
from rmaat.compare.processes import KilledError
from rmaat.compare.rates import matrix_product_rate, model_operations
from rmaat.compare.run import Setting
from rmaat.compare.speed import SpeedPlan, compare_speed
from rmaat.errors import UserError
from rmaat.machine.files import write_json

METHODS = ("replay", "full", "one_segment", "rmt", "memformer")


class MadeUp:
    """Answers in place of processes: replay is flat, full linear up to 256 tokens, memformer is wrong."""

    def __init__(self) -> None:
        self.measured: list[tuple[str, int, int]] = []
        self.most = 1000

    def __call__(self, function, *arguments):
        if function is judge:
            wrong = "gradients wrong by 0.3 in memory_slots, by 0.1 over all (bound 0.0001)"
            return Verdict(arguments[0], "full", 0.0, refusal=wrong if arguments[0] == "memformer" else None)
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
            raise KilledError("its process was killed")
        peak = {"one_segment": 100, "replay": 110}.get(name, shape.tokens * shape.batch)
        seconds = {"replay": 0.5, "full": 0.25}.get(name, 1.0)
        return Measurement(1000, peak, 5, tuple(seconds * (1 + index) for index in range(steps)))


@pytest.fixture
def made_up():
    return MadeUp()


@pytest.fixture
def setting(tiny, made_up):
    begun = []
    made = Setting(tiny, METHODS, {"other": "package not installed: pip install 'other'"}, "cpu", made_up, begun.append)
    return made, begun


def forget(comparison) -> None:
    """Save nothing."""


def memory_plan(setting, **changes):
    plan = MemoryPlan(setting[0], (64, 256, 512), warm_up=1, steps=3, limit=None, longest=1024)
    return replace(plan, **changes)


def test_memory_reports_what_passed_and_stops_where_memory_ends(setting, made_up, tmp_path):
    found = compare_memory(memory_plan(setting), forget)
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
    assert len(setting[1]) <= memory_plan(setting).pieces

    write_json(tmp_path / "memory.json", found.to_json())
    stored = json.loads((tmp_path / "memory.json").read_text())
    assert set(stored) == {
        *("command", "commit", "machine", "threads", "environment", "device", "shape"),
        *("gradients", "absent", "rows", "largest"),
    }
    assert stored["shape"]["segment_length"] == 16
    assert stored["rows"][0]["step_seconds"] == [0.5, 1.0, 1.5]
    figures.draw_memory(found, tmp_path / "memory.png")
    with Image.open(tmp_path / "memory.png") as image:
        assert min(image.size) > 300

    listing = tables.memory_listing(found)
    assert all(len(row) == len(listing.headings) for row in listing.rows)
    assert listing.rows[0][3] == "1.10"
    told = tables.refusals(found.verdicts.values(), found.setting.absent)
    assert told[0].startswith("memformer: not reported, gradients wrong by 0.3")
    assert told[1] == "other: not run, package not installed: pip install 'other'"


def test_the_longest_sequence_is_found_by_doubling(setting, made_up):
    found = compare_memory(memory_plan(setting, tokens=(64,), limit=300, longest=1040), forget)
    assert {row.method: (row.tokens, row.exceeded_at) for row in found.largest} == {
        "replay": (1040, None),
        "full": (256, 512),
        "rmt": (128, 256),
    }
    assert [tokens for name, tokens, batch in made_up.measured if name == "replay" and batch == 1] == [
        *(128, 256, 512, 1024),
        1040,
    ]
    assert [row[1] for row in tables.largest_listing(found).rows] == ["1,040", "256", "128"]
    none = compare_memory(memory_plan(setting, tokens=(64,), limit=105, longest=128), forget)
    assert [(row.tokens, row.exceeded_at) for row in none.largest] == [(None, 128)] * 3


def test_speed_takes_turns_and_sets_medians_in_relation(setting, made_up, tmp_path):
    found = compare_speed(SpeedPlan(setting[0], repeats=3, warm_up=1, steps=3), forget)
    order = [name for name, _, _ in made_up.measured]
    assert order == ["replay", "full", "one_segment", "rmt"] * 3
    rows = {row.method: row for row in found.rows}
    assert set(rows) == {"replay", "full", "one_segment", "rmt"}
    assert rows["replay"].seconds == 1.0
    assert rows["replay"].relative_to == {"full": 2.0, "rmt": 0.5}
    assert rows["replay"].tokens_per_second == 128
    assert rows["one_segment"].tokens == 32
    assert rows["replay"].share == pytest.approx(0.1)
    assert len(setting[1]) <= SpeedPlan(setting[0], 3, 1, 3).pieces

    write_json(tmp_path / "speed.json", found.to_json())
    stored = json.loads((tmp_path / "speed.json").read_text())
    assert stored["matrix_product_rates"] == [1e9] * 3
    assert stored["rows"][0]["step_seconds"] == [[0.5, 1.0, 1.5]] * 3
    figures.draw_speed(found, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 1000
    listing = tables.speed_listing(found)
    assert all(len(row) == len(listing.headings) for row in listing.rows)


def test_gradients_are_judged_just_before_a_methods_first_figures(setting):
    compare_memory(memory_plan(setting, tokens=(64, 128), limit=100, longest=128), forget)
    assert setting[1] == [
        *("gradients of replay", "replay, 64 tokens", "replay, 128 tokens"),
        *("gradients of full", "full, 64 tokens", "full, 128 tokens"),
        *("gradients of one_segment", "one_segment, 64 tokens"),
        *("gradients of rmt", "rmt, 64 tokens", "rmt, 128 tokens"),
        "gradients of memformer",
        *(f"longest sequence of {name}" for name in ("replay", "full", "rmt")),
    ]
    setting[1].clear()
    compare_speed(SpeedPlan(replace(setting[0], methods=("replay", "memformer", "full")), 2, 1, 3), forget)
    assert setting[1] == [
        "matrix products, round 1",
        *("gradients of replay", "operations of replay", "replay, round 1"),
        "gradients of memformer",
        *("gradients of full", "operations of full", "full, round 1"),
        *("matrix products, round 2", "replay, round 2", "full, round 2"),
    ]


def test_an_interrupted_comparison_has_saved_what_it_measured(setting, made_up):
    saved = []
    made_up.most = 1
    with pytest.raises(KeyboardInterrupt):
        compare_memory(memory_plan(setting), lambda so_far: saved.append(so_far.to_json()))
    assert [[(row["method"], row["tokens"]) for row in found["rows"]] for found in saved] == [[("replay", 64)]]
    assert [verdict["method"] for verdict in saved[0]["gradients"]] == ["replay"]

    saved.clear()
    made_up.most = 6
    plan = SpeedPlan(replace(setting[0], methods=("replay", "full")), repeats=5, warm_up=1, steps=3)
    with pytest.raises(KeyboardInterrupt):
        compare_speed(plan, lambda so_far: saved.append(so_far.to_json()))
    assert [[row["seconds"] for row in found["rows"]] for found in saved] == [[1.0], *[[1.0, 0.5]] * 4]
    assert [len(found["matrix_product_rates"]) for found in saved] == [1, 1, 2, 2, 3]
    assert [len(row["step_seconds"]) for row in saved[3]["rows"]] == [2, 2]
    assert saved[-1]["rows"][0]["relative_to"] == {"full": 2.0}


def test_a_method_that_runs_out_of_memory_in_a_later_round_has_no_times(setting, made_up, monkeypatch):
    plan = SpeedPlan(replace(setting[0], methods=("replay", "rmt"), call=lambda *a: turn(*a)), 2, 1, 3)

    def turn(function, *arguments):
        if function is measure and [name for name, _, _ in made_up.measured].count("rmt") == 1:
            raise OutOfMemoryError("no more")
        return made_up(function, *arguments)

    saved = []
    compare_speed(plan, saved.append)
    assert [row.failure for row in saved[1].rows] == [None, None]
    assert saved[1].rows[0].relative_to == {"rmt": 0.5}
    assert [(row.seconds, row.share, row.relative_to, row.failure) for row in saved[-1].rows] == [
        (None, None, {}, "no more")
    ] * 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokens": (64, 100)}, "near multiples: 96, 112"),
        ({"limit": 2**30, "longest": 1000}, "tokens 1000 is not a multiple of segment_length 16"),
        ({"steps": 0}, "steps must be >= 1"),
        ({"tokens": ()}, "names no length"),
    ],
)
def test_plans_that_cannot_be(setting, changes, said):
    with pytest.raises(UserError, match=said):
        memory_plan(setting, **changes).check()


def test_too_few_steps_make_no_median(setting):
    with pytest.raises(UserError, match="at least 5"):
        SpeedPlan(setting[0], repeats=2, warm_up=1, steps=2).check()
