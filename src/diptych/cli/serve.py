"""Serve models and studies over HTTP: a picture and its text in, a verdict out, on a closed network.

Without --policy, answers have scores and no decision. Requests name a model by its folder, or by NAME of
NAME=FOLDER; the first is the default. It listens on this machine only, unless there are keys.

try:
  diptych serve runs/mine --policy policy.yaml
  diptych serve runs/mine runs/study/vilio --policy policy.yaml --ocr --api-keys keys.txt --audit audit/
  curl -F image=@meme.png -F 'request={"text":"what a day"};type=application/json' localhost:8000/v1/score
  diptych serve runs/mine --policy policy.yaml --api-keys keys.txt --check
  kill -HUP PID        reads the keys again;   kill PID   finishes what was accepted, and stops
"""

import argparse
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.cli.engine import require_counts
from diptych.cli.options import add_device, add_ocr
from diptych.cli.words import spaced
from diptych.errors import ConfigError, missing_library, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

    from diptych.serve.app import Web
    from diptych.serve.engine import Engine
    from diptych.serve.limits import Limits
    from diptych.serve.setup import Options
    from diptych.serve.words import PictureWords


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", metavar="model", nargs="+", help="run, bundle or study; NAME=FOLDER names it"
    )
    parser.add_argument(
        "--policy", type=Path, action="append", default=[], help="a file of `diptych calibrate`, or a folder"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    parser.add_argument(
        "--api-keys", type=Path, help="lines of name:sha256-of-key:role (user, reviewer or admin)"
    )
    parser.add_argument("--open", action="store_true", help="listen beyond this machine without keys")
    parser.add_argument(
        "--audit", type=Path, metavar="FOLDER", help="write every decision down, without texts"
    )
    parser.add_argument(
        "--audit-sync",
        type=float,
        default=1.0,
        help="seconds between writes to the disk; 0: each (default: 1)",
    )
    parser.add_argument(
        "--features", action="append", default=[], help="feature store (default: as trained); NAME=FOLDER"
    )
    parser.add_argument(
        "--weights", action="append", default=[], help="find regions in pictures: DETECTOR=FILE or =random"
    )
    parser.add_argument(
        "--boxes", default="36", help="box rule for a model that knows no store (default: 36)"
    )
    parser.add_argument("--pictures", type=Path, help="folder of pictures that requests name by image.key")
    parser.add_argument(
        "--fetch-from", action="append", default=[], metavar="HOST", help="fetch image.url from this host"
    )
    parser.add_argument("--fetch-http", action="store_true", help="also over http")
    _add_people(parser)
    add_ocr(parser, "read the text of pictures that come without")
    parser.add_argument(
        "--ocr-engines", type=int, default=1, metavar="N", help="pictures read at once (default: 1)"
    )
    _add_operation(parser)
    add_device(parser)


def _add_people(parser: argparse.ArgumentParser) -> None:
    """Add what people and their judgements need."""
    parser.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="MODEL=FILE",
        help="scores that drift is measured from",
    )
    parser.add_argument(
        "--review", type=int, default=0, metavar="NUMBER", help="keep as many memes for people, in memory"
    )
    parser.add_argument(
        "--memory",
        type=Path,
        action="append",
        default=[],
        help="cases that vote, a folder of `diptych memory`",
    )
    parser.add_argument(
        "--teachers", choices=("reviewer", "admin"), default="reviewer", help="least role that adds cases"
    )


def _add_operation(parser: argparse.ArgumentParser) -> None:
    """Options about how the process runs, and not about what it answers."""
    parser.add_argument(
        "--check", action="store_true", help="read and load everything but the audit log, say what, and end"
    )
    parser.add_argument("--sample-allowed", type=float, default=0.0, help="share of allowed memes to look at")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="NAME=NUMBER", help="a limit, such as queue=64"
    )
    parser.add_argument(
        "--drain-wait", type=float, default=5.0, help="seconds to be `not ready` (default: 5)"
    )
    parser.add_argument(
        "--timeout-graceful-shutdown", type=int, default=30, help="seconds to finish requests (default: 30)"
    )
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="ray: replicas of the models on Ray Serve"
    )
    parser.add_argument(
        "--metrics-port", type=int, metavar="PORT", help="serve /metrics there, and no longer on --port"
    )
    parser.add_argument(
        "--metrics-host", default="127.0.0.1", help="address of that port (default: this machine only)"
    )
    parser.add_argument("--parallel", type=int, help="replicas (default: as many as Ray has room for)")
    parser.add_argument("--threads", type=int, help="threads of the models (default: all cores but one)")


def run(arguments: argparse.Namespace) -> int:
    try:
        from diptych.serve.keys import may_bind
        from diptych.serve.limits import model_threads
        from diptych.serve.server import address_of, listen
        from diptych.serve.server import run as serve
        from diptych.serve.setup import build, monitor_of
    except ModuleNotFoundError as error:
        # Of the extra; the absence of anything else is a broken installation.
        if error.name not in ("msgspec", "prometheus_client", "python_multipart", "starlette", "uvicorn"):
            raise
        raise missing_library("serving needs Starlette and its companions", "serve", error) from error
    import torch

    if not may_bind(arguments.host, keys=arguments.api_keys is not None, open_to_all=arguments.open):
        raise ConfigError(
            f"--host {arguments.host} is beyond this machine, and there are no keys; add --api-keys FILE, or "
            "--open to answer everybody."
        )
    require_counts(arguments)
    options = _options(arguments)
    torch.set_num_threads(arguments.threads or model_threads())
    if arguments.check:
        # Not of the audit log, which a running service may be writing.
        with _words(arguments, options) as words:
            web = build(replace(options, audit=None, review=0), words=words)
            _say_models(web)
            web.service.close()
        return 0
    with ExitStack() as stack:
        sock = stack.enter_context(closing(listen(arguments.host, arguments.port)))
        beside = None
        if arguments.metrics_port is not None:
            beside = listen(arguments.metrics_host, arguments.metrics_port, option="--metrics-port")
            stack.enter_context(closing(beside))
        words = stack.enter_context(_words(arguments, options))
        engine_of = _replicas(options, arguments) if arguments.engine == "ray" else None
        if engine_of is not None:
            # This process only makes rows; the accelerators are the replicas'.
            options = replace(options, setup=replace(options.setup, device="cpu"))
        web = build(options, words=words, engine_of=engine_of)
        _say_models(web)
        monitor = None if beside is None else (monitor_of(web), beside)
        if beside is not None:
            print(f"metrics: {address_of(beside)}/metrics")
        print(f"ready: {address_of(sock)}", flush=True)
        return serve(
            web,
            sock,
            monitor=monitor,
            drain_wait=arguments.drain_wait,
            graceful=arguments.timeout_graceful_shutdown,
        )


def _say_models(web: "Web") -> None:
    for model in web.service.engine.models.values():
        policy = model.policy_id or "no policy"
        print(f"{model.name}   {model.sha256[:12]}   reads {', '.join(model.reads)}   {policy}")
        if (live := model.memory) is None:
            continue
        memory, name = live.current()
        print(f"   {name}   {len(memory.cases):,} cases of {len(memory.policies)} policies")
        if memory.learned is None:
            print(f"   not fitted: cases are shown and change no score; run: diptych memory fit {live.path}")


def _words(
    arguments: argparse.Namespace, options: "Options"
) -> "AbstractContextManager[PictureWords | None]":
    if not arguments.ocr:
        return nullcontext()
    from diptych.serve.models import named_models
    from diptych.serve.words import picture_words
    from diptych.study import tokenizer_of

    # Words are read once for all models, by the vocabulary of the first.
    tokenizer = tokenizer_of(next(iter(named_models(arguments.models).values())))
    return picture_words(
        arguments.ocr_engines,
        lines=arguments.lines,
        patience=options.limits.deadline,
        wrap=lambda reader: spaced(reader, arguments, tokenizer),
    )


def _replicas(options: "Options", arguments: argparse.Namespace) -> "Callable[..., Engine]":
    from functools import partial

    import torch

    from diptych.serve.replicated import replicated

    # Without a GPU here, the cluster may still have some: then --device cuda says so.
    gpu = arguments.device.startswith("cuda") or (arguments.device == "auto" and torch.cuda.is_available())
    return partial(
        replicated,
        setup=options.setup,
        limits=options.limits,
        count=arguments.parallel,
        threads=arguments.threads or 1,
        gpu=gpu,
    )


def _options(arguments: argparse.Namespace) -> "Options":
    from diptych.serve.models import Setup
    from diptych.serve.setup import Options

    weights = {name: None if file == "random" else Path(file) for name, file in _pairs(arguments.weights)}
    setup = Setup(
        features={name or "features": Path(place) for name, place in _pairs(arguments.features)},
        weights=weights,
        boxes=arguments.boxes,
        device=arguments.device,
        precision=arguments.precision,
    )
    return Options(
        models=arguments.models,
        policies=arguments.policy,
        setup=setup,
        keys=arguments.api_keys,
        audit=arguments.audit,
        sync=arguments.audit_sync,
        pictures=arguments.pictures,
        reference={name: Path(file) for name, file in _pairs(arguments.reference)},
        fetch_from=arguments.fetch_from,
        fetch_plain=arguments.fetch_http,
        sample=arguments.sample_allowed,
        review=arguments.review,
        memories=arguments.memory,
        teachers=arguments.teachers,
        monitored=arguments.metrics_port is not None,
        limits=_limits(arguments.limit),
    )


def _limits(words: list[str]) -> "Limits":
    from diptych.serve.limits import Limits

    usual = Limits()
    known = usual.__dataclass_fields__
    values: dict[str, Any] = {}
    for name, text in _pairs(words):
        if name not in known:
            raise ConfigError(f"--limit {name}: expected one of {', '.join(known)}.{nearest(name, known)}")
        try:
            values[name] = type(getattr(usual, name))(text)
        except ValueError as error:
            raise ConfigError(f"--limit {name}={text}: expected a number.") from error
    return Limits(**values)


def _pairs(words: list[str]) -> list[tuple[str, str]]:
    """Split NAME=VALUE at its last `=`; without one, NAME is empty."""
    split = (word.rpartition("=") for word in words)
    return [(name, value) for name, _, value in split]
