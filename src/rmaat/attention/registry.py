"""The token mixers by name, each with the settings that it owns. Knows nothing of torch.

A new attention needs a file with its module in this folder, and here its settings and one entry. An
attention of another package needs an `Attention` named by an entry point of the group
`rmaat.attention`, and can use the settings that are here.
"""

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from rmaat.registry import Registry
from rmaat.values import OddWidth, OneOf, Range, Width

ATTENTION_DECAYS = ("none", "fixed", "learned")

GROUP = "rmaat.attention"
"""The entry point group through which other packages add attentions."""


@dataclass(kw_only=True)
class MixerSettings:
    """The settings of one token mixer; this one has none.

    Ranges are those within which float32 gives finite losses and gradients.
    """


@dataclass(kw_only=True)
class AstroSettings(MixerSettings):
    """The settings of astromorphic attention.

    Args:
        calcium_exponent: alpha of the calcium response g [A: 0.25 of 0.15 to 0.4 tested].
        hebbian_scale: divisor of the Hebbian weights: 'auto', a number, or null [P: null]. With
            'auto' the weights of a reading sum to about 1 for every length of a segment; null means
            the width of a head.
        position_decay: scale of exp(-scale |i - j|) in the astrocyte's relative positions [C].
        basis_stride: neighbouring positions that share a column of the matrix M [C]. M makes the
            astrocyte's relative positions.
        hebbian_astro: add the astrocyte's Hebbian weights H_astro [P]. Without them there are no
            relative positions.
        hebbian_sigmoid: apply a sigmoid to the Hebbian weights [A; P has none].
        presynaptic_plasticity: divide by the calcium response C [P].
        attention_decay: decay of attention with the distance of two tokens: 'none' [P], 'fixed' or
            'learned' [C]. Each head has a rate; half-lives begin at 4 tokens to a segment. The first
            head has no decay, nor has the memory.
        reading_norm: divide each head's reading by its root mean square, not by C [C].
        unit_features: divide the features of each query and key by their length [C].
        rotary_positions: rotate the features of queries and keys by their positions [C].
    """

    calcium_exponent: Annotated[float, Range(most=4, above=0)] = 0.25
    hebbian_scale: Annotated[float, Range(1e-6, 1e9)] | Literal["auto"] | None = "auto"
    position_decay: Annotated[float, Range(0, 1e6)] = 0.1
    basis_stride: Width = 1
    hebbian_astro: bool = True
    hebbian_sigmoid: bool = False
    presynaptic_plasticity: bool = True
    attention_decay: Annotated[str, OneOf(ATTENTION_DECAYS)] = "none"
    reading_norm: bool = False
    unit_features: bool = False
    rotary_positions: bool = False


@dataclass(kw_only=True)
class NystromformerSettings(MixerSettings):
    """The settings of Nyström attention.

    Args:
        num_landmarks: nystromformer: most landmarks of a segment.
        conv_kernel_size: nystromformer: positions that the convolution of values spans, odd.
    """

    num_landmarks: Width = 64
    conv_kernel_size: OddWidth = 33


@dataclass(kw_only=True)
class LinformerSettings(MixerSettings):
    """The settings of Linformer's attention.

    Args:
        linformer_size: linformer: learned sums over positions that are attended to.
    """

    linformer_size: Width = 64


@dataclass(kw_only=True)
class PerformerSettings(MixerSettings):
    """The settings of Performer's attention.

    Args:
        num_random_features: performer: random features; null means m ln m for heads of width m.
    """

    num_random_features: Width | None = None


@dataclass(kw_only=True)
class VlaSettings(MixerSettings):
    """The settings of variational linear attention.

    Args:
        ridge_penalty: vla: lambda of the least squares [C].
    """

    ridge_penalty: Annotated[float, Range(1e-4, 1e9)] = 1.0


@dataclass(kw_only=True)
class S4DSettings(MixerSettings):
    """The settings of the diagonal state space.

    Args:
        state_size: s4d: states of each feature, even.
    """

    state_size: Annotated[int, Range(2, 2**16, parity="even")] = 64


@dataclass(frozen=True, kw_only=True)
class Attention:
    """A token mixer, as far as settings, messages and listings need to know it.

    Attributes:
        module: the place "package.module:Class" of its module, a `rmaat.attention.base.Mixer`.
        summary: one line, with the source.
        ordered: whether the order of positions makes a difference, by a convolution, a recurrence
            or relative positions.
        ordered_by: the settings without all of which the order makes no difference; none if it always
            makes one.
        causal: whether its module is a `rmaat.attention.base.CausalMixer`.
        packs_memory: whether it writes the tokens into the memory positions itself. It then needs
            memory tokens, and they stand at the front.
        settings: the class of the settings that it owns; one that `AttentionSettings` inherits.
        switches: settings among them that change nothing in another attention, and so are refused
            there unless they have their defaults.
    """

    module: str
    summary: str
    ordered: bool = False
    ordered_by: tuple[str, ...] = ()
    causal: bool = False
    packs_memory: bool = False
    settings: type[MixerSettings] = MixerSettings
    switches: tuple[str, ...] = ()

    @property
    def setting_names(self) -> tuple[str, ...]:
        """The names of the settings that it owns."""
        return tuple(field.name for field in fields(self.settings))

    def sees_order(self, settings: MixerSettings) -> bool:
        """Whether the order of positions makes a difference under these settings."""
        switched_on = (getattr(settings, name) not in (False, "none") for name in self.ordered_by)
        return self.ordered and (not self.ordered_by or any(switched_on))


BUILT_IN: dict[str, Attention] = {
    "astro": Attention(
        module="rmaat.attention.astro_mixer:AstromorphicMixer",
        summary="linear attention with an astrocyte and presynaptic plasticity (arXiv 2601.00426)",
        causal=True,
        ordered=True,
        ordered_by=("hebbian_astro", "attention_decay", "rotary_positions"),
        settings=AstroSettings,
        switches=(
            *("hebbian_astro", "hebbian_sigmoid", "presynaptic_plasticity"),
            *("attention_decay", "reading_norm", "unit_features", "rotary_positions"),
        ),
    ),
    "softmax": Attention(
        module="rmaat.attention.softmax:SoftmaxMixer",
        summary="softmax attention (arXiv 1706.03762)",
        causal=True,
    ),
    "linear": Attention(
        module="rmaat.attention.linear:LinearMixer",
        summary="linear attention, elu + 1 (arXiv 2006.16236)",
        causal=True,
    ),
    "nystromformer": Attention(
        module="rmaat.attention.nystromformer:NystromMixer",
        summary="softmax attention through landmarks, and a convolution (arXiv 2102.03902)",
        ordered=True,
        settings=NystromformerSettings,
    ),
    "linformer": Attention(
        module="rmaat.attention.linformer:LinformerMixer",
        summary="softmax attention to learned sums over positions (arXiv 2006.04768)",
        settings=LinformerSettings,
    ),
    "performer": Attention(
        module="rmaat.attention.performer:PerformerMixer",
        summary="softmax attention by positive random features (arXiv 2009.14794)",
        settings=PerformerSettings,
    ),
    "luna": Attention(
        module="rmaat.attention.luna:LunaMixer",
        summary="attention packed into the memory tokens and unpacked (arXiv 2106.01540)",
        packs_memory=True,
    ),
    "vla": Attention(
        module="rmaat.attention.vla:VariationalMixer",
        summary="linear attention by recursive least squares (arXiv 2605.11196)",
        causal=True,
        ordered=True,
        settings=VlaSettings,
    ),
    "s4d": Attention(
        module="rmaat.attention.s4d:S4DMixer",
        causal=True,
        summary="diagonal state space in both directions (arXiv 2206.11893)",
        ordered=True,
        settings=S4DSettings,
    ),
}
"""The attentions of this package, in the order of the docs."""

ATTENTION: Registry[Attention] = Registry(
    "attention_type",
    {**BUILT_IN},
    group=GROUP,
    entry_type=Attention,
)
"""All attentions: those of this package and, by entry points, of others."""


@dataclass(kw_only=True)
class AttentionSettings(
    AstroSettings,
    NystromformerSettings,
    LinformerSettings,
    PerformerSettings,
    VlaSettings,
    S4DSettings,
):
    """The settings of all attentions of this package, flat."""
