import torch

from diptych.models import vilbert_tiny
from diptych.tasks.objectives import Confounders, Interventions, Sample
from diptych.types import Encoding, Inputs, PaddedRegions, PaddedText


def test_nouns_that_show_and_regions_that_show_are_asked(monkeypatch):
    torch.manual_seed(0)
    model = vilbert_tiny()
    objective = Interventions(
        model,
        seen=Confounders(vectors=torch.randn(4, 64), prior=torch.full((4,), 0.25)),
        known=Confounders(vectors=torch.randn(3, 48), prior=torch.full((3,), 0.25)),
        nouns=(20, 21),
    )
    assert not any("vectors" in name or "prior" in name for name in objective.state_dict())
    ids = torch.tensor([[2, 20, 7, 21, 20, 0]])
    text = PaddedText(ids=ids, mask=ids > 0, segments=torch.zeros_like(ids))
    regions = PaddedRegions(
        features=torch.randn(1, 4, 64),
        boxes=torch.rand(1, 4, 4),
        mask=torch.tensor([[True, True, True, False]]),
        image_index=torch.zeros(1, 4, dtype=torch.int64),
        sizes=torch.ones(1, 2),
        hidden=torch.tensor([[False, True, False, False]]),
        probabilities=torch.full((1, 4, 4), 0.25),
    )
    words = torch.tensor([[-1, -1, -1, 21, -1, -1]])
    asked = {}
    ask = objective.losses

    def keep(model, encoding, words, probabilities, shown):
        asked.update(words=words.tolist(), shown=shown.tolist())
        return ask(model, encoding, words, probabilities, shown)

    monkeypatch.setattr(objective, "losses", keep)
    encoding = Encoding(text=torch.randn(1, 6, 48), regions=torch.randn(1, 4, 48))
    losses = objective(model, encoding, Sample(inputs=Inputs(text=text, regions=regions), words=words))
    assert asked == {"words": [[-1, 20, -1, -1, 20, -1]], "shown": [[True, False, True, False]]}
    assert tuple(losses) == objective.parts
