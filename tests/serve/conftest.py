"""Models without training, and the service around them without sockets."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import torch

from diptych.bundle import save_bundle
from diptych.calibrate import Map, Policy, Rule
from diptych.features import FeatureStore
from diptych.recipe.call import call
from diptych.serve import Engine, Limits, Resident, Service, Setup, load_model
from diptych.serve.addresses import ADDRESSES
from diptych.serve.app import Web
from diptych.serve.openapi import openapi

ROOT = "https://diptych.test"


def saved(
    folder: Path, memes: Path, model: str, seed: int = 0, store: Path | None = None, **options: Any
) -> Path:
    """A run of random weights; `store` is what it was trained on."""
    words = str(memes / "vocabulary.txt")
    text = {"_target_": "diptych.text.WordPiece", "vocabulary": words}
    nodes: dict[str, Any] = {
        "processor": {"_target_": "diptych.data.Processor", "text": text, **options},
        "task": {"_target_": "diptych.tasks.Classify", "labels": ["benign", "hateful"]},
        "model": {"_target_": f"diptych.models.{model}"},
    }
    nodes["model"]["vocab_size"] = call(nodes["processor"]).text.vocab_size
    features = None
    if options.get("regions"):
        features = FeatureStore(store or memes / "features").meta
        nodes["model"]["feature_dim"] = features.feature_dim
    torch.manual_seed(seed)
    built = call(nodes["model"])
    task = call(nodes["task"], model=built)
    places = None if store is None else {"root": None, "features": store, "more_features": None}
    save_bundle(folder / "bundle", model=built, task=task, nodes=nodes, features=features, places=places)
    return folder


@pytest.fixture(scope="session")
def sources(memes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("served")
    return {
        "text": saved(folder / "text", memes, "text_bert_tiny"),
        "pixels": saved(folder / "pixels", memes, "concat_bert_tiny", image_size=32),
        "regions": saved(folder / "regions", memes, "uniter_tiny", regions=True),
    }


@pytest.fixture(scope="session")
def setup(memes: Path) -> Setup:
    return Setup(features={"features": memes / "features"}, device="cpu")


@pytest.fixture(scope="session")
def loaded(sources: dict[str, Path], setup: Setup) -> dict[str, Resident]:
    return {name: load_model(name, source, setup) for name, source in sources.items()}


@pytest.fixture
def models(loaded: dict[str, Resident]) -> dict[str, Resident]:
    """The loaded models, without the policies of other tests."""
    for model in loaded.values():
        model.policy, model.policy_name, model.policy_id = None, "", ""
    return dict(loaded)


def policy_for(model: Resident, allow: float | None = 0.2, block: float | None = 0.9) -> Policy:
    platt = Map(method="platt", a=0.8, b=0.8, c=-0.3)
    return Policy(
        labels={"hateful": Rule(map=platt, allow=allow, block=block, positives=40, negatives=60)},
        model=model.sha256,
        dev={"split": "dev", "checksum": "x", "examples": 100, "scores": "as predicted"},
        made="2026-01-02",
        version="0.1.0",
    )


@dataclass
class Asker:
    """Sends requests to a service, and holds every answer against `/openapi.json`."""

    web: Web
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.document = json.loads(json.dumps(openapi(self.web.addresses, self.web.service.limits)))

    @property
    def service(self) -> Service:
        return self.web.service

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        [response] = self.together([(method, path, options)])
        return response

    def score(self, body: Any, **options: Any) -> httpx.Response:
        return self("POST", "/v1/score", json=body, **options)

    def together(self, requests: list[tuple[str, str, dict[str, Any]]]) -> list[httpx.Response]:
        """Send requests at once."""

        async def run() -> list[httpx.Response]:
            transport = httpx.ASGITransport(app=self.web.app)
            async with httpx.AsyncClient(transport=transport, base_url=ROOT, timeout=60) as client:
                return [
                    *await asyncio.gather(
                        *(client.request(method, path, **options) for method, path, options in requests)
                    )
                ]

        responses = asyncio.run(run())
        for (method, path, _), response in zip(requests, responses, strict=True):
            self.validate(method, path, response)
        return responses

    def validate(self, method: str, path: str, response: httpx.Response) -> None:
        assert response.headers["x-request-id"]
        kind = response.headers["content-type"].partition(";")[0]
        if kind == "application/problem+json":
            shape: Any = {"$ref": "#/components/schemas/ProblemAnswer"}
        else:
            known = self.document["paths"]
            place = path if path in known else next(one for one in known if "{" in one and _fits(one, path))
            content = known[place][method.lower()]["responses"][str(response.status_code)]["content"]
            assert kind in content or path.startswith("/page/")
            shape = content.get(kind, {}).get("schema")
            for line in response.text.splitlines() if "x-line" in content.get(kind, {}) else ():
                self.fits(content[kind]["x-line"], json.loads(line))
        if shape is not None:
            self.fits(shape, response.json())

    def fits(self, shape: Any, value: Any) -> None:
        jsonschema.Draft202012Validator(self.document | shape).validate(value)


def _fits(place: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"\{\w+\}", "[^/:]+", place), path) is not None


@pytest.fixture
def serve(models: dict[str, Resident]) -> Iterator[Callable[..., Asker]]:
    """Starts services around the loaded models; `policies` gives them policies."""
    started: list[Asker] = []

    def start(
        *names: str,
        limits: Limits | None = None,
        policies: bool = False,
        keys: Any = None,
        reload: Any = None,
        **options: Any,
    ) -> Asker:
        chosen = {name: models[name] for name in names or ("pixels",)}
        if policies:
            for model in chosen.values():
                model.decide_by("default", "f" * 64, policy_for(model))
        engine = Engine(chosen, limits=limits or Limits())
        service = Service(engine, **options)
        asker = Asker(Web(service, ADDRESSES, keys=keys, log=None, reload=reload))
        asker.web.log = asker.lines.append
        started.append(asker)
        return asker

    yield start
    for asker in started:
        assert asker.service.close(10.0)


@pytest.fixture
def picture(memes: Path) -> Path:
    return sorted((memes / "img").glob("*.png"))[0]
