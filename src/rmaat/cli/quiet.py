"""Leaving the terminal to this project's own bars."""


def hide_progress_of_transformers() -> None:
    """No bars for loading and writing weights, which take an instant here."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
