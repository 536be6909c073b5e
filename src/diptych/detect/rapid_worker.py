"""The process of `diptych.detect.rapid`, a script: it imports nothing of diptych, and so no torch."""

import json
import math
import os
import sys
from typing import Any


def main() -> None:
    """Answer pictures from standard input until it ends."""
    import numpy as np
    from rapidocr import RapidOCR

    pictures = sys.stdin.buffer
    # Answers go to the pipe alone; what libraries print must not come between them.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    settings: dict[str, Any] = {
        "Global.log_level": "critical",
        "Global.use_cls": False,  # it costs a quarter of the time, and memes are seldom upside down
        "Det.limit_type": "max",
        "Det.limit_side_len": int(sys.argv[1]),
        "EngineConfig.onnxruntime.intra_op_num_threads": 1,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    }
    engine = RapidOCR(params=settings)
    while head := pictures.readline():
        size = json.loads(head)
        count = size["height"] * size["width"] * 3
        pixels = np.frombuffer(pictures.read(count), np.uint8).reshape(size["height"], size["width"], 3)
        found: Any = engine(np.ascontiguousarray(pixels[:, :, ::-1]))  # OpenCV's order: blue, green, red
        lines = []
        if found.boxes is not None:
            lines = [*map(described, found.txts, found.boxes.tolist(), found.scores)]
        answers.write(json.dumps(lines).encode() + b"\n")
        answers.flush()


def described(text: str, corners: list[list[float]], score: float) -> dict[str, Any]:
    """Return a line as the process answers it; corners go around from the upper left one."""
    xs, ys = zip(*corners, strict=True)
    # Left and right side, not the height of the box: a slanted line has a high one.
    height = (math.dist(corners[0], corners[3]) + math.dist(corners[1], corners[2])) / 2
    box = {"x1": min(xs), "y1": min(ys), "x2": max(xs), "y2": max(ys)}
    return {"text": text, "score": float(score), "height": height, **box}


if __name__ == "__main__":
    main()
