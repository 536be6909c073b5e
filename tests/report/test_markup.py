"""Parts of pages: what strangers wrote is text, and figures show numbers where they are."""

import re

import pytest

from diptych.evaluate import Estimate
from diptych.report.markup import interval, interval_figure, plain, section, table, write_page

EVIL = "</section><script>alert(1)</script>\u202e\x00\ud800\"'"
NAN = float("nan")


def test_everything_is_escaped(tmp_path):
    value = Estimate(value=0.5, low=0.4, high=0.6)
    body = section(EVIL, table((EVIL,), [(EVIL,)]), interval_figure([(EVIL, value)], EVIL))
    write_page(tmp_path / "a.html", body, kind="audit", title=EVIL, note=EVIL)
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>\n<!-- diptych audit -->\n")
    assert "<script" not in page
    assert "\u202e" not in page
    assert page.count("</section>") == 1
    assert "\ufffd" in plain(EVIL)


def test_an_interval_is_drawn_at_its_place():
    rows = [
        ("a", Estimate(value=0.5, low=0.4, high=0.6)),
        ("undefined", Estimate(value=NAN, low=NAN, high=NAN)),
    ]
    figure = interval_figure(rows, "areas", chance=0.5)
    (center,) = map(float, re.findall(r'<circle cx="([\d.]+)"', figure))
    (left, right) = map(float, re.search(r'class="reach" x1="([\d.]+)" x2="([\d.]+)"', figure).groups())
    (chance,) = map(float, re.findall(r'class="chance" x1="([\d.]+)"', figure))
    assert left < center == pytest.approx((left + right) / 2, abs=0.1)
    assert center == chance
    assert "undefined" not in figure
    assert interval_figure(rows[1:], "none") == ""


def test_numbers_in_words():
    assert interval(Estimate(value=0.5, low=0.25, high=0.75), 2) == "0.50 [0.25, 0.75]"
    assert interval(Estimate(value=0.5, low=NAN, high=NAN)) == "0.500"
    assert interval(Estimate(value=NAN, low=NAN, high=NAN)) == "undefined"
