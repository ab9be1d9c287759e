"""The attentions by name, with their settings, and those that other packages add."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from rmaat.attention import ATTENTION, Attention
from rmaat.attention.base import Mixer
from rmaat.attention.registry import BUILT_IN, GROUP, AttentionSettings, MixerSettings
from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.registry import Registry, import_object
from rmaat.settings import ModelSettings

MODULE = """
import torch
from torch import nn

from rmaat.attention import Attention
from rmaat.attention.base import Mixer

MEAN = Attention(
    module="mean_attention:MeanMixer", summary="the mean of all tokens", ordered=False
)


class MeanMixer(Mixer):
    def __init__(self, settings):
        super().__init__(settings)
        self.output = nn.Linear(settings.hidden_size, settings.hidden_size)

    def forward(self, x_BND, mask_BN, shared):
        weight_BN1 = mask_BN[..., None] / mask_BN.sum(1).clamp_min(1)[:, None, None]
        return self.output((weight_BN1 * x_BND).sum(1, keepdim=True)).expand_as(x_BND)


NO_ATTENTION = object()
NO_MIXER = Attention(module="mean_attention:nn", summary="")
MISSING = Attention(module="mean_attention:Nothing", summary="")


class OtherSettings(MEAN.settings):
    pass


UNKNOWN_SETTINGS = Attention(
    module="mean_attention:MeanMixer", summary="", settings=OtherSettings
)
"""

ENTRIES = """
[rmaat.attention]
mine = mean_attention:MEAN
no_attention = mean_attention:NO_ATTENTION
no_module = no_such_module:MEAN
no_mixer = mean_attention:NO_MIXER
missing = mean_attention:Nothing
missing_mixer = mean_attention:MISSING
unknown_settings = mean_attention:UNKNOWN_SETTINGS
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder that holds a package as installed: its module and its metadata."""
    folder = tmp_path / "packages"
    metadata = folder / "mean_attention-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / "mean_attention.py").write_text(MODULE)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mean-attention\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRIES)
    return folder


@pytest.mark.slow
def test_an_attention_of_another_package_trains_from_the_command_line(package, listops_dir, tmp_path):
    output = tmp_path / "run"
    settings = (
        "--dataset listops_short --max_seq_len 192 --num_segments 3 --hidden_size 16 --num_hidden_layers 1 "
        "--num_attention_heads 2 --intermediate_size 16 --max_steps 2 --eval_steps 2 --logging_steps 1 "
        "--per_device_train_batch_size 4 --eval_examples 8 --test_examples 8 --attention_type mine"
    )
    folders = "--data_dir", str(listops_dir), "--output_dir", str(output)
    path = os.pathsep.join([str(package), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "rmaat", "train", *settings.split(), *folders],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "attention_type: mine" in (output / "run.yaml").read_text()


@pytest.fixture
def discovered(package, monkeypatch):
    """The attentions in this process, with those of the package."""
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.delitem(sys.modules, "mean_attention", raising=False)
    registry = Registry("attention_type", {**BUILT_IN}, group=GROUP, entry_type=Attention)
    for module in ("rmaat.settings", "rmaat.attention.base", "rmaat.cli.list"):
        monkeypatch.setattr(f"{module}.ATTENTION", registry)
    yield registry
    sys.modules.pop("mean_attention", None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mihe", "unknown attention_type 'mihe'; did you mean 'mine'"),
        ("no_attention", "'no_attention' of the package 'mean-attention': .* not a rmaat.attention.registry.Attention"),
        ("no_module", "of the package 'mean-attention' cannot be imported .* No module named 'no_such_module'"),
        ("missing", "of the package 'mean-attention' cannot be imported .*Nothing"),
        ("unknown_settings", "has settings of the class OtherSettings, which a run config lacks"),
    ],
)
def test_mistakes_of_other_packages_are_named_when_their_attention_is_asked_for(discovered, name, message):
    with pytest.raises(UserError, match=message):
        ModelSettings(attention_type=name).check_model()
    ModelSettings(attention_type="mine").check_model()


@pytest.mark.parametrize(
    ("name", "message"),
    [("no_mixer", "is no subclass of rmaat.attention.base.Mixer"), ("missing_mixer", "cannot be imported")],
)
def test_a_module_that_is_no_mixer_is_refused(discovered, name, message):
    from rmaat.attention.base import build_mixer

    with pytest.raises(UserError, match=message):
        build_mixer(ModelSettings(attention_type=name))


def test_a_name_of_this_package_cannot_be_taken(discovered, package):
    points = package / "mean_attention-1.0.dist-info" / "entry_points.txt"
    points.write_text("[rmaat.attention]\nastro = mean_attention:MEAN\n")
    assert discovered["astro"] is BUILT_IN["astro"]
    for _ in range(2):
        with pytest.raises(UserError, match="'mean-attention' registers attention_type 'astro', which is taken"):
            discovered.names()


def test_the_listing_names_all_and_says_which_are_broken(discovered, capsys):
    assert main(["list", "attention"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{'mine':<16}the mean of all tokens" in lines
    (broken,) = (line for line in lines if line.startswith("no_module"))
    assert "No module named 'no_such_module'" in broken
    (before,) = (place for place, line in enumerate(lines) if line.startswith("nystromformer "))
    assert lines[before + 1] == "    specific: num_landmarks, conv_kernel_size"


def test_an_unknown_name_is_one_line_with_the_nearest(capsys):
    assert main(["train", "--attention_type", "softmx"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "unknown attention_type 'softmx'; did you mean 'softmax'?" in message


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_entry_is_complete(name):
    attention = ATTENTION[name]
    assert issubclass(import_object(attention.module), Mixer)
    assert issubclass(AttentionSettings, attention.settings)
    assert set(attention.switches) <= set(attention.setting_names)
    assert set(attention.ordered_by) <= set(attention.setting_names)
    assert "arXiv" in attention.summary


def test_every_setting_of_an_attention_is_owned_by_one_entry():
    owned = [name for attention in BUILT_IN.values() for name in attention.setting_names]
    assert sorted(owned) == sorted(field.name for field in fields(AttentionSettings))
    assert MixerSettings not in (BUILT_IN[name].settings for name in ("astro", "vla"))


def test_the_order_of_positions_matters_to_astro_through_its_relative_positions():
    astro = ATTENTION["astro"]
    assert astro.sees_order(ModelSettings())
    assert not astro.sees_order(ModelSettings(hebbian_astro=False))
    assert not ATTENTION["softmax"].sees_order(ModelSettings())


def test_the_registry_knows_nothing_of_torch():
    script = "import sys, rmaat.attention; rmaat.attention.ATTENTION.names(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
