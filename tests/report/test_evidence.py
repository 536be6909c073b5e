"""The page of a decision, with what strangers may write into memes."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from diptych.explain import Change, Evidence, Player, Shapley
from diptych.report import evidence_page, in_short, index_page

EVIL = "</script><img src=x onerror=alert(1)>\"' {title} \u202eevil\x00 \ud800"


@pytest.fixture
def why(tmp_path):
    Image.new("RGB", (60, 40), "olive").save(tmp_path / "a.png")
    return make(tmp_path / "a.png", "so hot")


def make(image, text):
    players = (
        Player(kind="word", name=text[:2], places=((0, 1),), spans=((0, 0, 2),)),
        Player(kind="word", name=text[3:], places=((0, 2),), spans=((0, 3, len(text)),)),
        Player(kind="regions", name="cat", places=((0, 0),), boxes=((0.1, 0.1, 0.5, 0.9),)),
        Player(kind="regions", name="dog", places=((0, 1),), boxes=((0.6, 0.1, 0.9, 0.9),)),
    )
    values = np.array([0.004, 1.25, 2.5, -0.5])
    return Evidence(
        id="7",
        text=text,
        text_b=None,
        images=(image,),
        answer="hateful",
        explained="hateful",
        scores={"benign": 0.1, "hateful": 0.9},
        players=players,
        contributions=Shapley(values=values, errors=values * 0, permutations=0, evaluations=16),
        relevance=np.array([0.1, 0.2, 0.3, 0.4]),
        both=2.2,
        neither=-1.0,
        text_only=-0.5,
        picture_only=-0.2,
        default=False,
        changes=(Change(kind="hidden", players=(1, 2), value=-1.0, flips=True),),
    )


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def read(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


def test_the_page_has_no_script_and_no_address(why, tmp_path):
    evidence_page(why, tmp_path / "why.html", title="uniter", facts={"model": "uniter"}, truth="hateful")
    page = read(tmp_path / "why.html")
    assert not {"script", "iframe", "object", "link", "a"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert attributes.get(name, "data:image/jpeg;").startswith("data:image/jpeg;")
    assert "http" not in re.sub(r"http-equiv", "", (tmp_path / "why.html").read_text())
    assert str(tmp_path) not in (tmp_path / "why.html").read_text()


def test_numbers_have_signs_and_areas_letters(why, tmp_path):
    evidence_page(why, tmp_path / "why.html", title="uniter", truth="benign")
    page = read(tmp_path / "why.html")
    assert "A +2.50" in page.text
    assert "B \N{MINUS SIGN}0.50" in page.text
    assert "hot+1.25" in page.text
    assert "wrong: the label is benign" in page.text
    assert "without 'hot', area A" in page.text
    # An image has the same in words, for a screen reader.
    assert any("A +2.50" in (one.get("aria-label") or "") for tag, one in page.tags if tag == "svg")
    sides = [one["class"] for tag, one in page.tags if tag == "g" and one["class"].startswith("counted")]
    assert sides == ["counted against", "counted for"]  # the one that counts most lies on top


def test_what_strangers_write_stays_text(tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    why = replace(make(tmp_path / "a.png", EVIL), id=EVIL, answer=EVIL, explained=EVIL)
    evidence_page(why, tmp_path / "why.html", title=EVIL, facts={EVIL: EVIL}, members={EVIL: 0.5}, truth=EVIL)
    index_page([why], tmp_path / "index.html", pages=[tmp_path / "why.html"], title=EVIL)
    for name in ("why.html", "index.html"):
        page = read(tmp_path / name)
        assert not {"script", "img"} & {tag for tag, _ in page.tags}
        assert "</script><img src=x onerror=alert(1)>" in page.text
        assert not set("\u202e\x00") & set((tmp_path / name).read_text())


def test_a_long_text_and_a_missing_picture(tmp_path):
    why = make(None, "ab " + "x" * 20_000)
    evidence_page(why, tmp_path / "why.html", title="uniter")
    assert (tmp_path / "why.html").stat().st_size < 60_000
    assert "no picture" in read(tmp_path / "why.html").text


def test_the_short_sentence_says_what_decided(why):
    said = in_short(why)
    assert "hot" in said and "area A" in said  # noqa: PT018
    assert "neither side alone" in said
    assert "default" in in_short(replace(why, default=True))
    assert "the text" in in_short(replace(why, text_only=1.0))


def test_a_word_that_occurs_twice_is_said_once(tmp_path):
    why = make(tmp_path / "a.png", "ho ho")
    why = replace(why, contributions=replace(why.contributions, values=np.array([1.25, 1.5, 2.5, -0.5])))
    assert in_short(why).count("ho\N{RIGHT DOUBLE QUOTATION MARK}") == 1


def test_a_picture_without_areas_names_no_detector(why, tmp_path):
    whole = tuple(replace(one, boxes=()) for one in why.players)
    for players, said in ((why.players, True), (whole, False)):
        page = tmp_path / f"{said}.html"
        evidence_page(replace(why, players=players), page, title="concat")
        assert ("detector" in read(page).text) is said
