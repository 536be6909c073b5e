"""Folders that the transformers library saves, with the heads of its classes."""

import pytest
import torch
import transformers

from diptych.bundle import load_bundle
from diptych.convert import convert_checkpoint, read_weights, restore_checkpoint
from diptych.text import write_vocabulary
from diptych.text.tokenizer import SPECIAL_TOKENS

WORDS = 40
SMALL = {"vocab_size": WORDS, "hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 96}
LXMERT = {"l_layers": 1, "r_layers": 1, "x_layers": 1, "num_object_labels": 7, "num_attr_labels": 5}
LXMERT |= {"num_qa_labels": 9, "visual_feat_dim": 16}
VISUAL = {"num_hidden_layers": 2, "visual_embedding_dim": 16}


@pytest.mark.parametrize(
    ("name", "config", "settings", "family", "head"),
    [
        ("LxmertForPreTraining", "LxmertConfig", LXMERT, "lxmert", "pre-training"),
        ("LxmertForQuestionAnswering", "LxmertConfig", LXMERT, "lxmert", "answer_head.logit_fc"),
        ("LxmertModel", "LxmertConfig", LXMERT, "lxmert", None),
        ("VisualBertForPreTraining", "VisualBertConfig", VISUAL, "visualbert", "pre-training"),
        ("VisualBertForVisualReasoning", "VisualBertConfig", VISUAL, "visualbert", "cls"),
        ("VisualBertForMultipleChoice", "VisualBertConfig", VISUAL, "visualbert", "cls"),
        ("VisualBertModel", "VisualBertConfig", VISUAL, "visualbert", None),
        ("BertForMaskedLM", "BertConfig", {"num_hidden_layers": 2}, "bert", None),
        ("BertForSequenceClassification", "BertConfig", {"num_hidden_layers": 2}, "bert", None),
    ],
)
def test_saved_models_are_recognized(tmp_path, name, config, settings, family, head):
    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, config)(**SMALL, **settings))
    model.save_pretrained(tmp_path / "saved")
    write_vocabulary(
        tmp_path / "saved" / "vocab.txt", [*SPECIAL_TOKENS, *map(str, range(WORDS - len(SPECIAL_TOKENS)))]
    )
    report = convert_checkpoint(tmp_path / "saved", tmp_path / "bundle")
    assert report.family == family
    assert (report.head and report.head[0]) == head
    load_bundle(tmp_path / "bundle")
    restore_checkpoint(tmp_path / "bundle", tmp_path / "back.safetensors")
    given, back = read_weights(tmp_path / "saved"), read_weights(tmp_path / "back.safetensors")
    left_out = {key for names in report.dropped.values() for key in names}
    assert back.keys() == given.keys() - left_out
    assert all(torch.equal(one, given[key]) for key, one in back.items())
