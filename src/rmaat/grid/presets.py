"""The presets of grids: recipes, models and the number of seeds.

`cpu` has small models. `paper` has the lengths of the RMAAT paper [P] in segments of 512 tokens, as
in its Retrieval (16 of 8K [P]; the others' number is not published [C]). Its layers, width, heads,
batch and dropout are those of the Long Range Arena's base configurations (arXiv 2011.04006), to
which the Arena's bound of 10% more parameters refers. Where those have an inverse square root
schedule (ListOps, Text, Retrieval), the peak rate, steps and warm-up are those of Luna's harness
(arXiv 2106.01540). `recall` has the tasks that only a memory can solve. Knows nothing of torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rmaat.presets import MODELS, resolve
from rmaat.recipes import recipe_layers, recipe_names
from rmaat.registry import Registry
from rmaat.training.config import RunConfig

Settings = dict[str, Any]

DESCRIBED = (
    *("max_seq_len", "num_segments", "hidden_size", "num_hidden_layers"),
    *("max_steps", "per_device_train_batch_size", "learning_rate"),
)
"""Settings of a task that the tables show."""

SHARES = ("warmup_steps", "eval_steps")
"""Settings that are a share of a run's steps."""

WITHOUT_RETENTION = "rmaat[astro_mem=false]"
SCHEDULES = ("plateau", "streaming", "constant", "none", "learned")
SWITCHES = ("hebbian_astro", "presynaptic_plasticity", "positional_encoding")

MODEL_GROUPS: dict[str, tuple[str, ...]] = {
    "models": MODELS.names(),
    "ablations": (
        "rmaat",
        WITHOUT_RETENTION,
        *(f"rmaat[retention_schedule={name}]" for name in SCHEDULES if name != "none"),
        *(f"rmaat[{name}=false]" for name in SWITCHES),
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
    """A preset.

    Attributes:
        name: name of the preset.
        recipes: names of the recipes, one a task.
        models: models, variants or groups.
        seeds: number of seeds.
        changes: settings that replace those of every recipe.
    """

    name: str
    recipes: tuple[str, ...]
    models: tuple[str, ...]
    seeds: int
    changes: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def tasks(self) -> dict[str, Settings]:
        """The settings of each task; `DESCRIBED` and `SHARES` are always among them."""
        defaults = {name: getattr(RunConfig, name) for name in (*DESCRIBED, *SHARES)}
        tasks = {}
        for recipe in self.recipes:
            settings = resolve(*recipe_layers(recipe), self.changes)
            tasks[settings.pop("dataset")] = {**defaults, **settings}
        return tasks


_MODELS = ("models", WITHOUT_RETENTION)
_CPU = ("aan_lite", "cifar10", "imdb_lra", "listops")

GRIDS: Registry[Grid] = Registry(
    "preset",
    {
        "smoke": Grid("smoke", recipe_names("smoke"), _MODELS, 1),
        # The tasks' own recipes. Pathfinder has none that reads pixel by pixel, as the benchmark does.
        "cpu": Grid("cpu", _CPU, _MODELS, 1),
        "paper": Grid("paper", recipe_names("paper"), _MODELS, 3),
    },
)

_SCHEDULED = tuple(f"rmaat[retention_schedule={name}]" for name in SCHEDULES)

RECALL = Grid(
    name="recall",
    recipes=("recall", "remember", "rewrite", "stories"),
    models=("rmaat", *_SCHEDULED, "rmaat_long", "rmt", "rlt", "transformer"),
    seeds=3,
)
"""The preset of `rmaat compare recall`."""


def shortened(settings: Settings, max_steps: int | None) -> Settings:
    """Return the settings with `max_steps` steps; warm-up and evaluations keep their shares."""
    if max_steps is None:
        return settings
    share = max_steps / settings["max_steps"]
    shares = {name: max(1, round(settings[name] * share)) for name in SHARES}
    return {**settings, **shares, "max_steps": max_steps}
