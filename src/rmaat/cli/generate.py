"""Go on with a text: a language model of `rmaat pretrain --objective causal` writes what follows."""

import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from rmaat.errors import UserError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat generate`."""
    parser.add_argument("--model", type=Path, required=True, help="folder of a finished run")
    parser.add_argument(
        "prompt", nargs="?", default="-", help="the text to go on with; none or '-' means standard input"
    )
    parser.add_argument("--max_new_tokens", type=int, default=200, help="tokens to write")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 takes the most probable token each time")
    parser.add_argument("--top_p", type=float, default=1.0, help="draw among the most probable tokens of this share")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws")


def run(arguments: Namespace) -> None:
    """Print the text token by token."""
    for name, valid, allowed in (
        ("max_new_tokens", arguments.max_new_tokens >= 1, "at least 1"),
        ("temperature", arguments.temperature >= 0, "at least 0"),
        ("top_p", 0 < arguments.top_p <= 1, "above 0 and at most 1"),
    ):
        if not valid:
            raise UserError(f"{name} must be {allowed}, got {arguments[name]}")
    from rmaat.training.run_folder import check_is_run

    # Before the imports below, which take seconds.
    check_is_run(arguments.model)
    from rmaat.training.language import open_language_run, write_on
    from rmaat.training.run import device

    language = open_language_run(arguments.model)
    language.model.to(device())
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    drawn = {"do_sample": True, "temperature": arguments.temperature, "top_p": arguments.top_p, "top_k": 0}
    settings = drawn if arguments.temperature else {"do_sample": False}
    write_on(language, prompt, arguments.max_new_tokens, arguments.seed, **settings)
