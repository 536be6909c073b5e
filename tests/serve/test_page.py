"""The page for people, in a browser; `make soak` runs it, and says NOT RUN where there is no Chromium."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.serve.browser import CHROMIUM, Browser
from tests.serve.conftest import policy_for
from tests.serve.test_memories import folder_for
from tests.serve.test_soak import SECONDS, live

from diptych.client import meme_of
from diptych.datasets import HatefulMemes
from diptych.memory import Memory
from diptych.serve import AuditLog
from diptych.serve.keys import Keys
from diptych.serve.memories import read_memories
from diptych.serve.review import ReviewQueue

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not SECONDS, reason="`make soak` runs it"),
    pytest.mark.skipif(CHROMIUM is None, reason="NOT RUN: there is no chromium; apt-get install chromium"),
]
CONTROLS = {"button", "textbox", "combobox", "checkbox", "link"}
HOSTILE = "<img src=x onerror=document.title='run'> don't; \"look\" 🙈 at this"


@pytest.fixture
def browser(tmp_path):
    with Browser(tmp_path / "profile") as one:
        yield one


@pytest.fixture
def service(serve, models, tmp_path):
    ask = serve("pixels", "regions", audit=AuditLog(tmp_path / "audit"), review=ReviewQueue(10))
    for name in ("pixels", "regions"):
        models[name].decide_by("band", "f" * 64, policy_for(models[name], allow=0.1, block=0.95))
    yield ask
    ask.service.audit.close()


def feedback(folder: Path) -> list[tuple[str, str]]:
    lines = [
        json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()
    ]
    return [(one["request_id"], one["action"]) for one in lines if one["kind"] == "feedback"]


def test_a_meme_is_checked_by_keyboard(service, browser, picture, tmp_path):
    with live(service.web) as url:
        browser.open(url)
        browser.until("document.querySelectorAll('#model option').length === 2")
        browser.choose("#file", picture)
        browser.until("!document.querySelector('#preview').hidden")
        browser.value("document.querySelector('#text').focus()")
        browser.type(HOSTILE)
        browser.press("Enter", ctrl=True)
        browser.until("document.querySelector('#result .evidence')")
        # Whoever hears the page is taken to the verdict.
        assert browser.value("document.activeElement.textContent") == "? Review"
        answer = json.loads(browser.value("document.querySelector('#json pre').textContent"))
        assert answer["read"]["text"] == HOSTILE
        browser.value("document.querySelectorAll('.words small').forEach((one) => one.remove())")
        shown = browser.value("document.querySelector('.words').textContent")
        assert shown == HOSTILE
        words = [part for part in answer["evidence"]["parts"] if part["kind"] == "word"]
        assert browser.value("document.querySelectorAll('.word').length") == len(words)
        assert browser.value("document.title") == "diptych"
        line = browser.value("document.querySelector('#curl pre').textContent")
        said = subprocess.run(line, shell=True, cwd=picture.parent, capture_output=True, check=True).stdout
        assert json.loads(said)["raw"] == answer["raw"]
    # The browser could run or load nothing else, and complained of nothing.
    assert not browser.told


def test_regions_are_drawn_into_the_picture(service, browser, memes):
    pair = HatefulMemes(memes, "dev_seen")[0].pairs[0]
    key = pair.image
    service.service.reader.picture_of = lambda key: (memes / "img" / f"{key}.png").read_bytes()
    with live(service.web) as url:
        browser.open(url)
        browser.until("document.querySelectorAll('#model option').length === 2")
        browser.value("document.querySelector('#model').value = 'regions'")
        browser.value("document.querySelector('#model').dispatchEvent(new Event('change'))")
        browser.choose("#file", memes / "img" / f"{key}.png")
        browser.until("!document.querySelector('#preview').hidden")
        browser.value(f"document.querySelector('#image-key').value = '{key}'")
        browser.value("document.querySelector('#text').focus()")
        browser.type(pair.text)
        browser.value("document.querySelector('#send').click()")
        browser.until("document.querySelector('#result .evidence')")
        answer = json.loads(browser.value("document.querySelector('#json pre').textContent"))
        regions = [part for part in answer["evidence"]["parts"] if part["kind"] == "regions"]
        assert browser.value("document.querySelectorAll('.look rect:not(.halo)').length") == min(
            6, len(regions)
        )
        if os.environ.get("DIPTYCH_SCREENSHOT"):
            browser.screenshot(Path(os.environ["DIPTYCH_SCREENSHOT"]))
    assert not browser.told


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_pictures_are_dropped_and_pasted(service, browser, way):
    event = (
        "new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true})"
        if way == "drop"
        else "new ClipboardEvent('paste', {clipboardData: data, bubbles: true})"
    )
    with live(service.web) as url:
        browser.open(url)
        browser.until("document.querySelectorAll('#model option').length === 2")
        browser.value(
            "(async () => { const canvas = new OffscreenCanvas(40, 30);"
            "canvas.getContext('2d').fillRect(0, 0, 9, 9); const data = new DataTransfer();"
            "data.items.add(new File([await canvas.convertToBlob()], 'a.png', "
            f"{{type: 'image/png'}})); document.querySelector('#drop').dispatchEvent({event}); }})()"
        )
        browser.until("!document.querySelector('#preview').hidden")
        browser.value("document.querySelector('#send').click()")
        browser.until("document.querySelector('#result .evidence')")
        answer = json.loads(browser.value("document.querySelector('#json pre').textContent"))
        assert (answer["read"]["width"], answer["read"]["height"]) == (40, 30)
    assert not browser.told


def test_the_queue_is_worked_off_with_one_key_each(service, browser, picture, tmp_path):
    import httpx

    from diptych.client import meme_of

    with live(service.web) as url:
        ids = [
            httpx.post(f"{url}/v1/score", json=meme_of(text=text, image=picture), timeout=60).json()[
                "request_id"
            ]
            for text in ("first", "second", "third")
        ]
        browser.open(f"{url}/#review")
        shown = "document.querySelector('#item .meme-text')?.textContent"
        browser.until(f"{shown} === 'first'")
        browser.until("document.querySelector('#item img')?.naturalWidth > 0")
        assert browser.value("document.querySelector('#waiting').textContent") == "(3)"
        # Keys decide only while the meme has the focus.
        browser.value("document.querySelector('#to-check').focus()")
        browser.press("b")
        assert browser.value(shown) == "first"
        browser.value("document.querySelector('#item').focus()")
        browser.press("b")
        browser.until(f"{shown} === 'second'")
        browser.press("u")
        browser.until(f"{shown} === 'first'")
        browser.press("a")
        browser.until(f"{shown} === 'second'")
        browser.press("s")
        browser.until(f"{shown} === 'third'")
        browser.press("e")
        browser.until("document.querySelector('#why .evidence')")
        browser.press("b")
        browser.until(f"{shown} === 'second'")
        browser.press("b")
        browser.until("document.querySelector('#item').textContent === 'Nothing waits.'")
        # The last one is written when it can no longer be taken back.
        browser.until("fetch('v1/review').then((one) => one.json()).then((one) => one.total === 0)")
        assert feedback(tmp_path / "audit") == [(ids[0], "allow"), (ids[2], "block"), (ids[1], "block")]
    assert not browser.told


def test_what_is_taught_on_the_page_is_shown_as_the_reason(service, browser, picture, models, tmp_path):
    import httpx

    model = models["pixels"]
    read_memories([folder_for(model, tmp_path / "memory")], [model])
    try:
        with live(service.web) as url:
            # First in the queue: blocked, and taught by the box.
            body = meme_of(text="free coins", image=picture)
            httpx.post(f"{url}/v1/score", json=body, timeout=60)
            browser.open(f"{url}/#review")
            browser.until("document.querySelector('#item .meme-text')?.textContent === 'free coins'")
            browser.value("document.querySelector('#teach').focus()")
            browser.press(" ")
            browser.value("document.querySelector('#rule').value = 'spam'")
            browser.value("document.querySelector('#item').focus()")
            browser.press("b")
            browser.until("document.querySelector('#item').textContent === 'Nothing waits.'")
            browser.until("fetch('v1/review').then((one) => one.json()).then((one) => one.total === 0)")
            # Then a like one in the other view: the case is named, and the verdict is another one.
            browser.open("about:blank")
            browser.open(f"{url}/")
            browser.until("document.querySelectorAll('#model option').length === 2")
            browser.choose("#file", picture)
            browser.until("!document.querySelector('#preview').hidden")
            browser.value("document.querySelector('#evidence').checked = false")
            browser.value("document.querySelector('#text').focus()")
            browser.type("free coins")
            browser.press("Enter", ctrl=True)
            browser.until("document.querySelector('#result .because')")
            said = browser.value("document.querySelector('.because h3').textContent")
            row = browser.value("document.querySelector('.because tbody tr').innerText").split("\t")
            assert said == "Because of this case"
            assert row[:3] == ["free coins", "hateful", "spam"]
            assert float(row[4]) == pytest.approx(6.0, abs=0.01)
            # Taught otherwise, by keyboard: Tab to the class, choose, and Enter in the rule.
            browser.value("document.querySelector('#lesson').value = 'benign'")
            browser.value("document.querySelector('#lesson-rule').focus()")
            browser.press("Enter")
            browser.until("document.querySelector('#status').textContent.startsWith('Taught.')")
            browser.value("document.querySelector('#send').click()")
            browser.until("document.querySelector('.because tbody tr')?.innerText.includes('benign')")
            if os.environ.get("DIPTYCH_SCREENSHOT"):
                browser.screenshot(Path(os.environ["DIPTYCH_SCREENSHOT"]).with_name("taught.png"))
        assert [case.label for case in Memory.load(tmp_path / "memory").cases] == ["benign"]
        assert [action for _, action in feedback(tmp_path / "audit")] == ["block", "allow"]
    finally:
        model.memory, model.parts = None, ()
    assert not browser.told


@pytest.mark.parametrize("width", [360, 1180])
def test_nothing_is_cut_off(serve, browser, picture, models, tmp_path, width):
    """At the width of a phone, too: the page scrolls down only, and what is pressed is large enough."""
    import httpx

    ask = serve("pixels", audit=AuditLog(tmp_path / "audit"), review=ReviewQueue(10))
    models["pixels"].decide_by("band", "f" * 64, policy_for(models["pixels"], allow=0.1, block=0.95))
    browser.resize(width, 740)
    place = os.environ.get("DIPTYCH_SCREENSHOT")
    with live(ask.web) as url:
        for text in ("a" * 300, "what a day " * 30, "second", "third"):
            httpx.post(f"{url}/v1/score", json=meme_of(text=text, image=picture), timeout=60)
        for view in ("review", "check"):
            browser.open("about:blank")
            browser.open(f"{url}/#{view}")
            browser.until("document.querySelectorAll('#model option').length === 1")
            if view == "review":
                browser.until("document.querySelector('#item img')?.naturalWidth > 0")
                browser.value("document.querySelector('#item').focus()")
                browser.press("e")
                browser.until("document.querySelector('#why .evidence')")
            else:
                browser.choose("#file", picture)
                browser.value("document.querySelector('#send').click()")
                browser.until("document.querySelector('#result .evidence')")
            root = "document.documentElement"
            assert browser.value(f"{root}.scrollWidth <= {root}.clientWidth"), view
            height = "[...document.querySelectorAll('button')].map((one) => one.offsetHeight).filter(Boolean)"
            assert browser.value(f"Math.min(...{height})") >= 40
            # Names of views are not broken in the middle.
            height = "[...document.querySelectorAll('nav a')].map((one) => one.offsetHeight)"
            assert browser.value(f"Math.max(...{height})") < 45
            if place:
                browser.screenshot(Path(place).with_name(f"{view}-{width}.png"))
    ask.service.audit.close()
    assert not browser.told


def test_a_screen_reader_finds_names(service, browser, picture):
    with live(service.web) as url:
        browser.open(url)
        browser.until("document.querySelectorAll('#model option').length === 2")
        browser.choose("#file", picture)
        browser.value("document.querySelector('#send').click()")
        browser.until("document.querySelector('#result .evidence')")
        tree = browser.tree()
        assert not [pair for pair in tree if pair[0] in CONTROLS and not pair[1].strip()]
        assert {"main", "navigation", "status", "heading"} <= {role for role, _ in tree}
        named = {name for _, name in tree}
        assert {"Picture", "Text", "Model", "Check"} <= named
        # The drawing of the band is a sentence for them.
        assert any(role == "image" and "allowed below 0.100" in name for role, name in tree)
        # All is reached by Tab, in the order of the page.
        browser.value("document.activeElement.blur(); window.getSelection().removeAllRanges()")
        browser.value("document.querySelector('.skip').focus()")
        reached = []
        for _ in range(8):
            browser.press("Tab")
            reached.append(browser.value("document.activeElement.id"))
        after = ["text", "model", "image-key", "evidence", "send"]
        assert reached == ["to-check", "to-review", "file", *after]


def test_a_key_is_asked_for(serve, browser, tmp_path):
    from hashlib import sha256

    path = tmp_path / "keys.txt"
    path.write_text(f"a:{sha256(b'secret').hexdigest()}:user")
    path.chmod(0o600)
    with live(serve("pixels", keys=Keys(path)).web) as url:
        browser.open(url)
        browser.until("!document.querySelector('#login').hidden")
        browser.value("document.querySelector('#key').focus()")
        for key in ("wrong", "secret"):
            browser.type(key)
            browser.press("Enter")
            browser.until(f"document.querySelector('#login').hidden === {str(key == 'secret').lower()}")
            browser.until("document.querySelector('#key').value === ''")
        browser.until("document.querySelectorAll('#model option').length === 1")
        assert "secret" not in browser.value(
            "JSON.stringify([localStorage, sessionStorage, document.cookie])"
        )
    # The refusals are all that was complained of.
    assert all("401" in one for one in browser.told)
