"""The presets of grids: for each task, the settings in which all models are compared.

`cpu` has the small models of configs/. `paper` has the lengths of the RMAAT paper [P] in segments of 512 tokens, as in its
Retrieval (16 of 8K [P]; the others' number is not published [C]), and layers, width, heads, batch and dropout of the Long Range
Arena's base configurations (arXiv 2011.04006), which its bound of 10% more parameters refers to. Where those have an inverse
square root schedule (ListOps, Text, Retrieval), the peak rate, steps and warm-up are those of Luna's harness (arXiv 2106.01540).
"""

from dataclasses import dataclass
from typing import Any

from rmaat.compare.grid.models import model_names
from rmaat.registry import Registry
from rmaat.training.config import AUTO

Settings = dict[str, Any]

WITHOUT_RETENTION = "rmaat[astro_mem=false]"

MODEL_GROUPS: dict[str, tuple[str, ...]] = {
    "models": model_names(),
    "ablations": (
        "rmaat",
        WITHOUT_RETENTION,
        *(f"rmaat[retention_schedule={name}]" for name in ("plateau", "streaming", "constant", "learned")),
        *(f"rmaat[{name}=false]" for name in ("hebbian_astro", "presynaptic_plasticity", "positional_encoding")),
        "rmaat[calcium_exponent=0.5]",
        "rmaat[calcium_exponent=1.0]",
        "rmaat[attention_type=softmax]",
        "rmaat[memory_replay_backprop=false]",
        "rmaat[memory_replay_backprop=false,truncated_segments=1]",
        *(f"rmaat[num_memory_tokens={tokens}]" for tokens in (0, 4, 16)),
        *(f"rmaat[num_segments={segments}]" for segments in (2, 4, 8, 16)),
    ),
}
"""Names that stand for several models."""


@dataclass(frozen=True)
class Grid:
    """Settings by task, and what is run where nothing else is asked for.

    Attributes:
        name: of the preset.
        tasks: the run config's settings for each task, the model's own excepted.
        models: models, variants or groups.
        seeds: number of seeds.
    """

    name: str
    tasks: dict[str, Settings]
    models: tuple[str, ...]
    seeds: int


SMOKE = Grid(
    name="smoke",
    tasks={
        "listops_short": {
            "max_seq_len": 192,
            "num_segments": 3,
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 256,
            "readout": "running_mean",
            "learning_rate": 2e-3,
            "warmup_steps": 10,
            "max_steps": 60,
            "per_device_train_batch_size": 16,
            "eval_steps": 20,
            "eval_examples": 200,
            "logging_steps": 10,
        }
    },
    models=("models", WITHOUT_RETENTION),
    seeds=1,
)

# Examples of these tasks differ in length: an uncompiled step leaves out what is behind the last token, which saves what
# compiling would. The pooled norm lets a few hundred steps teach something.
VARYING: Settings = {
    "torch_compile": False,
    "pooled_norm": True,
    "hidden_dropout_prob": 0.0,
    "per_device_train_batch_size": 16,
    "eval_examples": 500,
}

SMALL: Settings = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "hidden_dropout_prob": 0.1,
    "readout": "running_mean",
    "learning_rate": 2e-3,
    "warmup_steps": 100,
    "per_device_eval_batch_size": 64,
    "bf16": AUTO,
    "torch_compile": True,
    "eval_examples": 2000,
    "logging_steps": 25,
}

CPU = Grid(
    name="cpu",
    tasks={
        "listops": {
            **SMALL,
            **VARYING,
            "max_seq_len": 2048,
            "num_segments": 2,
            "learning_rate": 1e-3,
            "warmup_steps": 40,
            "max_steps": 400,
            "eval_steps": 200,
        },
        "imdb_lra": {
            **SMALL,
            **VARYING,
            "max_seq_len": 4096,
            "num_segments": 8,
            "learning_rate": 1.5e-3,
            "warmup_steps": 40,
            "max_steps": 400,
            "eval_steps": 200,
            "test_examples": 4000,
        },
        "aan_lite": {
            **SMALL,
            **VARYING,
            "max_seq_len": 4096,
            "num_segments": 8,
            "two_towers": True,
            "learning_rate": 5e-4,
            "max_steps": 400,
            "eval_steps": 100,
        },
        "cifar10": {
            **SMALL,
            "max_seq_len": 1024,
            "num_segments": 4,
            "input_type": "values",
            "per_device_train_batch_size": 64,
            "max_steps": 600,
            "eval_steps": 150,
        },
        "pathfinder32": {
            **SMALL,
            "max_seq_len": 1024,
            "num_segments": 4,
            "input_type": "values",
            "per_device_train_batch_size": 64,
            "max_steps": 600,
            "eval_steps": 150,
        },
    },
    models=("models", WITHOUT_RETENTION),
    seeds=1,
)

FULL: Settings = {
    "readout": "running_mean",
    "per_device_eval_batch_size": 64,
    "bf16": AUTO,
    "torch_compile": True,
    "logging_steps": 50,
}

PAPER = Grid(
    name="paper",
    tasks={
        "listops": {
            **FULL,
            "max_seq_len": 2048,
            "num_segments": 4,
            "num_hidden_layers": 4,
            "hidden_size": 512,
            "num_attention_heads": 8,
            "intermediate_size": 1024,
            "hidden_dropout_prob": 0.1,
            "per_device_train_batch_size": 32,
            "learning_rate": 1e-4,
            "max_steps": 5000,
            "warmup_steps": 1000,
            "eval_steps": 250,
        },
        "imdb_lra": {
            **FULL,
            "max_seq_len": 4096,
            "num_segments": 8,
            "num_hidden_layers": 4,
            "hidden_size": 256,
            "num_attention_heads": 4,
            "intermediate_size": 1024,
            "hidden_dropout_prob": 0.3,
            "per_device_train_batch_size": 32,
            "learning_rate": 5e-5,
            "max_steps": 20_000,
            "warmup_steps": 8000,
            "eval_steps": 1000,
            "eval_examples": 2000,
        },
        "aan": {
            **FULL,
            "max_seq_len": 8192,
            "num_segments": 16,
            "num_hidden_layers": 4,
            "hidden_size": 128,
            "num_attention_heads": 4,
            "intermediate_size": 512,
            "hidden_dropout_prob": 0.1,
            "per_device_train_batch_size": 32,
            "learning_rate": 5e-4,
            "max_steps": 20_000,
            "warmup_steps": 8000,
            "eval_steps": 1000,
            "eval_examples": 2000,
        },
        "cifar10": {
            **FULL,
            "max_seq_len": 1024,
            "num_segments": 2,
            "input_type": "values",
            "num_hidden_layers": 1,
            "hidden_size": 128,
            "num_attention_heads": 8,
            "intermediate_size": 128,
            "hidden_dropout_prob": 0.3,
            "per_device_train_batch_size": 256,
            "learning_rate": 5e-4,
            "max_steps": 35_000,
            "warmup_steps": 175,
            "eval_steps": 1000,
        },
        "pathfinder32": {
            **FULL,
            "max_seq_len": 1024,
            "num_segments": 2,
            "input_type": "values",
            "num_hidden_layers": 4,
            "hidden_size": 32,
            "num_attention_heads": 4,
            "intermediate_size": 32,
            "hidden_dropout_prob": 0.2,
            "per_device_train_batch_size": 512,
            "learning_rate": 1e-3,
            "max_steps": 62_400,
            "warmup_steps": 312,
            "eval_steps": 2400,
            "eval_examples": 4000,
        },
    },
    models=("models", WITHOUT_RETENTION),
    seeds=3,
)

MEMORY: Settings = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "hidden_dropout_prob": 0.0,
    "warmup_steps": 50,
    "per_device_eval_batch_size": 250,
    "eval_examples": 500,
    "logging_steps": 50,
    "curriculum": True,
    "associative_size": 16,
}

# The question ends at the last token.
RETRIEVAL: Settings = {
    **MEMORY,
    "readout": "last",
    "num_memory_tokens": 4,
    "num_hidden_layers": 3,
    "learning_rate": 2e-3,
    "per_device_train_batch_size": 128,
    "max_steps": 1200,
    "eval_steps": 40,
}

# Lengths follow from the task's settings, see `rmaat.cli.compare.recall.grid_of`.
RECALL = Grid(
    name="recall",
    tasks={
        "recall": {
            **MEMORY,
            "num_memory_tokens": 4,
            "num_hidden_layers": 2,
            "learning_rate": 2e-3,
            "per_device_train_batch_size": 64,
            "max_steps": 600,
            "eval_steps": 25,
        },
        "remember": RETRIEVAL,
        "rewrite": RETRIEVAL,
        "stories": {
            **MEMORY,
            "num_memory_tokens": 4,
            "num_hidden_layers": 3,
            "short_conv_size": 9,
            "readout": "last",
            "learning_rate": 4e-3,
            "per_device_train_batch_size": 64,
            "max_steps": 3000,
            "eval_steps": 50,
            # Most stories of two segments can be answered without binding persons to places. Longer stories need the
            # binding more often, so they must come before the model has learned it.
            "curriculum_threshold": 0.6,
        },
    },
    models=(
        "rmaat",
        *(f"rmaat[retention_schedule={name}]" for name in ("plateau", "streaming", "constant", "none", "learned")),
        "rmaat_long",
        "rmt",
        "rlt",
        "transformer",
    ),
    seeds=3,
)

GRIDS: Registry[Grid] = Registry("preset", {"smoke": SMOKE, "cpu": CPU, "paper": PAPER})


def shortened(settings: Settings, max_steps: int | None) -> Settings:
    """The settings with that many steps; warm-up and evaluations keep their shares of the run."""
    if max_steps is None:
        return settings
    share = max_steps / settings["max_steps"]
    kept = {name: max(1, round(settings[name] * share)) for name in ("warmup_steps", "eval_steps")}
    return {**settings, **kept, "max_steps": max_steps}
