"""Settings that have no effect beside others."""

from collections.abc import Collection, Iterator

from rmaat.errors import UserError
from rmaat.training.config import RunConfig


def check_effects(settings: Collection[str], config: RunConfig, prefix: str = "") -> None:
    """Check that no setting of the user's loses its effect because of another one or of the model.

    Args:
        settings: names of the user's settings.
        config: run config that includes them.
        prefix: what stands before a setting's name in a message, such as '--'.

    Raises:
        UserError: for a setting without effect.
    """
    for name, reason in _ineffective(config):
        if name in settings:
            raise UserError(f"{prefix}{name} has no effect: {reason}; leave one of them out")


def _ineffective(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yield settings that have no effect under others, each with the reason."""
    if config.max_seq_len == 0:
        yield "num_segments", "max_seq_len is 0"
    if config.max_steps:
        yield "min_steps", f"max_steps is {config.max_steps}"
        yield "num_train_epochs", f"max_steps is {config.max_steps}"
    if config.match_parameters is not None:
        yield "intermediate_size", f"match_parameters {config.match_parameters} chooses it"
    if not config.astro_mem:
        cause = "astro_mem is false" if config.model is None else f"model '{config.model}' has no retention"
        yield from ((name, cause) for name in ("retention_constant", "macro_model"))
        if config.retention_schedule != "none":
            yield "retention_schedule", cause
    elif config.retention_schedule != "constant":
        yield "retention_constant", f"retention_schedule is '{config.retention_schedule}'"
    if config.astro_mem and config.retention_schedule == "none":
        yield "astro_mem", "retention_schedule is 'none'"
    if config.objective != "labels":
        unused = (
            *("test_examples", "metric_for_best_model", "calibration"),
            *("readout", "pooled_norm", "classifier_hidden_size", "ngram_size"),
        )
        yield from ((name, f"objective is '{config.objective}'") for name in unused)
    if config.objective == "causal":
        yield "mask_share", "objective is 'causal'"
    elif not config.has_masked_loss:
        yield "mask_share", "masked_loss_weight is 0"
    if config.reading_norm:
        replaced = ("calcium_exponent", "presynaptic_plasticity", "hebbian_scale")
        yield from ((name, "reading_norm is true") for name in replaced)
    if config.ngram_size is None:
        yield "ngram_buckets", "ngram_size is null"
    if not config.curriculum:
        yield "curriculum_threshold", "curriculum is false"
