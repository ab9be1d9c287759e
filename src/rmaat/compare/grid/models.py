"""The models of a grid by name, as settings of a run."""

from typing import Any

SETTINGS: dict[str, dict[str, Any]] = {
    "transformer": {
        "attention_type": "softmax",
        "num_segments": 1,
        "num_memory_tokens": 0,
        "astro_mem": False,
        "memory_replay_backprop": False,
    },
    "rmt": {"attention_type": "softmax", "astro_mem": False, "memory_replay_backprop": False},
    "rmaat": {},
}


def model_names() -> tuple[str, ...]:
    """All models, in the order in which tables show them."""
    return tuple(SETTINGS)


def with_model(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """The settings of a run of that model, where `settings` are those of the task and the training."""
    return {**settings, **SETTINGS[name]}
