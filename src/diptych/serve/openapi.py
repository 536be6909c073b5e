"""The description of the service, made of its addresses and structures."""

import re
from typing import TYPE_CHECKING, Any

import msgspec

from diptych import __version__
from diptych.serve.limits import Limits
from diptych.serve.problems import KINDS
from diptych.serve.structs import ProblemAnswer, ScoreRequest

if TYPE_CHECKING:
    from diptych.serve.app import Address

PLACE = "#/components/schemas/{name}"


def openapi(addresses: "tuple[Address, ...]", limits: Limits) -> dict[str, Any]:
    """OpenAPI 3.1."""
    shapes = {
        one for address in addresses for one in (address.reads, address.answers) if isinstance(one, type)
    }
    ordered = sorted({ProblemAnswer, ScoreRequest, *shapes}, key=lambda shape: shape.__name__)
    schemas, components = msgspec.json.schema_components(ordered, ref_template=PLACE)
    refs = dict(zip(ordered, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for address in addresses:
        paths.setdefault(address.path, {})[address.method.lower()] = _operation(address, refs)
    numbers = {name: getattr(limits, name) for name in limits.__dataclass_fields__}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "diptych",
            "version": __version__,
            "description": "A picture and its text in, a verdict out.",
            "x-limits": numbers,
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-KEY"},
            },
        },
        "x-problems": {name: {"status": kind.status, "title": kind.title} for name, kind in KINDS.items()},
    }


def _operation(address: "Address", refs: dict[type, Any]) -> dict[str, Any]:
    answers = address.answers
    content: dict[str, Any]
    if isinstance(answers, str):
        content = {answers: {}}
    elif address.lines and address.reads is None:
        # OpenAPI 3.1 has no words for the structure of a line.
        content = {"application/jsonl": {"x-line": refs[answers]}}
    else:
        content = {"application/json": {"schema": refs[answers]}}
    problem = {"application/problem+json": {"schema": refs[ProblemAnswer]}}
    operation: dict[str, Any] = {
        "summary": address.summary,
        "operationId": "_".join(re.findall(r"\w+", f"{address.method.lower()}{address.path}")),
        "responses": {
            str(address.code): {"description": "The answer.", "content": content},
            "default": {"description": "A problem, see x-problems.", "content": problem},
        },
        "security": [] if address.role is None else [{"bearer": []}, {"key": []}],
    }
    names = [part.partition("}")[0] for part in address.path.split("{")[1:]]
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if address.path == "/readyz":
        operation["responses"]["503"] = operation["responses"]["200"]
    if address.reads is not None:
        operation["requestBody"] = {"required": True, "content": _body(address, refs)}
    return operation


def _body(address: "Address", refs: dict[type, Any]) -> dict[str, Any]:
    shape = address.reads
    assert shape is not None
    if address.lines:
        return {"application/jsonl": {"x-line": refs[shape]}}
    content: dict[str, Any] = {"application/json": {"schema": refs[shape]}}
    if shape is ScoreRequest:
        parts = {"request": refs[shape], "image": {"type": "string", "format": "binary"}}
        content["multipart/form-data"] = {"schema": {"type": "object", "properties": parts}}
    return content
