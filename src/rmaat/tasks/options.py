"""The settings of tasks: one flat set, of which a task has its own few."""

from __future__ import annotations

from dataclasses import dataclass

from rmaat.tasks.files import FilesOptions


@dataclass(kw_only=True)
class MemoryOptions:
    """Settings of the generated memory tasks; null means the task's default.

    Args:
        pairs: remember, rewrite: most pairs of an example (10). An example has 1 to `pairs` of them.
        key_size: remember, rewrite: symbols of a key (1).
        value_size: remember, rewrite: symbols of a value, at most 3 (1).
        filler: remember, rewrite: filler tokens around the pair of each segment (0).
        distance: recall: most segments between the marked symbol and the end (15).
        symbol_segments: recall: first segments among which the marked symbol stands (1). The model
            reads them as one segment.
        segment_tokens: recall, stories: tokens of a segment (32, stories 64).
        story_tokens: stories: tokens of the longest story (512).
        story_facts: stories: facts that the answer needs, 1 or 2 (1).
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
