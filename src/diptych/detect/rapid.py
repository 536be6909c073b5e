"""Reads words with RapidOCR (PP-OCRv6 on onnxruntime), in a process of its own.

Native code of two libraries reads pictures of strangers here. If it crashes, only that process dies. It takes
0.5 GB, never loads torch, and gets pixels that `diptych.images` has decoded and checked.

A message to the process is a line of JSON with width and height, and then the RGB bytes; its answer is one
line of JSON with the lines of the picture.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryFile
from threading import Timer
from typing import IO

from PIL import Image
from typing_extensions import TypedDict

from diptych.detect.ocr import Box, Line, ReaderDied
from diptych.documents import check_shape, closed, parse_json
from diptych.errors import FormatError, missing_library

SIDE = 480  # pixels of the longer side in which words are looked for; captions are large
LARGEST = 2000  # pixels of the longer side from which letters are read
PATIENCE = 120.0  # seconds for one picture; usual are 0.1
DOUBT = 0.8  # mean confidence below which the picture may be upside down
LONGEST = 1 << 24  # bytes of an answer
WORKER = Path(__file__).with_name("rapid_worker.py")


@closed
class LineNode(TypedDict):
    """A line, as the engine's process describes it; numbers are pixels."""

    text: str
    x1: float
    y1: float
    x2: float
    y2: float
    height: float
    score: float


class RapidReader:
    """A `TextReader` whose engine starts with the first picture, and again after it has died.

    Args:
        side: pictures are reduced to this longer side to find words in them; 960 finds small print, in twice
            the time.
        patience: seconds for one picture, after which the engine counts as dead.
        command: of the engine's process, instead of RapidOCR.

    Raises:
        ConfigError: RapidOCR is not installed.
    """

    def __init__(
        self, *, side: int = SIDE, patience: float = PATIENCE, command: Sequence[str] | None = None
    ) -> None:
        try:
            engine = f"rapidocr {version('rapidocr')}, onnxruntime {version('onnxruntime')}"
        except PackageNotFoundError as error:
            raise missing_library("words are read by RapidOCR", "ocr", error) from error
        self._identity, self.patience = f"{engine}, side {side}", patience
        # -P: the folder of the script has modules whose names others have, too
        self.command = command or (sys.executable, "-P", str(WORKER), str(side))
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None

    def __enter__(self) -> "RapidReader":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def identity(self) -> str:
        return self._identity

    def read(self, pictures: Sequence[Image.Image]) -> list[list[Line]]:
        """Return the lines of each picture, see `TextReader`.

        Raises:
            ReaderDied: the engine ended or hung; the message has what it said last.
        """
        return [self._read(picture) for picture in pictures]

    def close(self) -> None:
        """End the process of the engine; the next picture starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, self._said):
            assert stream is not None, "set when it was started"
            with suppress(BrokenPipeError):  # bytes that a dead engine did not take
                stream.close()

    def _read(self, picture: Image.Image) -> list[Line]:
        upright = self._ask(picture)
        if upright and _trust(upright) >= DOUBT:
            return upright
        # Nothing but doubtful words: the picture may be upside down.
        turned = self._ask(picture.transpose(Image.Transpose.ROTATE_180))
        if _trust(turned) < max(_trust(upright), DOUBT):
            return upright
        return [replace(line, box=_turned(line.box, picture.size), turned=True) for line in turned]

    def _ask(self, picture: Image.Image) -> list[Line]:
        small = picture.convert("RGB")
        small.thumbnail((LARGEST, LARGEST))
        scale = picture.width / small.width
        try:
            nodes = self._exchange(small)
        except FormatError as error:
            self.close()
            raise ReaderDied(f"the OCR engine ({self.identity()}) gave no lines: {error}") from error
        return [
            Line(
                text=node["text"],
                box=(node["x1"] * scale, node["y1"] * scale, node["x2"] * scale, node["y2"] * scale),
                score=node["score"],
                height=node["height"] * scale,
            )
            for node in nodes
        ]

    def _exchange(self, picture: Image.Image) -> list[LineNode]:
        process = self._process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None, "both are pipes"
        # The timer also ends a process that takes no bytes, in which writing would wait forever.
        timer = Timer(self.patience, process.kill)
        timer.start()
        try:
            head = json.dumps({"width": picture.width, "height": picture.height}).encode()
            process.stdin.write(head + b"\n" + picture.tobytes())
            process.stdin.flush()
            answer = process.stdout.readline(LONGEST)
        except BrokenPipeError:
            answer = b""
        finally:
            late = not timer.is_alive()
            timer.cancel()
        if not answer.endswith(b"\n"):
            raise self._dead(process, late)
        nodes: list[LineNode] = check_shape(
            parse_json(answer, where="answer"), list[LineNode], where="answer"
        )
        return nodes

    def _start(self) -> "subprocess.Popen[bytes]":
        # A file and no pipe: nobody reads it while the engine works, and a full pipe would stop the engine.
        self._said = TemporaryFile()  # noqa: SIM115  (`close` closes it)
        # One thread: the threads of onnxruntime wait busily, which slows down whoever waits for the words.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        return subprocess.Popen(self.command, stdin=pipe, stdout=pipe, stderr=self._said, env=environment)

    def _dead(self, process: "subprocess.Popen[bytes]", late: bool) -> ReaderDied:
        process.kill()  # it may only have closed its output
        code = process.wait()
        reason = f"gave no answer in {self.patience:g} s" if late else f"ended (exit code {code})"
        assert self._said is not None, "set when it was started"
        self._said.seek(0)
        words = self._said.read(1 << 16).decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(words) if line.strip()), "")
        self.close()
        return ReaderDied(f"the OCR engine ({self.identity()}) {reason}{last and f': {last[:200]}'}.")


def _turned(box: Box, size: tuple[int, int]) -> Box:
    x1, y1, x2, y2 = box
    return size[0] - x2, size[1] - y2, size[0] - x1, size[1] - y1


def _trust(lines: Sequence[Line]) -> float:
    """Mean confidence, weighted by the lengths of the lines; 0 without lines."""
    letters = sum(len(line.text) for line in lines)
    return sum(line.score * len(line.text) for line in lines) / letters if letters else 0.0
