"""Token mixers: what moves information between the positions of a segment, one file a family."""

from rmaat.layers.mixers.astromorphic import AstromorphicMixer
from rmaat.layers.mixers.base import AttentionMixer, Mixer
from rmaat.layers.mixers.linear import LinearMixer
from rmaat.layers.mixers.linformer import LinformerMixer
from rmaat.layers.mixers.luna import LunaMixer
from rmaat.layers.mixers.nystrom import NystromMixer
from rmaat.layers.mixers.performer import PerformerMixer
from rmaat.layers.mixers.s4d import S4DMixer
from rmaat.layers.mixers.softmax import SoftmaxMixer
from rmaat.layers.mixers.vla import VariationalMixer
from rmaat.registry import Registry

MIXERS: Registry[type[Mixer]] = Registry(
    "attention type",
    {
        "astro": AstromorphicMixer,
        "softmax": SoftmaxMixer,
        "linear": LinearMixer,
        "nystromformer": NystromMixer,
        "linformer": LinformerMixer,
        "performer": PerformerMixer,
        "luna": LunaMixer,
        "vla": VariationalMixer,
        "s4d": S4DMixer,
    },
)

__all__ = ["MIXERS", "AttentionMixer", "Mixer"]
