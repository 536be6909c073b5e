"""The service at 1, 8 and 32 clients, beside plain Starlette that scores one meme after the other."""

import base64
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import numpy as np
import torch
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from diptych.bundle import save_bundle
from diptych.features import write_store
from diptych.predict import Predictor, load
from diptych.recipe.call import call
from diptych.serve import Limits, Options, Setup, build
from diptych.text import learn_vocabulary, write_vocabulary
from diptych.types import FeatureMeta, Regions

CLIENTS, SECONDS = (1, 8, 32), 4.0
REGIONS, WIDTH, SIDE = 36, 2048, 224
MODELS = (
    ("UNITER-tiny, cached features", "uniter_tiny", "regions"),
    ("UNITER-base, cached features", "uniter_base", "regions"),
    ("Concat-tiny, from pixels", "concat_bert_tiny", "pixels"),
    ("Concat, from pixels", "concat_bert", "pixels"),
)

Row = tuple[str, str, str, str]


def rows() -> Iterator[Row]:
    """Model and clients, ours, the plain way, and how many times more memes per second ours answers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - 1))
    try:
        for what, name, reads in MODELS:
            with tempfile.TemporaryDirectory(prefix="diptych-bench-") as place:
                yield from measured(what, name, reads, Path(place))
    finally:
        torch.set_num_threads(threads)


def measured(what: str, name: str, reads: str, folder: Path) -> Iterator[Row]:
    run, picture = saved(name, reads, folder), photograph()
    store = {"features": folder / "store"} if reads == "regions" else {}
    meme: dict[str, Any] = {"text": "a b c d e f g h i j k l m #"}
    meme["image"] = {"key": "0"} if store else {"bytes": base64.b64encode(picture).decode()}
    body = folder / "body.json"
    body.write_text(json.dumps(meme))
    # A base model on a CPU has long queues, and the plain way no deadline; nor does it remember answers.
    limits = Limits(deadline=120.0, cache=0)
    web = build(Options(models=[str(run)], setup=Setup(features=store, device="cpu"), limits=limits))
    web.log = None
    predictor = load(run, device="cpu")
    with live(web.app) as ours, live(plain(predictor, web, bool(store))) as other:
        for clients in CLIENTS:
            fast, slow = (asked(port, clients, body) for port in (ours, other))
            yield (
                f"{what}: {clients} client(s)",
                shown(*fast),
                shown(*slow),
                f"{rate(*fast) / rate(*slow):.1f}x",
            )
    web.service.close()


def plain(predictor: Predictor, web: Any, cached: bool) -> Starlette:
    """What one writes first: an endpoint that calls the model under a lock."""
    lock = Lock()
    member = next(iter(web.service.engine.find(None).members.values()))

    def score(meme: dict[str, Any]) -> dict[str, float]:
        with lock:
            if cached:
                from diptych.serve.regions import Meme

                rows = member.prepare(Meme(text=meme["text"], key=meme["image"]["key"]))
                found = predictor.predict_rows([rows])
                return dict(zip(found.classes or (), map(float, found.scores[0]), strict=True))
            image = Image.open(BytesIO(base64.b64decode(meme["image"]["bytes"]))).convert("RGB")
            return dict(predictor.predict(text=meme["text"], image=image).scores)

    async def endpoint(request: Request) -> JSONResponse:
        return JSONResponse(await run_in_threadpool(score, await request.json()))

    return Starlette(routes=[Route("/v1/score", endpoint, methods=["POST"])])


@contextmanager
def live(app: Any) -> Iterator[int]:
    """An application on a port of this machine."""
    config = uvicorn.Config(app, port=0, http="h11", log_level="error", access_log=False)
    server = uvicorn.Server(config)
    thread = Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def asked(port: int, clients: int, body: Path) -> tuple[list[float], float]:
    """Seconds of every answer, and of all together."""
    script = str(Path(__file__).with_name("_crowd.py"))
    command = [sys.executable, "-S", script, str(port), str(clients), str(SECONDS), str(body)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    took, spent = json.loads(done.stdout)
    return took, spent


def rate(took: list[float], spent: float) -> float:
    return len(took) / spent


def shown(took: list[float], spent: float) -> str:
    middle, late, last = (1000 * np.quantile(took, [0.5, 0.95, 0.99])).round().astype(int)
    return f"{rate(took, spent):.0f}/s, p50 {middle} p95 {late} p99 {last} ms"


def photograph() -> bytes:
    """A picture of a usual size, as JPEG."""
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
    return file.getvalue()


def saved(name: str, reads: str, folder: Path) -> Path:
    """A run of random weights."""
    write_vocabulary(folder / "vocabulary.txt", learn_vocabulary(["a b c d e f g h i j k l m 0 1 2 3"], 100))
    text = {"_target_": "diptych.text.WordPiece", "vocabulary": str(folder / "vocabulary.txt")}
    more: dict[str, Any] = {"regions": True} if reads == "regions" else {"image_size": SIDE}
    nodes: dict[str, Any] = {
        "processor": {"_target_": "diptych.data.Processor", "text": text, **more},
        "task": {"_target_": "diptych.tasks.Classify", "labels": ["benign", "hateful"]},
        "model": {"_target_": f"diptych.models.{name}"},
    }
    nodes["model"]["vocab_size"] = call(nodes["processor"]).text.vocab_size
    meta = None
    if reads == "regions":
        nodes["model"]["feature_dim"] = WIDTH
        features = np.random.default_rng(0).random((REGIONS, WIDTH), np.float32)
        boxes = np.tile(np.array([0, 0, 50, 50], np.float32), (REGIONS, 1))
        meta = FeatureMeta(feature_dim=WIDTH)
        write_store(folder / "store", [("0", Regions(features=features, boxes=boxes, size=(99, 99)))], meta)
    torch.manual_seed(0)
    model = call(nodes["model"])
    save_bundle(
        folder / "run" / "bundle",
        model=model,
        task=call(nodes["task"], model=model),
        nodes=nodes,
        features=meta,
    )
    return folder / "run"
