"""Pre-train a model without labels: it predicts masked tokens or values, or each next token.

Settings come as for `rmaat train`. `rmaat train --init_from` trains a classifier from the result.
"""

from jsonargparse import Namespace

from rmaat.cli import train
from rmaat.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the flags of `rmaat pretrain`, which are those of `rmaat train`."""
    train.add_arguments(parser)


def run(arguments: Namespace) -> None:
    """Pre-train and print the loss and the files."""
    train.run(arguments, pretrains=True)
