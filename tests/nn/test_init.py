import torch
from torch import nn

from diptych.nn import init_bert


def test_bert_initialization():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(500, 64, padding_idx=3), nn.Linear(64, 300), nn.LayerNorm(300))
    nn.init.constant_(module[2].weight, 5)
    init_bert(module, std=0.1)
    assert module[0].weight[3].all(), "a padding row is random like any other, as in the originals"
    assert abs(module[0].weight.std().item() - 0.1) < 0.002
    assert abs(module[1].weight.std().item() - 0.1) < 0.002
    assert not module[1].bias.any()
    assert (module[2].weight == 1).all()
    assert not module[2].bias.any()
