"""The stages of a run: what may differ when it is resumed."""

from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from rmaat.errors import UserError
from rmaat.training.config import RunConfig
from rmaat.training.stages import MAY_DIFFER, STAGES, Stage, append_stage, check_same_run, read_stages

FORMER = Stage(0, asdict(RunConfig()), "0" * 16, 1, "rmaat train", "commit", "machine")


def changed(**settings: object) -> Stage:
    """Return the stage with other settings."""
    return replace(FORMER, step=5, settings={**FORMER.settings, **settings})


@pytest.mark.parametrize("name", [field.name for field in fields(RunConfig)])
def test_every_setting_is_compared_unless_it_is_listed(name):
    stage = changed(**{name: "another"})
    if name in MAY_DIFFER:
        check_same_run(stage, FORMER, Path("run"))
    else:
        with pytest.raises(
            UserError, match=f"resume: {name} is another instead of {FORMER.settings[name]}; the run in"
        ):
            check_same_run(stage, FORMER, Path("run"))


def test_a_setting_that_an_earlier_version_lacked_has_its_default():
    settings = {name: value for name, value in FORMER.settings.items() if name != "augmentation"}
    former = replace(FORMER, settings=settings)
    check_same_run(changed(augmentation=False), former, Path("run"))
    with pytest.raises(UserError, match="augmentation is True instead of False"):
        check_same_run(changed(augmentation=True), former, Path("run"))


def test_the_number_of_processes_the_data_and_the_workers_of_a_curriculum_are_compared():
    with pytest.raises(UserError, match="processes is 2 instead of 1"):
        check_same_run(replace(FORMER, processes=2), FORMER, Path("run"))
    with pytest.raises(UserError, match="the data of 'run' has changed"):
        check_same_run(replace(FORMER, data="1" * 16), FORMER, Path("run"))
    former = changed(curriculum=True)
    with pytest.raises(UserError, match="dataloader_num_workers is 2 instead of 0"):
        check_same_run(changed(curriculum=True, dataloader_num_workers=2), former, Path("run"))


def test_a_stage_replaces_those_that_begin_at_its_step_or_later(tmp_path):
    for step in (0, 4, 8, 6):
        append_stage(tmp_path, replace(FORMER, step=step))
    assert [stage.step for stage in read_stages(tmp_path)] == [0, 4, 6]
    append_stage(tmp_path, FORMER)
    assert read_stages(tmp_path) == [FORMER]


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"step": 0}]', "3", b"\xff"])
def test_damaged_stages_are_one_line(tmp_path, text):
    (tmp_path / STAGES).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=r"stages.json' is damaged, and without it"):
        read_stages(tmp_path)
    (tmp_path / STAGES).unlink()
    with pytest.raises(UserError, match=r"stages.json' is missing"):
        read_stages(tmp_path)
