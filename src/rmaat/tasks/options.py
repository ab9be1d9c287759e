"""The settings of tasks: one flat set, of which each task has a few.

Annotations must not be strings here: jsonargparse would not resolve those that `RunConfig`
inherits, and would let any value pass.
"""

from dataclasses import dataclass, fields
from typing import Annotated, Self

from rmaat.problems import FILE_PROBLEM_TYPES
from rmaat.values import OneOf, Range

Size = Annotated[int, Range(1, 2**20)]


@dataclass(kw_only=True)
class FilesOptions:
    """The user's own documents, for the task files and, without labels, the task texts.

    Args:
        train_file: .jsonl, .csv, .tsv (also .gz, .xz), .parquet, or a folder of text files for each
            label. The task files needs it. For the task texts, a text file or any folder too.
        validation_file: the same for validation; null holds out a tenth of each class of train. The
            task texts holds out a twentieth of the text.
        test_file: the same for the test; null holds out a tenth of each class of train, always the
            same examples.
        text_column: column of the text; null means 'text'.
        other_text_column: column of the second text, for pairs; null means there is none.
        label_column: column of the label, a string or a number; null means 'label'.
        problem_type: task files: what a label is. 'single_label_classification' is one class and
            the meaning of null; 'multi_label_classification' is any number of labels, a list or text
            with '|' between them; 'regression' is a number.
        tokenizer: name or folder of a Hugging Face tokenizer on this machine, or 'auto'; null means
            bytes. 'auto' makes one from the texts of train (byte-level BPE, at most 16,384 tokens),
            or takes that of init_from.
        skip_bad_rows: task files: skip malformed rows, and report their number; null means false.
            By default the first one ends the command.
    """

    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None
    text_column: str | None = None
    other_text_column: str | None = None
    label_column: str | None = None
    problem_type: Annotated[str, OneOf(FILE_PROBLEM_TYPES)] | None = None
    tokenizer: str | None = None
    skip_bad_rows: bool | None = None

    @classmethod
    def of(cls, settings: object) -> Self:
        """Return the options among the attributes of any object: parsed flags, a run config."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})


@dataclass(kw_only=True)
class MemoryOptions:
    """Settings of the generated memory tasks; null means the task's default.

    Args:
        pairs: remember, rewrite: most pairs of an example (10). An example has 1 to `pairs` of them.
            mqar: pairs of each example (16).
        key_size: remember, rewrite: symbols of a key (1).
        value_size: remember, rewrite: symbols of a value, at most 3 (1).
        filler: remember, rewrite: filler tokens around the pair of each segment (0).
        distance: recall: most segments between the marked symbol and the end (15).
        symbol_segments: recall: first segments among which the marked symbol stands (1). The model
            reads them as one segment.
        segment_tokens: recall, stories: tokens of a segment (32, stories 64).
        story_tokens: stories: tokens of the longest story (512).
        story_facts: stories: facts that the answer needs, 1 or 2 (1).
        sequence_tokens: mqar, copy, selective_copy: tokens of each example (256, copy 128).
        symbols: copy, selective_copy: symbols that are copied (63, selective_copy 16).
        vocabulary: mqar, copy, selective_copy: number of different tokens (64, copy 18, selective_copy
            16).
    """

    pairs: Size | None = None
    key_size: Annotated[int, Range(1, 8)] | None = None
    value_size: Annotated[int, Range(1, 3)] | None = None
    filler: Annotated[int, Range(0, 2**20)] | None = None
    distance: Annotated[int, Range(0, 2**20)] | None = None
    symbol_segments: Size | None = None
    segment_tokens: Size | None = None
    story_tokens: Size | None = None
    story_facts: Annotated[int, Range(1, 2)] | None = None
    sequence_tokens: Size | None = None
    symbols: Size | None = None
    vocabulary: Annotated[int, Range(4, 2**15)] | None = None


@dataclass(kw_only=True)
class TaskOptions(FilesOptions, MemoryOptions):
    """The settings of all tasks. `rmaat.tasks.task_of` refuses those that a task does not have."""
