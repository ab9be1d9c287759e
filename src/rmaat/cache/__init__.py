"""Key-value caches with a fixed budget, for causal language models of transformers.

    from rmaat.cache import ZeroMergeCache, attach

    attach(model)  # once
    model.generate(**inputs, past_key_values=ZeroMergeCache(budget=512))

`base.py` stores the entries, `attention.py` connects them with transformers. Each rule has a file:
its plain reference, the fast form, and the cache.
"""

from rmaat.cache.attention import attach
from rmaat.cache.base import BudgetCache
from rmaat.cache.keydiff import KeyDiffCache, reference_key_diff
from rmaat.cache.nested import NestedKVCache, reference_nested_kv
from rmaat.cache.snapkv import SnapKVCache, reference_snap_kv
from rmaat.cache.streaming import StreamingCache, reference_streaming
from rmaat.cache.zeromerge import ZeroMergeCache, reference_zero_merge

__all__ = [
    "BudgetCache",
    "KeyDiffCache",
    "NestedKVCache",
    "SnapKVCache",
    "StreamingCache",
    "ZeroMergeCache",
    "attach",
    "reference_key_diff",
    "reference_nested_kv",
    "reference_snap_kv",
    "reference_streaming",
    "reference_zero_merge",
]
