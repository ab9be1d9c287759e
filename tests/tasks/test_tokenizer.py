"""The tokenizers that are stored beside a model."""

import random
import subprocess
import sys

import pytest
from tokenizers import Tokenizer, processors
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rmaat.tasks.tokenizer import byte_tokenizer, load_tokenizer


@pytest.mark.parametrize("separator", [None, 256])
def test_the_ids_of_any_text_are_its_bytes(tmp_path, separator):
    byte_tokenizer(100, separator).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    dice = random.Random(0)
    points = [dice.choice((dice.randrange(0xD800), dice.randrange(0xE000, 0x110000))) for _ in range(2000)]
    # Texts that hold the name of a special token, too.
    for text in ("Ā", "a Ā b", "<separator>x", " a  b\r\n\t\0é", "".join(map(chr, points)), *map(chr, range(300))):
        ids = tokenizer(text)["input_ids"]
        assert ids == list(text.encode()), text[:20]
        assert tokenizer.decode(ids) == text
    batch = tokenizer(["a", "abc"], padding=True)
    assert batch["input_ids"] == [[97, 0, 0], [97, 98, 99]]
    assert batch["attention_mask"] == [[1, 0, 0], [1, 1, 1]]
    assert tokenizer("x" * 200, truncation=True)["input_ids"] == [120] * 100
    if separator is not None:
        assert tokenizer("ab", "c")["input_ids"] == [97, 98, 256, 99]


def test_the_tokenizer_loads_without_this_package(tmp_path):
    byte_tokenizer(100).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "rmaat"}')
    script = (
        "import sys; sys.modules['rmaat'] = None; from transformers import AutoTokenizer; "
        f"assert AutoTokenizer.from_pretrained({str(tmp_path)!r})('é')['input_ids'] == [195, 169]"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_tokenizer_adds_no_special_tokens(tmp_path):
    backend = Tokenizer(WordLevel({"[UNK]": 0, "[CLS]": 1, "a": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", cls_token="[CLS]").save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("a a")["input_ids"] == [1, 2, 2]
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer("a a")["input_ids"] == tokenizer("a a", add_special_tokens=False)["input_ids"] == [2, 2]
    assert tokenizer.cls_token == "[CLS]"
