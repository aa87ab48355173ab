"""YAML 1.2 in, validated values out, one clear line when that fails.

Used by `config` and `card`, so that both files are read by one parser (ruamel, as DVC reads them:
`1e-3` is a number and the label `no` a string) and complain in one form.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipelines.errors import ConfigError


class Strict(BaseModel):
    """A frozen model that knows each of its keys and converts nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


M = TypeVar("M", bound=BaseModel)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds; keys that start with ``_`` (anchors) are dropped.

    Args:
        path: an UTF-8 file of YAML 1.2.

    Raises:
        ConfigError: if the file is absent, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: there is no such file. Run this in a Fieldlens project, or give --root."
        ) from None
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {err}.") from err
    try:
        document = YAML(typ="safe", pure=True).load(text)
    except YAMLError as err:
        where = getattr(err, "problem_mark", None)
        line = f":{where.line + 1}" if where is not None else ""
        problem = getattr(err, "problem", None) or str(err).splitlines()[0]
        raise ConfigError(f"{path}{line}: not valid YAML: {problem}.") from err
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, got {type(document).__name__}.")
    return {key: value for key, value in document.items() if not str(key).startswith("_")}


def validate(model: type[M], document: object, path: Path, prefix: str = "") -> M:
    """A document as a value of ``model``.

    Args:
        model: the type to build.
        document: what `read_yaml` gave, or a part of it.
        path: the file, for the message.
        prefix: keys above the part, for the message, e.g. ``tasks.fish``.

    Raises:
        ConfigError: names the file, the key, the rule and the value of the first fault, and says
            how many more there are.
    """
    try:
        return model.model_validate(document)
    except ValidationError as err:
        # A misspelt key is two faults, and the unknown key says more than the one that is missing.
        faults = sorted(
            err.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden"
        )
        first = faults[0]
        key = ".".join([*([prefix] if prefix else []), *(str(part) for part in first["loc"])])
        got = repr(first["input"])
        got = got if len(got) <= 60 else got[:57] + "..."
        more = f" ({len(faults) - 1} more faults)" if len(faults) > 1 else ""
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{path}: {key or '(top level)'}: {message} (got {got}).{more}") from err
