"""Other projects' models, through their own public interfaces, at the settings that come nearest to the shape.

Neither replays dropout, so both run without it. Axes: B batch, N tokens, M memory tokens, D width.
"""

import torch
from torch import Tensor

from rmaat.compare.shapes import NUM_LABELS, VOCAB_SIZE, Shape
from rmaat.compare.workload import Workload, autocast, workload


def recurrent_memory_transformer(shape: Shape, device: str, replay: bool, plain: bool) -> Workload:
    """recurrent-memory-transformer-pytorch: a causal language model over segments; its loss is over all tokens.

    Args:
        shape: width, depth, heads, feed-forward (its gated form has as many weights), memory, tokens, batch.
        device: 'cpu' or 'cuda'.
        replay: its memory_replay_backprop, else full backpropagation.
        plain: without Transformer-XL memories and with one residual stream, else its defaults (XL memories of a segment,
            four streams).
    """
    from recurrent_memory_transformer_pytorch import RecurrentMemoryTransformer, RecurrentMemoryTransformerWrapper

    torch.manual_seed(0)
    model = RecurrentMemoryTransformerWrapper(
        RecurrentMemoryTransformer(
            shape.hidden_size,
            num_tokens=VOCAB_SIZE,
            depth=shape.num_hidden_layers,
            num_memory_tokens=shape.num_memory_tokens,
            seq_len=shape.segment_length,
            dim_head=shape.hidden_size // shape.num_attention_heads,
            heads=shape.num_attention_heads,
            ff_mult=shape.intermediate_size / shape.hidden_size,
            **({"use_xl_memories": False, "num_residual_streams": 1} if plain else {}),
        )
    )

    def replayed(ids_BN: Tensor, labels_B: Tensor) -> None:
        with autocast(shape, device):
            model(ids_BN, memory_replay_backprop=True)

    def loss(ids_BN: Tensor, labels_B: Tensor) -> Tensor:
        with autocast(shape, device):
            found, _ = model(ids_BN, return_loss=True)
        return found

    return workload(model, shape, device, None if replay else loss, replayed if replay else None, extra=1)


def memformer(shape: Shape, device: str, replay: bool) -> Workload:
    """memformer: an encoder over segments and, since its replay needs one, a decoder of one layer that predicts the label.

    Its encoder has cross-attention to the memory in each layer besides self-attention. Its replay passes through its own
    `memory_replay_backprop`; full backpropagation is the same loop with the graph kept.
    """
    from memformer import Memformer, memory_replay_backprop

    torch.manual_seed(0)
    heads = shape.num_attention_heads
    model = Memformer(
        dim=shape.hidden_size,
        num_memory_slots=shape.num_memory_tokens,
        mem_update_attn_heads=heads,
        enc_num_tokens=VOCAB_SIZE,
        enc_max_seq_len=shape.segment_length,
        enc_depth=shape.num_hidden_layers,
        enc_heads=heads,
        dec_num_tokens=NUM_LABELS,
        dec_max_seq_len=NUM_LABELS,
        dec_depth=1,
        dec_heads=heads,
    )

    def target(labels_B: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(labels_B), labels_B], dim=1)

    def replayed(ids_BN: Tensor, labels_B: Tensor) -> None:
        with autocast(shape, device):
            memory_replay_backprop(model, ids_BN, target(labels_B))

    def loss(ids_BN: Tensor, labels_B: Tensor) -> Tensor:
        with autocast(shape, device):
            *earlier, last = ids_BN.split(shape.segment_length, dim=1)
            memory = None
            for segment in earlier:
                memory = model(segment, mems=memory).mem
            return model(last, tgt=target(labels_B), mems=memory).dec_out

    return workload(model, shape, device, None if replay else loss, replayed if replay else None)
