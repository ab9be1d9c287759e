"""The measured models: this project's, and other packages' through their public interfaces.

Axes: B batch, N tokens.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rmaat.backprop import Backprop, Checkpoint, Full, Replay
from rmaat.bench.methods import Method
from rmaat.bench.shape import NUM_LABELS, VOCAB_SIZE, Shape
from rmaat.bench.training_step import TrainingStep
from rmaat.models import RmaatConfig, RmaatForSequenceClassification
from rmaat.presets import resolve

BACKPROPS: dict[str, Callable[[], Backprop]] = {
    "full": Full,
    "replay": Replay,
    "checkpoint": Checkpoint,
    "checkpoint_layers": Full,
}


def build(method: Method, shape: Shape, device: str) -> TrainingStep:
    """Build a method's model, with weights from seed 0, and its training step.

    Args:
        method: of this project, or of a package that is installed.
        shape: size and precision.
        device: 'cpu' or 'cuda'.
    """
    torch.manual_seed(0)
    if method.package is None:
        step = _project_model(method, shape, device)
    else:
        step = PACKAGED[method.model](shape, device, method.backprop == "replay")
    step.model.to(device).train()
    return step


def _project_model(method: Method, shape: Shape, device: str) -> TrainingStep:
    settings = resolve(shape.settings(), {"model": method.model}, method.settings)
    del settings["model"]
    settings |= {"vocab_size": VOCAB_SIZE, "num_labels": NUM_LABELS}
    config = RmaatConfig(**settings)
    model = RmaatForSequenceClassification(config)
    model.backprop = BACKPROPS[method.backprop]()
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


def _rmt(shape: Shape, device: str, replay: bool, **options: Any) -> TrainingStep:
    """Build recurrent-memory-transformer-pytorch: a causal language model, its loss of all tokens.

    By default it has XL memories of a segment and four residual streams; `options` are further
    arguments. Its gated feed-forward part has as many weights as the shape's.
    """
    from recurrent_memory_transformer_pytorch import (
        RecurrentMemoryTransformer,
        RecurrentMemoryTransformerWrapper,
    )

    inner = RecurrentMemoryTransformer(
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
    model = RecurrentMemoryTransformerWrapper(inner)

    def forward(ids_BN: Tensor, labels_B: Tensor) -> Tensor | None:
        if replay:
            model(ids_BN, memory_replay_backprop=True)
            return None
        return model(ids_BN, return_loss=True)[0]

    return TrainingStep(model, shape, device, forward, extra=1)


def _memformer(shape: Shape, device: str, replay: bool) -> TrainingStep:
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
        if replay:
            memory_replay_backprop(model, ids_BN, target_B2)
            return None
        *earlier, last = ids_BN.split(shape.segment_length, dim=1)
        memory = None
        for segment in earlier:
            memory = model(segment, mems=memory).mem
        return model(last, tgt=target_B2, mems=memory).dec_out

    return TrainingStep(model, shape, device, forward)


PLAIN: dict[str, Any] = {"use_xl_memories": False, "num_residual_streams": 1}
PACKAGED: dict[str, Callable[[Shape, str, bool], TrainingStep]] = {
    "recurrent_memory_transformer_pytorch": _rmt,
    "recurrent_memory_transformer_pytorch_plain": partial(_rmt, **PLAIN),
    "memformer": _memformer,
}
"""Other packages' models: (shape, device, whether to use the package's replay) -> the step.

None replays dropout, so all run without it, at the settings that come nearest to the shape.
"""
