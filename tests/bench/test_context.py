"""`rmaat compare context`: prompts, scores against a plain reading of the same tokens, files, mistakes."""

import json
import random
import re
from itertools import chain

import pytest
import torch
from tests.cache.models import llama
from transformers import AutoModelForCausalLM

from rmaat.bench.context import Budget, LanguageModel, budgets_of, measure_caches
from rmaat.bench.context_prompts import CHAT, CHAT_SIGN, TASKS, prompt_of
from rmaat.cache import attach
from rmaat.cli.main import main
from rmaat.tasks.tokenizer import byte_tokenizer

TEXT = "A barge went by. Nobody waved. " * 60
TOKENIZER = byte_tokenizer(10**6)


def prompt(task, length=600, depth=0.5, seed=0, tokenizer=TOKENIZER):
    return prompt_of(TASKS[task], TEXT, length, depth, tokenizer, random.Random(seed), 8)


@pytest.mark.parametrize("task", ["needle", "needle_later", "needles_later"])
def test_a_prompt_has_its_length_and_the_number_that_is_asked_for(task):
    for seed in range(5):
        made = prompt(task, seed=seed)
        assert sum(map(len, made.turns)) == 600
        assert len(made.turns) == 1 + TASKS[task].later
        text, answer = TOKENIZER.decode([*chain(*made.turns)]), TOKENIZER.decode(made.answer)
        city = text.rsplit(" is", 1)[0].rsplit(" ", 1)[1]
        assert f"The secret number of {city} is{answer}." in text
        assert len(re.findall(r" is \d{5}\.", text)) == TASKS[task].needles
        # No sentence is cut.
        assert text.split(f" The secret number of {city}")[0].endswith(".")
    assert prompt(task) == prompt(task)


def test_the_depth_is_the_place_of_the_number():
    texts = [TOKENIZER.decode(prompt("needle_later", depth=depth).turns[0]) for depth in (0, 0.5, 1)]
    places = [text.index(" The secret number") for text in texts]
    assert places[0] == 0
    assert 200 < places[1] < 300
    assert texts[2].endswith(prompt_number(texts[2]) + ".")


def prompt_number(text):
    return text.rsplit(" is ", 1)[1][:5]


def test_a_chat_model_has_the_signs_of_its_turns():
    tokenizer = byte_tokenizer(10**6)
    tokenizer.add_tokens([CHAT_SIGN])
    text = tokenizer.decode([*chain(*prompt("needle", tokenizer=tokenizer).turns)])
    assert text.startswith(CHAT[0])
    assert CHAT[1] in text


def test_an_answer_of_a_text_is_what_follows():
    made = prompt("text", length=40)
    assert TOKENIZER.decode(made.turns[0] + made.answer) in TEXT * 2
    assert (len(made.turns[0]), len(made.answer)) == (40, 8)


@pytest.mark.parametrize("task", ["needle_later", "text"])
def test_scores_are_those_of_a_plain_reading(task):
    model = llama(dtype=torch.float64, vocab_size=256)
    language = LanguageModel("tiny", model, TOKENIZER)
    budgets = [Budget("full", 1.0), *(Budget(name, 1.5) for name in ("keydiff", "zeromerge")), Budget("streaming", 0.2)]
    scores = measure_caches(language, [TEXT], TASKS[task], 300, budgets, 2, 3, 8)
    made = []
    for seed in range(2):
        draw = random.Random(seed)
        for depth in (0.0, 0.5, 1.0) if task != "text" else (0.0,):
            made.append(prompt_of(TASKS[task], TEXT, 300, depth, TOKENIZER, draw, 8))
    losses = []
    for one in made:
        ids = torch.tensor([[*chain(*one.turns), *one.answer]])
        logits = model(ids).logits[0, -len(one.answer) - 1 : -1].double()
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(one.answer)).item())
    # The first three caches hold everything.
    for score in scores[:3]:
        assert score.loss == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    assert scores[3].loss != pytest.approx(scores[0].loss, rel=1e-4)
    # Two layers of two heads of keys and values of width 8.
    assert scores[0].held_bytes == 2 * 2 * 2 * 8 * 8 * (300 + len(made[0].answer) - 1)
    assert scores[3].held_bytes < scores[0].held_bytes
    assert (scores[0].accuracy is None) == (task == "text")
    assert len(scores[0].accuracy_by_depth) == (3 if task != "text" else 0)


def test_the_full_cache_has_no_share():
    assert budgets_of(["full", "snapkv"], [0.1, 0.5]) == [
        Budget("full", 1.0),
        Budget("snapkv", 0.1),
        Budget("snapkv", 0.5),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("context")
    llama(dtype=torch.float32, attached=False, vocab_size=256).save_pretrained(folder / "tiny")
    TOKENIZER.save_pretrained(folder / "tiny")
    (folder / "text.txt").write_text(TEXT)
    return folder


def compared(folder, *more):
    sizes = "--lengths 250 --shares 0.5 --examples 1 --depths 2 --answer_tokens 4 --caches full streaming"
    files = ["--texts", str(folder / "text.txt"), "--model", str(folder / "tiny"), "--output", str(folder / "out")]
    return main(["compare", "context", *files, *sizes.split(), "--device", "cpu", *more])


def test_from_flags_to_files_and_on(folder, capsys, monkeypatch):
    assert compared(folder, "--tasks", "needle_later") == 0
    told = capsys.readouterr().out
    assert "## needle_later, 250 tokens" in told
    record = json.loads((folder / "out" / "context.json").read_text())
    assert [row["cache"] for row in record["caches"]] == ["full", "streaming"]
    assert record["commit"]
    assert (folder / "out" / "needle_later.png").stat().st_size > 10_000
    assert compared(folder, "--tasks", "needle_later", "text") == 0
    told = capsys.readouterr()
    assert "needle_later, 250" in told.out
    assert "perplexity" in told.out
    # The stored cells are not measured again: the model is not even loaded.
    monkeypatch.setattr("rmaat.bench.context.load_language_model", None)
    assert compared(folder, "--tasks", "text", "needle_later") == 0
    assert len(json.loads((folder / "out" / "context.json").read_text())["caches"]) == 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--tasks", "needel"], "--tasks: there is no 'needel'; did you mean 'needle'"),
        (["--caches", "lru"], "--caches: there is no 'lru'"),
        (["--tasks"], "nothing to compare: name --tasks or --runs"),
        (["--examples", "0"], "--examples must be at least 1"),
        (["--shares", "0"], "--shares must be above 0"),
        (["--dtype", "int8"], "--dtype must be float32 or bfloat16"),
        (["--lengths", "60"], "a prompt of 60 tokens has no room for the text"),
        (["--lengths", "505", "--tasks", "text", "--answer_tokens", "9"], "tiny reads 512 tokens"),
        (["--lengths", "5"], "budget 2 is below 5"),
        (["--texts", "missing.txt"], "missing.txt"),
        (["--model", "no/model"], "--model 'no/model' is neither a folder"),
    ],
)
def test_mistakes_are_one_line(folder, capsys, tmp_path, more, message):
    assert compared(folder, "--output", str(tmp_path), *more) == 2
    told = capsys.readouterr().err
    assert message in told.splitlines()[-1]


def test_a_record_of_other_settings_is_not_continued(folder, capsys):
    assert compared(folder, "--tasks", "text", "--output", str(folder / "other")) == 0
    assert compared(folder, "--tasks", "text", "--output", str(folder / "other"), "--answer_tokens", "5") == 2
    assert "was made with other settings: answer_tokens is 5 instead of 4" in capsys.readouterr().err


def test_a_model_of_transformers_is_loaded_with_its_tokenizer(folder):
    model = AutoModelForCausalLM.from_pretrained(folder / "tiny")
    attach(model)
    assert model.config.vocab_size == 256
