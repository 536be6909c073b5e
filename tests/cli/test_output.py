import json

import pytest

from diptych.cli import complain, output

ODD = (
    "[/red]",
    "[bold]x",
    "[link=file:///etc]a[/link]",
    ":smile:",
    "a\x1b[31mb",
    "a\rb",
    "\u202eabc",
    "\\[x]",
)


@pytest.mark.parametrize("text", ODD)
def test_whatever_an_id_holds_is_printed_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.table(text, [text, "n"], [(text, 1)], numbers=1)
    shown = capsys.readouterr().out
    assert shown.count(output.visible(text)) == 3
    assert not set(shown) & set("\x1b\r\u202e")
    complain(text)
    assert output.visible(text) in capsys.readouterr().err
    with output.progress(text) as advance:
        advance(1, 2)
    output.as_json({text: text})
    assert json.loads(capsys.readouterr().out) == {text: text}
