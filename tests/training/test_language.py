"""A language model of one's own text: trained, measured by the place in a text, and let to write."""

import gzip
import json
import lzma
import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from rmaat.cli.main import main

SENTENCE = "The river was grey and still. "


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    (folder / "text.txt").write_text(SENTENCE * 300)
    small = "--max_seq_len 64 --num_segments 4 --hidden_size 16 --num_hidden_layers 1 --num_attention_heads 2"
    steps = "--max_steps 60 --eval_steps 60 --warmup_steps 5 --learning_rate 0.02 --torch_compile false --bf16 false"
    command = (
        f"pretrain --recipe texts --train_file {folder / 'text.txt'} {small} {steps} --output_dir {folder / 'run'}"
    )
    assert main(command.split()) == 0
    return folder


def test_it_learns_the_text(folder):
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert metrics["objective"] == "causal"
    assert metrics["eval_loss"] < 0.5


def test_bits_are_those_of_the_logits_of_a_text_longer_than_trained_on(folder, capsys):
    text = SENTENCE * 20 + "An owl slept."
    (folder / "new.txt").write_text(text)
    command = f"evaluate --model {folder / 'run'} --test_file {folder / 'new.txt'} --output {folder / 'out'}"
    assert main(command.split()) == 0
    record = json.loads((folder / "out" / "evaluation.json").read_text())
    ids = torch.tensor([list(text.encode())])
    logits = AutoModelForCausalLM.from_pretrained(folder / "run").eval()(ids).logits[0].detach().double()
    bits = [-math.log2(logits[i - 1].softmax(-1)[ids[0, i]]) for i in range(1, len(text))]
    assert record["bits_per_byte"] == pytest.approx(sum(bits) / len(text), rel=1e-4)
    (first, second, third) = record["by_place"]
    assert (first["first"], first["last"], first["tokens"]) == (0, 255, 256)
    assert (second["first"], third["first"], third["tokens"]) == (256, 512, len(text) - 512)
    assert second["bits_per_byte"] == pytest.approx(sum(bits[255:511]) / 256, rel=1e-4)
    assert f"{record['bits_per_byte']:.4f}" in capsys.readouterr().out


def test_it_is_compared_with_programs_that_compress(folder, capsys):
    text = SENTENCE * 20 + "An owl slept."
    (folder / "read.txt").write_text(text)
    output = folder / "compared"
    command = (
        f"compare context --texts {folder / 'read.txt'} --output {output} --device cpu --tasks --runs {folder / 'run'}"
    )
    assert main(command.split()) == 0
    run, by_gzip, by_xz = json.loads((output / "context.json").read_text())["readers"]
    assert main(f"evaluate --model {folder / 'run'} --test_file {folder / 'read.txt'} --output {output}".split()) == 0
    alone = json.loads((output / "evaluation.json").read_text())
    assert (run["bits_per_byte"], run["by_place"]) == (alone["bits_per_byte"], alone["by_place"])
    assert by_gzip["bits_per_byte"] == 8 * len(gzip.compress(text.encode(), 9)) / len(text)
    assert by_xz["bits_per_byte"] == 8 * len(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)) / len(text)
    assert (output / "by_place.png").stat().st_size > 10_000
    assert "gzip -9" in capsys.readouterr().out


def test_it_goes_on_with_a_prompt(folder, capsys):
    command = ["generate", "--model", str(folder / "run"), SENTENCE + "The ri", "--max_new_tokens", "40"]
    assert main([*command, "--temperature", "0"]) == 0
    assert capsys.readouterr().out.startswith("ver was grey")
    drawn = []
    for seed in ("1", "1", "2"):
        assert main([*command, "--temperature", "3", "--seed", seed]) == 0
        drawn.append(capsys.readouterr().out)
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("evaluate --model RUN", "give --test_file"),
        ("evaluate --model RUN --test_file missing.txt", "missing.txt"),
        ("generate --model RUN --max_new_tokens 0 a", "max_new_tokens must be at least 1"),
        ("generate --model RUN --top_p 0 a", "top_p must be above 0"),
        ("generate --model missing a", "is not a run"),
        ("predict --model RUN a", "RUN"),
    ],
)
def test_mistakes_are_one_line(words, message, folder, capsys):
    run = str(folder / "run")
    assert main([run if word == "RUN" else word for word in words.split()]) == 2
    captured = capsys.readouterr().err
    assert message.replace("RUN", run) in captured
    assert captured.count("\n") == 1


def test_an_empty_prompt_and_a_classifier_are_refused(folder, own_text_run, capsys):
    assert main(["generate", "--model", str(folder / "run"), ""]) == 2
    assert "the text is empty" in capsys.readouterr().err
    assert main(["generate", "--model", str(own_text_run), "a"]) == 2
    assert "is no language model: its objective is 'labels'" in capsys.readouterr().err
