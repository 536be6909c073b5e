"""A Gradio Space: drop a meme, see its scores and, with a policy, the decision."""

import asyncio
import os
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from diptych.serve import Options, Problem, Service, Setup, build
from diptych.serve.given import Given
from diptych.serve.structs import ScoreRequest

HERE = Path(__file__).parent


@cache
def service() -> Service:
    """The model, loaded once; `DIPTYCH_MODEL` names another one than `bundle/`."""
    policy = HERE / "policy.yaml"
    options = Options(
        models=[os.environ.get("DIPTYCH_MODEL", str(HERE / "bundle"))],
        policies=[policy] if policy.exists() else [],
        setup=Setup(device="cpu"),
    )
    return build(options).service


def verdict(image: Image.Image | None, text: str) -> tuple[dict[str, float], str]:
    """Scores by label, and the decision in words; a problem comes as the words."""
    data = None
    if image is not None:
        file = BytesIO()
        image.convert("RGB").save(file, "PNG")
        data = file.getvalue()
    # As the service answers over HTTP, with its limits: a Space is open to strangers.
    given = Given(request=ScoreRequest(text=text), data=data, size=len(data or b""))
    try:
        answer = asyncio.run(service().score(given, request_id="space", caller="space"))
    except Problem as problem:
        return {}, problem.detail
    decision = answer.decision
    return answer.scores, "no policy" if decision is None else f"{decision.action}: {decision.why}"


def interface() -> Any:
    """The page."""
    import gradio

    return gradio.Interface(
        verdict,
        [gradio.Image(type="pil", label="picture"), gradio.Textbox(label="words")],
        [gradio.Label(label="scores"), gradio.Textbox(label="decision")],
        title="A picture and its words",
        flagging_mode="never",
    )


if __name__ == "__main__":
    interface().launch()
