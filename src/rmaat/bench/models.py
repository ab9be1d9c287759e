"""The measured models: this project's, and other packages' through their public interfaces.

Axes: B batch, N tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rmaat.backprop import Checkpoint, Full, Replay
from rmaat.bench.methods import RMT, Method
from rmaat.bench.shape import NUM_LABELS, VOCAB_SIZE, Shape
from rmaat.models import RmaatConfig, RmaatForSequenceClassification
from rmaat.presets import resolve

SEED = 2
"""Seed of dropout in every step, so that two methods drop the same values."""


@dataclass(frozen=True)
class TrainingStep:
    """A model, and a step that leaves fresh gradients in its parameters.

    Attributes:
        model: in training mode, on the device.
        shape: batch and precision.
        device: 'cpu' or 'cuda'.
        forward: (ids (B, tokens + extra), labels (B,) int64) -> the loss, or None from a package
            that runs the backward pass itself.
        extra: ids beyond the tokens, for a model that predicts the next token.
        id_type: of the ids, the smallest that the model reads.
    """

    model: nn.Module
    shape: Shape
    device: str
    forward: Callable[[Tensor, Tensor], Tensor | None]
    extra: int = 0
    id_type: torch.dtype = torch.int64

    def __call__(self, tokens: int) -> None:
        """Run the forward and the backward pass of sequences of so many tokens."""
        self.model.zero_grad(set_to_none=True)
        loss = self.loss(tokens)
        if loss is not None:
            loss.backward()

    def loss(self, tokens: int) -> Tensor | None:
        """Return the loss that a step differentiates; see `forward`."""
        size = (self.shape.batch, tokens + self.extra)
        generator = torch.Generator().manual_seed(1)
        ids_BN = torch.randint(VOCAB_SIZE, size, generator=generator, dtype=self.id_type)
        labels_B = torch.arange(self.shape.batch) % NUM_LABELS
        ids_BN, labels_B = ids_BN.to(self.device), labels_B.to(self.device)
        torch.manual_seed(SEED)
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.shape.bf16):
            return self.forward(ids_BN, labels_B)


def build(method: Method, shape: Shape, device: str) -> TrainingStep:
    """Build a method's model, with weights from seed 0, and its training step.

    The method's package must be installed; `device` is 'cpu' or 'cuda'.
    """
    torch.manual_seed(0)
    make = _project_model if method.package is None else PACKAGED[method.model]
    step = make(method, shape, device)
    step.model.to(device).train()
    return step


def _project_model(method: Method, shape: Shape, device: str) -> TrainingStep:
    settings = resolve(shape.settings(), {"model": method.model}, method.settings)
    del settings["model"]
    settings |= {"vocab_size": VOCAB_SIZE, "num_labels": NUM_LABELS}
    model = RmaatForSequenceClassification(RmaatConfig(**settings))
    model.backprop = {"replay": Replay, "checkpoint": Checkpoint}.get(method.backprop, Full)()
    for block in model.rmaat.encoder.layers() if method.backprop == "checkpoint_layers" else ():
        # Dropout masks are arguments of a block, so there is no generator's state to restore.
        block.forward = partial(  # type: ignore[method-assign]
            checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False
        )
    if shape.torch_compile:
        model.rmaat.encoder.compile(dynamic=False)
    read = shape.segment_length if method.first_segment else None

    def forward(ids_BN: Tensor, labels_B: Tensor) -> Tensor:
        return model(ids_BN[:, :read], labels=labels_B).loss

    return TrainingStep(model, shape, device, forward, id_type=torch.uint8)


def _rmt(method: Method, shape: Shape, device: str, **options: Any) -> TrainingStep:
    """Build recurrent-memory-transformer-pytorch: a causal language model, its loss of all tokens.

    By default it has XL memories of a segment and four residual streams; `options` are further
    arguments. Its gated feed-forward part has as many weights as the shape's.
    """
    import recurrent_memory_transformer_pytorch as package

    inner = package.RecurrentMemoryTransformer(
        shape.hidden_size,
        num_tokens=VOCAB_SIZE,
        depth=shape.num_hidden_layers,
        num_memory_tokens=shape.num_memory_tokens,
        seq_len=shape.segment_length,
        dim_head=shape.hidden_size // shape.num_attention_heads,
        heads=shape.num_attention_heads,
        ff_mult=shape.intermediate_size / shape.hidden_size,
        **options,
    )
    model = package.RecurrentMemoryTransformerWrapper(inner)

    def forward(ids_BN: Tensor, labels_B: Tensor) -> Tensor | None:
        if method.backprop == "replay":
            model(ids_BN, memory_replay_backprop=True)
            return None
        return model(ids_BN, return_loss=True)[0]

    return TrainingStep(model, shape, device, forward, extra=1)


def _memformer(method: Method, shape: Shape, device: str) -> TrainingStep:
    """Build memformer: an encoder over segments, and one decoder layer that predicts the label.

    Its replay needs the decoder. Each layer of its encoder has cross-attention to the memory beside
    self-attention. Full backpropagation is the loop of its replay with the graph alive.
    """
    from memformer import Memformer, memory_replay_backprop

    model = Memformer(
        dim=shape.hidden_size,
        num_memory_slots=shape.num_memory_tokens,
        mem_update_attn_heads=shape.num_attention_heads,
        enc_num_tokens=VOCAB_SIZE,
        enc_max_seq_len=shape.segment_length,
        enc_depth=shape.num_hidden_layers,
        enc_heads=shape.num_attention_heads,
        dec_num_tokens=NUM_LABELS,
        dec_max_seq_len=NUM_LABELS,
        dec_depth=1,
        dec_heads=shape.num_attention_heads,
    )

    def forward(ids_BN: Tensor, labels_B: Tensor) -> Tensor | None:
        target_B2 = torch.stack([torch.zeros_like(labels_B), labels_B], dim=1)
        if method.backprop == "replay":
            memory_replay_backprop(model, ids_BN, target_B2)
            return None
        *earlier, last = ids_BN.split(shape.segment_length, dim=1)
        memory = None
        for segment in earlier:
            memory = model(segment, mems=memory).mem
        return model(last, tgt=target_B2, mems=memory).dec_out

    return TrainingStep(model, shape, device, forward)


PLAIN: dict[str, Any] = {"use_xl_memories": False, "num_residual_streams": 1}
PACKAGED: dict[str, Callable[[Method, Shape, str], TrainingStep]] = {
    RMT: _rmt,
    f"{RMT}_plain": partial(_rmt, **PLAIN),
    "memformer": _memformer,
}
"""Other packages' models: (method, shape, device) -> the step.

None replays dropout, so all run without it, at the settings that come nearest to the shape.
"""
