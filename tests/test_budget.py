"""What `replay_budget` can say."""

import pytest

from rmaat import RmaatConfig
from rmaat.budget import Budget


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, Budget(segments=1)),
        (1, Budget(segments=1)),
        (7, Budget(segments=7)),
        (0.5, Budget(fraction=0.5)),
        (1.0, Budget(fraction=1.0)),
        ("2GiB", Budget(size=2 * 1024**3)),
        ("1.5 mb", Budget(size=1_500_000)),
        ("300B", Budget(size=300)),
    ],
)
def test_forms(value, wanted):
    assert Budget.parse(value) == wanted


@pytest.mark.parametrize("value", [0, -1, True, 0.0, 1.5, float("nan"), "", "2", "2 GiBs", "0GiB", "-1GiB", "half"])
def test_other_values_are_refused_with_the_forms(value):
    with pytest.raises(ValueError, match=r"replay_budget.*is not a size such as '2GiB'.*fraction.*whole number"):
        Budget.parse(value)


def test_a_model_refuses_it_at_once():
    with pytest.raises(ValueError, match="replay_budget 'much' is not"):
        RmaatConfig(replay_budget="much")
    with pytest.raises(ValueError, match="needs memory_replay_backprop"):
        RmaatConfig(replay_budget=2, memory_replay_backprop=False)
    with pytest.raises(ValueError, match=r"replay_buffer 'disk'.*cpu, device"):
        RmaatConfig(replay_buffer="disk")
    with pytest.raises(ValueError, match="replay_buffer needs memory_replay_backprop"):
        RmaatConfig(replay_buffer="cpu", memory_replay_backprop=False)


@pytest.mark.parametrize(
    ("whole", "half"),
    [
        (Budget(size=10), Budget(size=5)),
        (Budget(fraction=0.5), Budget(fraction=0.25)),
        (Budget(segments=3), Budget(segments=3)),
    ],
)
def test_two_towers_share_what_is_memory(whole, half):
    assert whole.divided(2) == half
    assert whole.divided(1) == whole
