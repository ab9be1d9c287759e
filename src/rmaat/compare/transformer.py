"""A Transformer over the whole sequence, in plain PyTorch: what a user has without segments.

Axes: B batch, N tokens, D width, H heads, d = D / H.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout, gelu, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from rmaat.compare.shapes import NUM_LABELS, VOCAB_SIZE, Shape
from rmaat.compare.workload import Workload, autocast, workload
from rmaat.layers import sinusoidal_positions


class Layer(nn.Module):
    """Post-norm encoder layer with dropout after attention and feed-forward, as this project's own block has it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.hidden_size
        self.heads = shape.num_attention_heads
        self.drop = shape.hidden_dropout_prob
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width)
        self.mixer_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, shape.intermediate_size)
        self.contract = nn.Linear(shape.intermediate_size, width)
        self.feed_forward_norm = nn.LayerNorm(width)

    def forward(self, x_BND: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        q, k, v = self.query_key_value(x_BND).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed_BHNd = scaled_dot_product_attention(q, k, v)
        mixed_BND = self.output(mixed_BHNd.transpose(1, 2).flatten(-2))
        x_BND = self.mixer_norm(x_BND + dropout(mixed_BND, self.drop))
        fed_BND = self.contract(gelu(self.expand(x_BND)))
        return self.feed_forward_norm(x_BND + dropout(fed_BND, self.drop))


class Transformer(nn.Module):
    """Embedding, layers, the mean over tokens, a linear classifier."""

    def __init__(self, shape: Shape, checkpointed: bool) -> None:
        super().__init__()
        self.drop = shape.hidden_dropout_prob
        self.checkpointed = checkpointed
        self.embedding = nn.Embedding(VOCAB_SIZE, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.classifier = nn.Linear(shape.hidden_size, NUM_LABELS)

    def forward(self, ids_BN: Tensor, labels_B: Tensor) -> Tensor:
        """The loss."""
        embedded_BND = self.embedding(ids_BN)
        positions_ND = sinusoidal_positions(ids_BN.shape[1], embedded_BND.shape[2], embedded_BND)
        x_BND = dropout(embedded_BND + positions_ND, self.drop)
        for layer in self.layers:
            x_BND = checkpoint(layer, x_BND, use_reentrant=False) if self.checkpointed else layer(x_BND)
        return cross_entropy(self.classifier(x_BND.mean(1)), labels_B)


def transformer(shape: Shape, device: str, checkpointed: bool) -> Workload:
    """The Transformer, with each layer under torch.utils.checkpoint where `checkpointed`."""
    torch.manual_seed(0)
    model = Transformer(shape, checkpointed)
    if shape.torch_compile:
        for layer in model.layers:
            layer.compile(dynamic=False)

    def loss(ids_BN: Tensor, labels_B: Tensor) -> Tensor:
        with autocast(shape, device):
            found: Tensor = model(ids_BN, labels_B)
        return found

    return workload(model, shape, device, loss)
