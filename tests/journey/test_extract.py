"""From bare pictures to predictions: no feature file of anybody's."""

from pathlib import Path

import pytest

from diptych.cli import main
from diptych.features import FeatureStore
from diptych.predictions import Predictions

pytestmark = pytest.mark.journey


@pytest.mark.timeout(600)
def test_pictures_to_regions_to_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["world", "memes", "--size", "40"]) == 0
    assert main(["extract", "memes/img", "regions", "--detector", "tiny", "--boxes", "9,2:6"]) == 0
    store = "regions/tiny-random2-6"
    assert set(FeatureStore(store).counts().tolist()) <= set(range(2, 7))
    words = ["experiment=hateful_memes/uniter_tiny", "root=memes", "progress=false", "trainer.max_epochs=1"]
    assert main(["train", *words, "out=run", f"features={store}"]) == 0
    assert main(["predict", "run", "--splits", "test_seen"]) == 0
    assert len(Predictions.load(Path("run/predictions/test_seen.npz"))) > 0
    # another rule of the same detector will do; another detector will not
    more = ["predict", "run", "--splits", "test_seen", "--overwrite", "--features"]
    assert main([*more, "regions/tiny-random9"]) == 0
    assert main(["extract", "memes/img", "regions", "--detector", "grid", "--backbone", "resnet_tiny"]) == 0
    assert main([*more, "regions/resnet_tiny-stage4-random-grid"]) == 2
