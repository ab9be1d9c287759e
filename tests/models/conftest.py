"""Small models with parameters of the size that training leaves, in float64."""

from collections.abc import Callable

import pytest
import torch

from rmaat import RmaatConfig, RmaatForSequenceClassification

SMALL = {
    "vocab_size": 16,
    "num_labels": 5,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_seq_len": 32,
    "num_segments": 4,
    "num_memory_tokens": 2,
    "hidden_dropout_prob": 0.1,
    "num_landmarks": 4,
    "conv_kernel_size": 5,
    "linformer_size": 6,
    "num_random_features": 8,
    "state_size": 8,
    "associative_size": 4,
}


@pytest.fixture(scope="session")
def make_model() -> Callable[..., RmaatForSequenceClassification]:
    """A function of settings; the parameters depend on their shapes alone, far from their initial values."""

    def make(**settings) -> RmaatForSequenceClassification:
        # Buffers drawn at the start, such as random features, are the same in every model.
        torch.manual_seed(0)
        model = RmaatForSequenceClassification(RmaatConfig(**{**SMALL, **settings})).double()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in sorted(model.named_parameters()):
                noise = torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)
                if "retention" in name:
                    parameter.add_(0.3 * noise)
                else:
                    fan = parameter.shape[-1] if parameter.dim() > 1 and "tokens" not in name else 1
                    centre = 1.0 if "norm.weight" in name else 0.0
                    parameter.copy_(centre + (1.5 if parameter.dim() > 1 else 0.4) * noise / fan**0.5)
        return model

    return make


@pytest.fixture
def ragged() -> dict[str, torch.Tensor]:
    """Four rows of 32, 19, 8 and 1 tokens, with labels."""
    generator = torch.Generator().manual_seed(1)
    mask = (torch.arange(32) < torch.tensor([32, 19, 8, 1])[:, None]).long()
    ids = torch.randint(0, 16, (4, 32), generator=generator) * mask
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 4, 2, 1])}
