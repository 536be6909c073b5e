"""`weights.model` finds the reader of every family."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from diptych import models
from diptych.convert import FAMILIES, restore
from diptych.errors import CheckpointMismatch, ConfigError
from diptych.recipe.build import load_weights

WHOLE = [family for family in FAMILIES if family.builders]


def load(model, source):
    load_weights(model, {"model": str(source), "text": None, "image": None}, None)


@pytest.mark.parametrize("family", WHOLE, ids=lambda one: one.name)
def test_the_reader_of_a_family_sees_the_file(family, tmp_path):
    model = getattr(models, f"{family.name}_tiny")()
    assert type(model) is family.model
    torch.save({"encoder.strange": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointMismatch, match=r"encoder\.strange|end with"):
        load(model, tmp_path / "other.pt")


def test_weights_may_lie_behind_a_link(tmp_path, monkeypatch):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    model, other = models.uniter_tiny(vocab_size=40), models.uniter_tiny(vocab_size=40)
    family = next(family for family in WHOLE if family.name == "uniter")
    torch.save(restore(model.state_dict(), family.table), tmp_path / "u.pt")
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *args: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        load(other, f"http://127.0.0.1:{server.server_port}/u.pt")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert all(torch.equal(one, other.state_dict()[name]) for name, one in model.state_dict().items())


def test_a_source_that_does_not_exist_is_named():
    with pytest.raises(ConfigError, match=r"nowhere\.pt"):
        load(models.uniter_tiny(), "nowhere.pt")
