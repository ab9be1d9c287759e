"""Settings that keep other packages' progress bars off the terminal."""


def hide_progress_of_transformers() -> None:
    """Hide transformers' bars for loading and writing weights, which take only an instant here."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
