"""The settings of tasks: one flat set, of which a task has its own few."""

from __future__ import annotations

from dataclasses import dataclass

from rmaat.tasks.files import FilesOptions


@dataclass(kw_only=True)
class MemoryOptions:
    """What the generated memory tasks look like; null means the task's default.

    Args:
        pairs: remember, rewrite: most pairs of an example, which has 1 to pairs of them; null means 10.
        key_size: remember, rewrite: symbols of a key; null means 1.
        value_size: remember, rewrite: symbols of a value, at most 3; null means 1.
        filler: remember, rewrite: filler tokens around the pair of each segment; null means 0.
        distance: recall: most segments between the marked symbol and the end; null means 15.
        symbol_segments: recall: first segments among which the marked symbol stands; the model's segment is all of them; null
            means 1.
        segment_tokens: recall, stories: tokens of a segment; null means 32, for stories 64.
        story_tokens: stories: the longest story in tokens; null means 512.
        story_facts: stories: facts that the answer needs, 1 or 2; null means 1.
    """

    pairs: int | None = None
    key_size: int | None = None
    value_size: int | None = None
    filler: int | None = None
    distance: int | None = None
    symbol_segments: int | None = None
    segment_tokens: int | None = None
    story_tokens: int | None = None
    story_facts: int | None = None


@dataclass(kw_only=True)
class TaskOptions(FilesOptions, MemoryOptions):
    """The settings of all tasks. `rmaat.tasks.task_of` refuses those that a task does not have."""
