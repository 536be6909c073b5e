"""The same functions under Ray: the same bytes, also when a worker is killed in the middle."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.cli import main
from diptych.detect import ExtractSettings, extract
from diptych.errors import ConfigError, DiptychError
from diptych.predictions import Predictions

ray = pytest.importorskip("ray")
from diptych.scale import ray_engine  # noqa: E402

# Starting Ray and losing its workers takes a minute and more.
pytestmark = [pytest.mark.journey, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]
TINY = ExtractSettings(detector="tiny", rules=("3", "2:9"), batch=2)


@pytest.fixture(scope="module")
def cluster():
    """A Ray of two CPUs on this machine."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(24):
        coarse = Image.fromarray(generator.integers(0, 256, (4, 4, 3), np.uint8))
        coarse.resize((40 + number, 60 - number)).save(folder / f"{number:02}.png")
    (folder / "07.png").write_text("no picture")
    return folder


def contents(folder):
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def workers() -> Iterator[int]:
    """Processes of Ray's workers below this one."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    for process in parents:
        above = process
        while (above := parents.get(above, 0)) > 1:
            if (
                above == os.getpid()
                and b"MapWorker" in (Path("/proc") / str(process) / "cmdline").read_bytes()
            ):
                yield process


def kill_at(count, killed, done, total):
    if done >= count and not killed:
        for process in workers():
            os.kill(process, signal.SIGKILL)
            killed.append(process)


def test_extraction_gives_the_same_bytes_though_workers_are_killed(cluster, photos, tmp_path):
    killed = []
    extract(photos, tmp_path / "here", TINY, shard=2, bad="skip")
    with ray_engine(parallel=2) as engine:
        report = extract(
            photos,
            tmp_path / "there",
            TINY,
            shard=2,
            bad="skip",
            engine=engine,
            progress=partial(kill_at, 6, killed),
        )
    assert killed
    assert report.computed == 24
    assert [fault.id for fault in report.stores[0].bad] == ["07"]
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_errors_come_back_as_they_are(cluster, photos, tmp_path):
    with ray_engine(parallel=1) as engine:
        with pytest.raises(DiptychError, match=r"^image '07': .*07\.png: "):
            extract(photos, tmp_path / "out", TINY, shard=8, engine=engine)
        stray = ExtractSettings(detector="tiny", classes=("cat",))
        with pytest.raises(DiptychError, match=r"\b1 names? "):
            extract(photos, tmp_path / "out", stray, overwrite=True, engine=engine)
    with (
        pytest.raises(ConfigError, match=r"2 times 1 CPU\(s\); .*3"),
        ray_engine(parallel=3),
    ):
        pass
    with pytest.raises(ConfigError, match="0 GPUs"), ray_engine(gpu=True):
        pass


@pytest.fixture(scope="module")
def run(memes, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "regions"
    words = ["experiment=hateful_memes/uniter_tiny", f"root={memes}", f"out={out}", "progress=false"]
    assert main(["train", *words, "loggers=[]", "trainer.max_steps=1"]) == 0
    return out


def test_prediction_gives_the_same_bytes_though_workers_are_killed(
    cluster, run, memes, tmp_path, monkeypatch
):
    from diptych.datasets import HatefulMemes
    from diptych.features import FeatureStore
    from diptych.predict import load
    from diptych.scale import predict_split

    words = ["predict", run, "--splits", "train,dev_seen", "--batch-size", "2"]
    assert main([*map(str, words), "--out", str(tmp_path / "here")]) == 0
    assert (
        main([*map(str, words), "--out", str(tmp_path / "there"), "--engine", "ray", "--parallel", "2"]) == 0
    )
    assert contents(tmp_path / "here") == contents(tmp_path / "there")
    killed, predictor = [], load(run, device="cpu")
    with ray_engine(parallel=2) as engine:
        got = predict_split(
            predictor,
            run,
            HatefulMemes(memes, "train"),
            engine=engine,
            features=FeatureStore(memes / "features"),
            batch_size=2,
            shard=1,
            progress=partial(kill_at, 4, killed),
        )
    assert killed
    assert np.array_equal(got.scores, Predictions.load(tmp_path / "here/train.npz").scores)
