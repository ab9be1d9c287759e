"""LoRA by the package peft, on models with replay."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from rmaat import RmaatForTokenClassification

peft = pytest.importorskip("peft")


def with_lora(model, task_type="SEQ_CLS", target_modules="all-linear", **settings):
    torch.manual_seed(0)
    config = peft.LoraConfig(
        task_type=task_type, target_modules=target_modules, r=2, init_lora_weights=False, **settings
    )
    return peft.get_peft_model(model, config)


def test_a_step_saved_and_loaded_gives_equal_logits(make_model, ragged, tmp_path):
    base = make_model()
    base.save_pretrained(tmp_path / "base")
    model = with_lora(base).double()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert 0 < sum(p.numel() for p in trained) < 0.5 * sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.SGD(trained, 0.1)
    before = base(**ragged).logits
    model(**ragged).loss.backward()
    optimizer.step()
    model.eval()
    wanted = model(**ragged).logits
    assert not torch.equal(wanted, before)
    model.save_pretrained(tmp_path / "lora")
    fresh = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", dtype=torch.float64)
    loaded = peft.PeftModel.from_pretrained(fresh, tmp_path / "lora").double().eval()
    torch.testing.assert_close(loaded(**ragged).logits, wanted)
    merged = loaded.merge_and_unload()
    torch.testing.assert_close(merged(**ragged).logits, wanted, rtol=1e-10, atol=1e-12)


def test_replay_gives_the_gradient_of_full_backpropagation(make_model, ragged):
    gradients = []
    for replay in (True, False):
        model = with_lora(make_model(memory_replay_backprop=replay)).double()
        torch.manual_seed(3)
        model(**ragged).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    assert sum("lora" in name for name in gradients[1]) > 8
    for name, grad in gradients[1].items():
        assert grad.norm() > 0, name
        assert (gradients[0][name] - grad).norm() <= 1e-12 * grad.norm(), name


def test_token_classes_have_lora_too(make_model, ragged):
    model = with_lora(RmaatForTokenClassification(make_model().config), "TOKEN_CLS", ["expand", "contract"]).double()
    out = model(ragged["input_ids"], ragged["attention_mask"], labels=ragged["input_ids"] % 5)
    out.loss.backward()
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    # The head is trained whole.
    assert any("token_classifier.modules_to_save" in name for name in trained)
    assert all(dict(model.named_parameters())[name].grad.norm() > 0 for name in trained)


def test_dropout_inside_lora_is_refused_with_replay(make_model, ragged):
    model = with_lora(make_model(), lora_dropout=0.1).double()
    with pytest.raises(ValueError, match=r"lora_dropout.* draws random numbers, .*set its dropout \(lora_dropout"):
        model(**ragged)
    model.eval()
    model(**ragged).loss.backward()
