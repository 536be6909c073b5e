"""A study that stays in memory scores as one that is loaded for every meme."""

import pytest

from diptych.datasets import HatefulMemes
from diptych.errors import ConfigError
from diptych.images import open_image
from diptych.serve import Setup, load_model
from diptych.serve.regions import Meme
from diptych.study import score_meme


def test_a_study_is_loaded_and_fitted_once(finished, memes, monkeypatch):
    model = load_model("study", finished, Setup(device="cpu"))
    # Whatever is read or fitted from here on would be once per meme.
    monkeypatch.setattr("diptych.serve.models.load", None)
    monkeypatch.setattr("diptych.study.blended.fit_once", None)
    examples = [HatefulMemes(memes, "test_unseen")[number] for number in (1, 3)]
    prepared = [
        model.prepare(
            Meme(
                text=one.pairs[0].text,
                image=open_image(memes / one.pairs[0].files[0]),
                key=one.pairs[0].image,
            )
        )
        for one in examples
    ]
    together = model.score(prepared)
    for example, meme, among in zip(examples, prepared, together, strict=True):
        pair = example.pairs[0]
        expected = score_meme(finished, image=memes / pair.files[0], text=pair.text, device="cpu")
        [alone] = model.score([meme])
        assert alone.scores == dict(expected.scores)
        assert (alone.answer, alone.members) == (expected.answer, dict(expected.members))
        assert among.scores["hateful"] == pytest.approx(alone.scores["hateful"], abs=1e-6)


def test_a_study_of_all_memes_at_once_is_refused(done):
    path = done / "members.json"
    path.write_text(path.read_text().replace('"compat": false', '"compat": true'))
    with pytest.raises(ConfigError, match="compat"):
        load_model("study", done, Setup(device="cpu"))
