"""Random numbers of training that do not depend on how often a model is evaluated."""

from contextlib import AbstractContextManager

import torch


def preserved_random_state() -> AbstractContextManager[None]:
    """Return a context after which torch's random state is what it was before.

    A data loader draws from it even if its order is fixed. Without this, one evaluation more or
    less would change all later dropout masks.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    return torch.random.fork_rng(devices)
