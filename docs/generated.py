"""The parts of the reference that are made from the code: command line, params, Python surface.

Gives Markdown (MyST); conf.py puts it in the place of ``<!-- generated: NAME -->`` when the site is
built, so that the reference cannot say what the code does not.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parents[1]
#: The package whose ``__all__`` is the public Python surface; None until it is there.
FACADE: str | None = "fieldlens"
#: Where `Params` and `Bundle` stand.
PARAMS, BUNDLE = ("pipelines.config.params", "Params"), ("pipelines.serving.bundle", "Bundle")
_VERBS = re.compile(r"^    (?P<verb>[a-z]+)(?: |$)", re.MULTILINE)


def _help(*verb: str) -> str:
    """What `fieldlens VERB --help` prints, 96 columns wide."""
    environ = {**os.environ, "COLUMNS": "96", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *verb, "--help"],
        cwd=ROOT,
        env={**environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.rstrip()


def verbs() -> list[str]:
    """The verbs of `fieldlens`, in the order of its help."""
    _, _, listed = _help().partition("\nverbs:\n")
    return [found["verb"] for found in _VERBS.finditer(listed.partition("\n\n")[0])]


def command_line() -> str:
    """`fieldlens --help`, then a section a verb."""
    parts = [f"```text\n{_help()}\n```"]
    parts += [f"## {verb}\n\n```text\n{_help(verb)}\n```" for verb in verbs()]
    return "\n\n".join(parts)


def _models_below(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_below(part)


def sections(root: type[BaseModel]) -> dict[type[BaseModel], str]:
    """Every class that a file's class is made of, each with the path of its first use.

    Args:
        root: of the whole file.
    """
    found: dict[type[BaseModel], str] = {}

    def visit(model: type[BaseModel], path: str) -> None:
        if model in found:
            return
        found[model] = path
        for name, field in model.model_fields.items():
            is_by_name = get_origin(field.annotation) is dict
            for below in _models_below(field.annotation):
                visit(below, f"{path}{name}.{'<name>.' if is_by_name else ''}")

    visit(root, "")
    return found


def _comments(model: type[BaseModel]) -> dict[str, str]:
    """By field, the ``#:`` comment above it, also where a parent class has it."""
    told: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if not (issubclass(owner, BaseModel) and owner.__module__.startswith("pipelines")):
            continue
        lines: list[str] = []
        for line in inspect.getsource(owner).splitlines():
            stripped = line.strip()
            if stripped.startswith("#:"):
                lines.append(stripped.removeprefix("#:").strip().replace("``", "`"))
            else:
                name = re.match(r"    ([a-z]\w*): ", line)
                if name and lines:
                    told[name[1]] = " ".join(lines)
                lines = []
    return told


def _in_words(schema: dict[str, Any]) -> str:
    """Type and range of a JSON schema, in one cell of a table."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(_in_words(part) for part in schema[several])
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_in_words(schema.get('items', {}))}"
    if kind == "object":
        by_pattern = list(schema.get("patternProperties", {}).values())
        values = by_pattern[0] if by_pattern else schema.get("additionalProperties")
        return f"by name, {_in_words(values)}" if isinstance(values, dict) else "by name, anything"
    bounds = (
        ("minimum", "from {}"),
        ("exclusiveMinimum", "above {}"),
        ("maximum", "to {}"),
        ("exclusiveMaximum", "below {}"),
        ("multipleOf", "a multiple of {}"),
        ("minLength", "at least {} characters"),
        ("pattern", "matching `{}`"),
    )
    ranges = [
        words.format(str(schema[key]).removesuffix(".0")) for key, words in bounds if key in schema
    ]
    named = {"boolean": "true or false", "integer": "whole number", "string": "text"}
    return ", ".join([named.get(kind, kind), *ranges])


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return ""
    value = info.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "all off" if value == type(value)() else ""
    return f"`{json.dumps(value)}`"


def _first_line(annotation: Any) -> str:
    """What a section says of itself, where the field that holds it has no comment."""
    models = list(_models_below(annotation))
    return (inspect.getdoc(models[0]) or "").partition("\n")[0] if len(models) == 1 else ""


def tables(root: type[BaseModel]) -> str:
    """A section a class of a file: each key with its type, range, default and meaning.

    Args:
        root: of the whole file.
    """
    parts: list[str] = []
    for model, path in sections(root).items():
        told = _comments(model)
        properties = model.model_json_schema()["properties"]
        rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
        for field, info in model.model_fields.items():
            words = told.get(field) or _first_line(info.annotation)
            cells = (f"`{field}`", _in_words(properties[field]), _default(info), words)
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        place = f"`{path.removesuffix('.')}`\n\n" if path else ""
        doc = (inspect.getdoc(model) or "").replace("``", "`")
        parts.append(f"## {model.__name__}\n\n{place}{doc}\n\n" + "\n".join(rows))
    return "\n\n".join(parts)


def class_of(place: tuple[str, str]) -> Any:
    """What stands at a place: module, name."""
    module, name = place
    return getattr(importlib.import_module(module), name)


def python() -> str:
    """Sphinx's directives for each public name."""
    if FACADE is None:
        return "*The package is not part of this checkout.*"
    facade = importlib.import_module(FACADE)
    parts: list[str] = []
    for name in facade.__all__:
        value = getattr(facade, name)
        if inspect.isclass(value):
            members = "" if issubclass(value, Exception) else "\n   :members:"
            parts.append(f".. autoclass:: {FACADE}.{name}{members}")
        elif callable(value):
            parts.append(f".. autofunction:: {FACADE}.{name}")
        else:
            parts.append(f".. autodata:: {FACADE}.{name}\n   :annotation:")
    return "```{eval-rst}\n" + "\n\n".join(parts) + "\n```"


#: By the name in the placeholder, what makes the part.
PARTS: dict[str, Callable[[], str]] = {
    "command_line": command_line,
    "params": lambda: tables(class_of(PARAMS)),
    "bundle": lambda: tables(class_of(BUNDLE)),
    "python": python,
}
_PLACEHOLDER = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def filled(text: str) -> str:
    """A page with its placeholders filled.

    Args:
        text: Markdown.

    Raises:
        KeyError: if a placeholder names no part.
    """
    return _PLACEHOLDER.sub(lambda found: PARTS[found[1]](), text)
