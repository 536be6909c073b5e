import json

import numpy as np
import pytest
from tests.explain.toy import TEXT, found, sources_of

from diptych.errors import ConfigError
from diptych.explain import explain_attention, export_maps


def maps_of(predictor, picture, name="7"):
    example = predictor.example(name, keys=("street",), text=TEXT)
    return explain_attention(predictor, example, sources_of(predictor, street=(picture, found(3))))


@pytest.mark.parametrize("family", ["uniter", "lxmert"])
def test_arrays_and_names_are_the_maps(predictor_of, picture, tmp_path, family):
    maps = maps_of(predictor_of(f"{family}_tiny"), picture)
    export_maps([maps], tmp_path / "maps")
    content = json.loads((tmp_path / "maps" / "names.json").read_text())
    (pair,), (about,) = maps.pairs, content["pairs"]
    assert [place["name"] for place in about["places"]] == [place.name for place in pair.places]
    assert (about["id"], about["text"], about["answer"]) == ("7", TEXT, maps.answer)
    layers = {layer.name: layer for layer in pair.layers}
    for file in about["files"]:
        array = np.load(tmp_path / "maps" / file["file"], allow_pickle=False)
        assert array.dtype == np.float32
        for weights, name in zip(array, file["layers"], strict=True):
            layer = layers.pop(name)
            assert (list(layer.queries), list(layer.keys)) == (file["queries"], file["keys"])
            np.testing.assert_array_equal(weights, layer.weights)
    assert not layers


def test_examples_share_a_folder_that_is_kept(predictor_of, picture, tmp_path):
    predictor = predictor_of("uniter_tiny")
    both = [maps_of(predictor, picture, name) for name in ("7", "8")]
    export_maps(both, tmp_path / "maps")
    names = {path.name for path in (tmp_path / "maps").glob("*.npy")}
    assert names == {"1-both-both.npy", "2-both-both.npy"}
    with pytest.raises(ConfigError, match="maps exists"):
        export_maps(both, tmp_path / "maps")
    export_maps(both[:1], tmp_path / "maps", overwrite=True)
    assert {path.name for path in (tmp_path / "maps").glob("*.npy")} == {"both-both.npy"}
