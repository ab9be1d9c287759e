"""The base class of the models that have a head on top of `RmaatModel`."""

from torch import nn

from rmaat.backprop import Backprop
from rmaat.models.pretrained import RmaatPreTrainedModel
from rmaat.models.recurrent import RmaatModel


class RmaatPreTrainedHead(RmaatPreTrainedModel):
    """The base class of models that have a head on top of `rmaat`."""

    rmaat: RmaatModel

    @property
    def backprop(self) -> Backprop:
        """The object that runs the loop over segments, see `RmaatModel.backprop`."""
        return self.rmaat.backprop

    @backprop.setter
    def backprop(self, backprop: Backprop | None) -> None:
        self.rmaat.backprop = backprop

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the map from features to the ids of masked tokens, if there is one."""
        return self.rmaat.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """Replace the map to the ids of masked tokens."""
        self.rmaat.set_output_embeddings(value)
