"""`ModelSettings`, the settings of a model. The run config and the model's config inherit them.

This module does not import torch.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from rmaat.astrocyte import NEED_TOTAL, SCHEDULES, MacroModel, retention_factors
from rmaat.attention import ATTENTION
from rmaat.attention.registry import BUILT_IN, AttentionSettings
from rmaat.budget import Budget
from rmaat.errors import UserError, quoted
from rmaat.values import Length, OddWidth, OneOf, Range, Share, Width, check_values

RETENTION_SCHEDULES = (*SCHEDULES.names(), "learned", "rotating")
INPUT_TYPES = ("tokens", "values")
REPLAY_BUFFERS = ("device", "cpu")
RETENTION_FORMS = ("scale", "relative", "interpolate", "gate")
MEMORY_LAYOUTS = ("front", "back", "read_write")
ASSOCIATIVE_WRITERS = ("memory", "all")
ASSOCIATIVE_RULES = ("normalised", "delta")
READOUTS = ("mean", "first", "last", "memory", "running_mean")


SAME_RESULTS = ("memory_replay_backprop", "replay_budget", "replay_buffer")
"""Settings that change time and memory, but no result: a run may resume with other values."""


RETIRED: dict[str, tuple[Any, ...]] = {"embedding_std": (1.0,)}
"""Settings of earlier versions that stored configs still hold.

Each has the values that give the same model as today's version does without the setting.
"""


def without_retired(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the settings without the retired ones.

    Raises:
        UserError: for a retired setting with a value that this version cannot reproduce.
    """
    for name, value in settings.items():
        if name in RETIRED and value not in RETIRED[name]:
            raise UserError(f"{where} sets {name} to {quoted(value)}, and this version no longer has that setting")
    return {name: value for name, value in settings.items() if name not in RETIRED}


@dataclass(kw_only=True)
class ModelSettings(AttentionSettings):
    """The settings of a model, apart from its vocabulary and labels.

    The first sentence of each description is its line in `rmaat train --help`.

    Args:
        max_seq_len: longest sequence, in tokens or values [P].
        num_segments: segments that max_seq_len is cut into, a divisor of it [P: 2, 4, 8, 16].
        num_memory_tokens: memory tokens M, passed from each segment to the next [P: 1].
        input_type: 'tokens' (ids, looked up) or 'values' (real numbers, embedded linearly).
        patch_size: consecutive values that share a position, if input_type is 'values' [C: 1]. One
            linear map embeds them together, such as the channels of a signal or a row of an image.
        two_towers: read two inputs with one encoder, and classify [a, b, a * b, a - b]. The Long
            Range Arena does so for pairs.
        attention_type: attention within a segment, one of `rmaat list attention` [P: 'astro'].
        memory_replay_backprop: compute segments again in the backward pass (AMRB) [P].
        replay_budget: memory for segments that replay does not compute again, such as '2GiB'. A
            fraction such as 0.5 is a share of the free memory, and a whole number counts segments.
            null means the last segment only.
        replay_buffer: device that stores the memory between segments: the model's 'device', or 'cpu'.
        truncated_segments: segments that gradients reach back, without memory_replay_backprop.
        astro_mem: scale the memory by retention factors [P]. false means the schedule 'none'.
        retention_schedule: source of the retention factors, such as 'ltp', 'constant' or 'none' [P].
            'ltp' takes the simulated increments of the long-term process [P], 'plateau' their
            closed form [P]. 'streaming' needs no T, and 'constant' is one number [C]. 'learned' has
            one logit per segment, which starts at 'ltp' [C]. 'rotating' writes one memory token per
            segment, each in its turn, and leaves the others unchanged [C].
        retention_constant: factor of the schedule 'constant', from 0 to 1. With 0 and the form
            'interpolate' each segment starts from the initial memory tokens, so that only an
            associative memory carries information.
        retention_form: use of the factor RF: 'scale', 'relative', 'interpolate' or 'gate' [P: scale].
            With the memory mem before a segment and h after it: 'scale' is RF h; 'relative' divides
            RF by the sample's largest; 'interpolate' is RF h + (1 - RF) mem; 'gate' is the same
            with a learned gate that starts at RF [C].
        memory_layout: place of the memory tokens: 'front' [P], 'back' or 'read_write' [C]. With
            'read_write' they are read at the front and written at further positions at the back.
        causal: each position reads only those before it, as a language model needs [C]. Memory tokens
            are then read before a segment's tokens and written after them, as with the
            memory_layout 'read_write'.
        macro_model: parameters of the neuron-astrocyte model that differ from its defaults. They are
            the flags of `rmaat simulate`.
        positional_encoding: add sinusoids to the embedded tokens [P].
        short_conv_size: neighbouring tokens that a convolution before each layer spans, odd [C]. It
            leaves out the memory tokens; null means none.
        associative_memory: carry a matrix in each layer beside the memory tokens [C]. The memory
            tokens write it and every position reads it (arXiv 2407.04841).
        associative_size: width of the associative memory's keys; it has 6 rows for each [C].
        associative_writers: positions that write to the associative memory: 'memory' or 'all' [C].
            With 'all' the map of the queries makes the keys too.
        associative_rule: 'normalised' (arXiv 2407.04841) or 'delta' [C], which does not wear the
            memory away: a position can leave it exactly as it is.
        associative_retention: scale the associative memory by the retention factor before writing [C].
        hidden_size: width D of tokens and memory.
        num_hidden_layers: encoder layers.
        num_attention_heads: heads, a divisor of hidden_size.
        intermediate_size: width inside the feed-forward part.
        hidden_act: activation of the feed-forward part, a name known to transformers.
        hidden_dropout_prob: dropout on embeddings and after attention and feed-forward.
        layer_norm_eps: epsilon of layer normalisation.
        norm_first: normalise before attention and feed-forward instead of after them [P: false].
        readout: input of the classifier: 'mean', 'first', 'last', 'memory' or 'running_mean' [C]. In
            the last segment they are the mean over tokens and memory, the first and the last token,
            and the memory; 'running_mean' is the mean over the tokens of all segments.
        pooled_norm: standardise each feature of the classifier's input over the batch [C]. Means over
            many tokens differ little from sequence to sequence, and short trainings do not overcome
            that. `rmaat train` measures the statistics on up to 512 training examples before each
            evaluation. Other trainers use running statistics.
        classifier_hidden_size: width of a hidden layer in the classifier; null means none [C]. The
            Long Range Arena's classifier has one, and Pathfinder needs it in short trainings.
        ngram_size: tokens of the longest n-gram of a linear classifier beside the deep one; null means
            none [C]. It learns words and pairs of words from a few thousand documents.
        ngram_buckets: rows of the table of hashed n-grams, with a number for each label [C].
    """

    max_seq_len: Length = 4096
    num_segments: Length = 8
    num_memory_tokens: Annotated[int, Range(0, 2**16)] = 1
    input_type: Annotated[str, OneOf(INPUT_TYPES)] = "tokens"
    patch_size: Width = 1
    two_towers: bool = False
    attention_type: str = "astro"
    memory_replay_backprop: bool = True
    replay_budget: int | float | str | None = None
    replay_buffer: Annotated[str, OneOf(REPLAY_BUFFERS)] = "device"
    truncated_segments: Length | None = None
    astro_mem: bool = True
    retention_schedule: Annotated[str, OneOf(RETENTION_SCHEDULES)] = "ltp"
    retention_constant: Share = 0.5
    retention_form: Annotated[str, OneOf(RETENTION_FORMS)] = "scale"
    memory_layout: Annotated[str, OneOf(MEMORY_LAYOUTS)] = "front"
    causal: bool = False
    macro_model: dict[str, Any] | None = None
    positional_encoding: bool = True
    short_conv_size: OddWidth | None = None
    associative_memory: bool = False
    # With size 1, a feature rolled by one is its own negative part, so their product is 0.
    associative_size: Annotated[int, Range(2, 2**16)] = 64
    associative_writers: Annotated[str, OneOf(ASSOCIATIVE_WRITERS)] = "memory"
    associative_rule: Annotated[str, OneOf(ASSOCIATIVE_RULES)] = "normalised"
    associative_retention: bool = False
    hidden_size: Width = 128
    num_hidden_layers: Annotated[int, Range(1, 1000)] = 2
    num_attention_heads: Width = 4
    intermediate_size: Annotated[int, Range(1, 2**20)] = 256
    hidden_act: str = "gelu"
    hidden_dropout_prob: Annotated[float, Range(0, 0.999)] = 0.1
    layer_norm_eps: Annotated[float, Range(1e-12, 1)] = 1e-5
    norm_first: bool = True
    readout: Annotated[str, OneOf(READOUTS)] = "mean"
    pooled_norm: bool = False
    classifier_hidden_size: Width | None = None
    ngram_size: Annotated[int, Range(1, 8)] | None = None
    ngram_buckets: Annotated[int, Range(1, 2**20)] = 2**18

    @property
    def tokens_per_segment(self) -> int:
        """The number of tokens or values of one segment."""
        return self.max_seq_len // self.num_segments

    @property
    def positions_per_segment(self) -> int:
        """N_seg, the positions of one segment without its memory: one per token or patch."""
        return self.tokens_per_segment // self.patch_size

    @property
    def num_positions(self) -> int:
        """The positions of one segment in the layers: memory, and tokens or patches."""
        return self.memory_positions + self.positions_per_segment

    @property
    def memory_positions(self) -> int:
        """The memory positions of a segment: with 'read_write', two for each memory token."""
        return self.num_memory_tokens * (2 if self.layout == "read_write" else 1)

    @property
    def layout(self) -> str:
        """The effective memory layout: 'read_write' in a causal model."""
        return "read_write" if self.causal else self.memory_layout

    @property
    def associations_shape(self) -> tuple[int, int, int]:
        """The shape of one sample's associative memory: layers, key features, columns E.

        E is the width, and one more for the sum of keys of the rule 'normalised'. There are 0 layers
        in a model without an associative memory.
        """
        layers = self.num_hidden_layers if self.associative_memory else 0
        return layers, 6 * self.associative_size, self.hidden_size + int(self.associative_rule == "normalised")

    @property
    def schedule(self) -> str:
        """The effective retention schedule: 'none' if astro_mem is false."""
        return self.retention_schedule if self.astro_mem else "none"

    @property
    def astrocyte(self) -> MacroModel:
        """The macro model behind the schedule; raises `UserError` for a wrong parameter."""
        return _macro_model(json.dumps(self.macro_model or {}, sort_keys=True, default=float))

    def check_model(self) -> None:
        """Raise `UserError` if the settings contradict each other or leave their ranges."""
        check_values(self, ModelSettings)
        if self.max_seq_len % self.num_segments:
            # Divisors come in pairs, of which one is at most the square root.
            small = [n for n in range(1, math.isqrt(self.max_seq_len) + 1) if self.max_seq_len % n == 0]
            divisors = {*small, *(self.max_seq_len // n for n in small)}
            near = sorted(divisors, key=lambda n: abs(n - self.num_segments))[:4]
            raise UserError(
                f"num_segments {self.num_segments} does not divide max_seq_len {self.max_seq_len}; "
                f"near divisors: {', '.join(map(str, sorted(near)))}"
            )
        if self.ngram_size is not None and (self.input_type == "values" or self.two_towers):
            reason = "input_type 'values' has no tokens" if self.input_type == "values" else "two_towers has two inputs"
            raise UserError(f"ngram_size needs one sequence of tokens, and {reason}; set ngram_size: null")
        if self.patch_size > 1 and self.input_type != "values":
            raise UserError(f"patch_size {self.patch_size} needs input_type 'values'; each token has its own position")
        if self.tokens_per_segment % self.patch_size:
            raise UserError(
                f"patch_size {self.patch_size} does not divide the {self.tokens_per_segment} values "
                f"of a segment (max_seq_len {self.max_seq_len} / num_segments {self.num_segments})"
            )
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"num_attention_heads {self.num_attention_heads} does not divide hidden_size {self.hidden_size}"
            )
        if self.hidden_size % 2:
            raise UserError(f"hidden_size {self.hidden_size} must be even: positions come in sine and cosine pairs")
        if self.num_memory_tokens == 0 and self.readout == "memory":
            raise UserError("readout 'memory' needs num_memory_tokens >= 1")
        self._check_attention_type()
        self._check_associative()
        self._check_memory_layout()
        self._check_causal()
        if self.two_towers and self.input_type == "values":
            raise UserError("two_towers reads pairs of token sequences; it excludes input_type 'values'")
        if self.truncated_segments is not None and self.memory_replay_backprop:
            raise UserError(
                "truncated_segments needs memory_replay_backprop: false, because replay gives the exact gradient"
            )
        Budget.parse(self.replay_budget)
        if self.replay_budget is not None and not self.memory_replay_backprop:
            raise UserError("replay_budget needs memory_replay_backprop: true; without it every segment stays alive")
        if self.replay_buffer != "device" and not self.memory_replay_backprop:
            raise UserError("replay_buffer needs memory_replay_backprop: true; without it no states are stored")
        self._check_schedule()

    def _check_attention_type(self) -> None:
        attention = ATTENTION[self.attention_type]
        if not isinstance(self, attention.settings):
            raise UserError(
                f"attention_type '{self.attention_type}' has settings of the class "
                f"{attention.settings.__name__}, which a run config lacks; an attention of another "
                "package can use only settings that rmaat defines"
            )
        for kind, other in BUILT_IN.items():
            for name in other.switches:
                default, value = getattr(other.settings, name), getattr(self, name)
                if name not in attention.setting_names and value != default:
                    raise UserError(
                        f"{name}: {str(value).lower()} changes attention_type '{kind}' only, not "
                        f"'{self.attention_type}'; leave it {str(default).lower()}"
                    )
        self._check_extension()
        if attention.packs_memory and self.num_memory_tokens == 0:
            raise UserError(
                f"attention_type '{self.attention_type}' packs the tokens into memory: num_memory_tokens must be >= 1"
            )

    def _check_extension(self) -> None:
        if "attention_decay" not in ATTENTION[self.attention_type].setting_names:
            return
        decays = self.attention_decay != "none"
        if decays and self.num_attention_heads < 2:
            raise UserError(
                f"attention_decay '{self.attention_decay}' needs num_attention_heads >= 2, because the first head "
                "has no decay"
            )
        if decays and self.memory_layout != "front" and not self.causal:
            raise UserError(
                f"attention_decay '{self.attention_decay}' needs memory_layout 'front', because memory has no decay"
            )
        if self.hebbian_sigmoid and (decays or self.reading_norm or self.unit_features or self.rotary_positions):
            raise UserError(
                "hebbian_sigmoid excludes attention_decay, reading_norm, unit_features and rotary_positions"
            )

    def _check_associative(self) -> None:
        if self.associative_writers == "all" and not self.associative_memory:
            raise UserError("associative_writers 'all' needs associative_memory: true")
        if self.associative_rule != "normalised" and not self.associative_memory:
            raise UserError(f"associative_rule '{self.associative_rule}' needs associative_memory: true")
        if self.associative_memory and self.associative_writers == "memory" and self.num_memory_tokens == 0:
            raise UserError(
                "the memory tokens write the associative_memory: set num_memory_tokens >= 1 or "
                "associative_writers 'all'"
            )
        if self.associative_retention and not self.associative_memory:
            raise UserError("associative_retention needs associative_memory: true")
        if self.associative_retention and self.schedule == "none":
            raise UserError("associative_retention needs retention factors; retention_schedule 'none' has none")

    def _check_memory_layout(self) -> None:
        layout, kind = self.memory_layout, self.attention_type
        attention = ATTENTION[kind]
        if layout == "front":
            return
        if self.num_memory_tokens == 0:
            raise UserError(f"memory_layout '{layout}' needs num_memory_tokens >= 1")
        if attention.packs_memory:
            raise UserError(
                f"attention_type '{kind}' packs the tokens into memory at the front: memory_layout must be 'front'"
            )
        if layout == "back" and not attention.sees_order(self):
            without = f" without {' or '.join(attention.ordered_by)}" if attention.ordered else ""
            raise UserError(
                f"memory_layout 'back' has no effect in attention_type '{kind}'{without}, because "
                "that attention ignores the order of positions"
            )

    def _check_causal(self) -> None:
        if not self.causal:
            return
        if not ATTENTION[self.attention_type].causal:
            kinds = ", ".join(f"'{kind}'" for kind, attention in BUILT_IN.items() if attention.causal)
            raise UserError(f"attention_type '{self.attention_type}' has no causal form; {kinds} have one")
        if self.schedule in (*NEED_TOTAL, "learned"):
            kinds = ", ".join(f"'{kind}'" for kind in RETENTION_SCHEDULES if kind not in (*NEED_TOTAL, "learned"))
            raise UserError(
                f"causal: true has no number of segments before the text ends, and retention_schedule "
                f"'{self.schedule}' needs it; choose one of {kinds}"
            )
        if self.hebbian_sigmoid:
            raise UserError("causal: true excludes hebbian_sigmoid, which needs the Hebbian weights of every position")
        if self.memory_layout == "back":
            raise UserError("causal: true reads memory at the front and writes it at the back; leave out memory_layout")

    def _check_schedule(self) -> None:
        if self.retention_form in ("relative", "interpolate") and self.schedule == "none":
            raise UserError(
                f"retention_form '{self.retention_form}' needs retention factors; retention_schedule 'none' has none"
            )
        if self.schedule == "rotating" and self.num_memory_tokens == 0:
            raise UserError(
                "retention_schedule 'rotating' writes the memory tokens in turn: num_memory_tokens must be >= 1"
            )
        if self.schedule == "rotating" and (
            self.retention_form not in ("interpolate", "gate") or self.associative_retention
        ):
            raise UserError(
                "retention_schedule 'rotating' has the factor 0 for memory tokens that a segment "
                "does not write: it needs retention_form 'interpolate' or 'gate', and "
                "associative_retention false"
            )
        forgetting = self.schedule == "constant" and self.retention_constant == 0
        if forgetting and (self.retention_form == "relative" or self.associative_retention):
            raise UserError(
                "retention_constant 0 needs another retention_form than 'relative', which divides by "
                "it, and associative_retention false, because it would delete all associations"
            )
        model = self.astrocyte
        if self.schedule in SCHEDULES:
            retention_factors(1, self.schedule, model, self.retention_constant)


@lru_cache(maxsize=64)
def _macro_model(parameters: str) -> MacroModel:
    """Return the macro model of a JSON object. Cached, because each forward pass asks for it."""
    return MacroModel.from_dict(json.loads(parameters))
