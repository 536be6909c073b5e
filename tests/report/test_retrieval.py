"""What the page of a retrieval shows, and that texts of strangers cannot spoil it."""

from pathlib import Path

import numpy as np

from diptych.metrics import Interval
from diptych.predict import Retrieval, Sides
from diptych.predictions import Predictions
from diptych.report import retrieval_page
from diptych.types import Pair

WORDS = ("<script>alert(1)</script>", "a $x^2$ cat & dog", "")


def test_texts_are_escaped_and_missing_pictures_are_said(tmp_path: Path) -> None:
    sides = Sides(
        names=("image", "text"),
        ids=(("i0", "i1"), ("t0", "t1", "t2")),
        left=tuple(Pair(image=key, text="") for key in ("i0", "i1")),
        right=WORDS,
        owners=np.array([0, 1, 1]),
    )
    measures = {"recall@1": Interval(0.5, 0, 1), "median_rank": Interval(1, 1, 2)}
    found = Retrieval(
        folder=tmp_path,
        sides=sides,
        images={"i0": tmp_path / "missing.jpg"},
        rankings={
            "image_to_text": Predictions(
                ids=sides.ids[0], rankings=(("t0", "t1"), ("t0", "t2")), scores=np.ones((2, 2))
            ),
            "text_to_image": Predictions(
                ids=sides.ids[1], rankings=(("i0", "i1"),) * 3, scores=np.ones((3, 2))
            ),
        },
        ranks={"image_to_text": (1, 2), "text_to_image": (1, 2, 2)},
        measures=dict.fromkeys(sides.directions, measures),
    )
    retrieval_page(found, tmp_path, queries=9)
    page = (tmp_path / "top.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "picture not found" in page
    assert page.count('class="item right"') == 2 + 3
    assert page.count("right one at rank 2") == 3
    assert (tmp_path / "top.png").stat().st_size > 10_000
