"""The examples against a service: Coop's signal in Node, and the Space without Gradio."""

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from tests.serve.test_soak import live

from diptych.predict import load

EXAMPLES = Path(__file__).parents[2] / "examples"
DRIVER = """
import plugin from %(plugin)s;
const context = { integrationId: "DIPTYCH", getCredential: async () => (%(settings)s) };
const [{ signalTypeId, signal }] = plugin.createSignals(context);
const found = [signalTypeId === plugin.manifest.signalTypeIds[0], await signal.getDisabledInfo("o")];
for (const input of %(inputs)s) {
  const answer = signal.run({ orgId: "o", ...input });
  found.push(await answer.then((one) => one.score, (error) => error.message));
}
console.log(JSON.stringify(found));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_the_signal_of_coop_scores_items(serve, sources):
    ask = serve("text")
    item = {"context": {"item": {"data": {"caption": "what a day"}}}, "value": None}
    alone = {"value": {"type": "STRING", "value": "what a day"}}
    picture = {"value": {"type": "IMAGE", "value": {"url": "https://pictures.test/1.png"}}}
    with live(ask.web) as url:
        settings = {"url": f"{url}/", "label": "hateful", "textField": "caption"}
        plugin = json.dumps((EXAMPLES / "coop_signal" / "index.js").as_uri())
        about = {
            "plugin": plugin,
            "settings": json.dumps(settings),
            "inputs": json.dumps([item, alone, picture]),
        }
        command = ["node", "--input-type=module", "-e", DRIVER % about]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    same, enabled, *scores, refused = json.loads(done.stdout)
    expected = load(sources["text"], device="cpu").predict(text="what a day").scores["hateful"]
    assert (same, enabled, scores) == (True, {"disabled": False}, [expected, expected])
    # An item that cannot be judged is an error, and never a score of 0.
    assert "/problems/fetch-refused" in refused


def test_the_space_scores_memes(sources, picture, monkeypatch):
    spec = importlib.util.spec_from_file_location("space", EXAMPLES / "space" / "app.py")
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    monkeypatch.setenv("DIPTYCH_MODEL", str(sources["pixels"]))
    try:
        with Image.open(picture) as image:
            scores, said = app.verdict(image, "what a day")
        expected = load(sources["pixels"], device="cpu").predict(text="what a day", image=picture).scores
        assert (scores, said) == (dict(expected), "no policy")
        scores, said = app.verdict(None, "what a day")
        assert not scores
        assert "picture" in said
    finally:
        app.service().close()
