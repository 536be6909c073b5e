import json
import sys

import pytest
import torch
from PIL import Image

from diptych.data.transform import Picture
from diptych.detect.grid import box_regions, build_map_encoder, grid_regions
from diptych.errors import ConfigError, FormatError

# Every cell holds its row and its column.
FEATURES = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(8.0), indexing="ij"))
PICTURE = Picture(pixels=torch.zeros(3, 64, 128), size=(400, 200))


def test_cells_cover_the_picture_row_by_row():
    regions = grid_regions(FEATURES, PICTURE, None)
    assert regions.size == (400, 200)
    assert regions.boxes[[0, 1, 8, 31]].tolist() == [
        [0, 0, 50, 50],
        [50, 0, 100, 50],
        [0, 50, 50, 100],
        [350, 150, 400, 200],
    ]
    assert regions.features[9].tolist() == [1, 1]
    regions.verify()


def test_a_grid_averages_the_cells():
    regions = grid_regions(FEATURES, PICTURE, (2, 2))
    assert regions.features.tolist() == [[0.5, 1.5], [0.5, 5.5], [2.5, 1.5], [2.5, 5.5]]
    assert regions.boxes[3].tolist() == [200, 100, 400, 200]


def test_given_boxes_average_what_they_cover():
    boxes = torch.tensor([[100.0, 50, 200, 150], [0, 0, 400, 200]])
    regions = box_regions(FEATURES, PICTURE, boxes)
    # the centers of cells lie at halves
    torch.testing.assert_close(
        torch.from_numpy(regions.features), torch.tensor([[1.5, 2.5], [1.5, 3.5]]), atol=0.1, rtol=0
    )
    assert regions.boxes.tolist() == boxes.tolist()
    assert box_regions(FEATURES, PICTURE, boxes[:0]).features.shape == (0, 2)


@pytest.mark.parametrize(("stage", "dim", "cells"), [(1, 16, 24), (2, 32, 12), (3, 64, 6), (4, 128, 3)])
def test_stages_halve_the_map(stage, dim, cells):
    encoder = build_map_encoder("resnet_tiny", stage=stage, size=96)
    picture = encoder.prepare(Image.new("RGB", (50, 50), "red"))
    maps = encoder(picture.pixels[None])
    assert encoder.dim == dim
    assert maps.shape == (1, dim, cells, cells)


def test_pixels_are_those_of_imagenet():
    picture = build_map_encoder("resnet_tiny", size=32).prepare(Image.new("RGB", (64, 32), (255, 0, 51)))
    assert picture.resized == (53, 27), "the longer side is at most 5 thirds of the shorter one"
    expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225])
    torch.testing.assert_close(picture.pixels[:, 0, 0], expected)


@pytest.mark.parametrize("arguments", [{"backbone": "resnet51"}, {"stage": 5}, {"size": 8}])
def test_other_backbones_are_refused(arguments):
    with pytest.raises(ConfigError, match="resnet50, resnet101, resnet152, resnet_tiny"):
        build_map_encoder(**{"backbone": "resnet50", **arguments})


def test_a_transformer_gives_its_patches(tmp_path):
    """Of a folder of `transformers`, against its own hidden states."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    network = transformers.ViTModel(
        transformers.ViTConfig(image_size=64, patch_size=16, **sizes), add_pooling_layer=False
    ).eval()
    network.save_pretrained(tmp_path / "vit")
    encoder = build_map_encoder(f"transformers:{tmp_path / 'vit'}", size=64)
    picture = encoder.prepare(Image.linear_gradient("L").convert("RGB").resize((100, 60)))
    assert (picture.resized, encoder.dim) == ((64, 64), 16)
    with torch.inference_mode():
        maps = encoder(picture.pixels[None])
        states = network(picture.pixels[None]).last_hidden_state
    assert torch.equal(maps[0].flatten(1).T, states[0, 1:])
    with pytest.raises(ConfigError, match=r" 96 pixels"):
        build_map_encoder(f"transformers:{tmp_path / 'vit'}", size=96)


def test_a_convolutional_network_gives_its_last_map(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    transformers.ResNetModel(config).save_pretrained(tmp_path / "net")
    encoder = build_map_encoder(f"transformers:{tmp_path / 'net'}", size=64)
    assert encoder.dim == 16
    assert encoder(torch.zeros(1, 3, 64, 64)).shape == (1, 16, 8, 8)


def test_what_transformers_cannot_read_is_one_error(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=str(tmp_path)):
        build_map_encoder(f"transformers:{tmp_path}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match="pip install transformers"):
        build_map_encoder(f"transformers:{tmp_path}")


@pytest.mark.parametrize(
    "settings",
    [{"auto_map": {"AutoModel": "code.Net"}}, {"model_type": "clip", "vision_config": {"auto_map": {}}}],
)
def test_code_of_a_folder_is_not_run(tmp_path, settings):
    witness = tmp_path / "witness"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "x"} | settings))
    (tmp_path / "model.safetensors").write_bytes(b"")
    for name in ("code", "configuration_x", "modeling_x"):
        (tmp_path / f"{name}.py").write_text(f"open({str(witness)!r}, 'w')")
    with pytest.raises(FormatError, match=r"config\.json: auto_map"):
        build_map_encoder(f"transformers:{tmp_path}")
    assert not witness.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "none"])
def test_a_folder_without_safetensors_is_refused(tmp_path, name):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    (tmp_path / name).write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(FormatError, match=r"\*\.safetensors"):
        build_map_encoder(f"transformers:{tmp_path}")


@pytest.mark.parametrize("name", [None, "config.json", "adapter_config.json"])
def test_a_folder_that_holds_no_model_is_one_error(tmp_path, name):
    (tmp_path / "model.safetensors").write_bytes(b"")
    if name is not None:
        (tmp_path / name).write_bytes(b"[")
    with pytest.raises(FormatError, match=r"config\.json|adapter"):
        build_map_encoder(f"transformers:{tmp_path}")


def test_nothing_of_a_folder_is_trusted_or_fetched(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    given = {}
    monkeypatch.setattr(
        transformers.AutoModel, "from_pretrained", lambda name, **settings: given.update(settings) or 1 / 0
    )
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=str(tmp_path)):
        build_map_encoder(f"transformers:{tmp_path}")
    assert given == {"use_safetensors": True, "trust_remote_code": False, "local_files_only": True}
