"""Lines that `rmaat train` prints at its end."""

import pytest

from rmaat.cli.train import calibration_lines


@pytest.mark.parametrize(
    ("loss", "note"),
    [
        (0.005, None),
        (0.1056, "probabilities softened: only 10 validation examples"),
        (0.69, "the probabilities are near those of a guess: the model has learned too little"),
    ],
)
def test_the_temperature_comes_with_what_it_means(loss, note):
    record = {"temperatures": [[1, 4.0], [9, 2.7]], "uncalibrated_eval_loss": 0.007, "guess_loss": 0.6931}
    record["label_threshold"] = None
    metrics = {"calibration": record, "eval_loss": loss, "data": {"validation": {"examples": 10}}}
    line, *notes = calibration_lines(metrics)
    assert line.split()[:3] == ["temperature", "2.7000", "(4.0000"]
    assert f"validation loss {loss:.4f} instead of 0.0070" in line
    assert notes == ([note] if note else [])
    record["label_threshold"] = 0.31
    assert calibration_lines(metrics)[1].split()[:2] == ["threshold", "0.3100"]
