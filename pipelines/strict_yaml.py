"""YAML 1.2 in, validated values out, one clear line when that fails.

Used by `config` and `card`, so that both files are read by one parser (ruamel, as DVC reads them:
`1e-3` is a number and the label `no` a string), complain in one form, and bound their numbers by
the same types.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node

from pipelines.errors import ConfigError

#: A card may come with somebody's data. The parser reads about 40 kB of the worst a second; an
#: honest file has below 20 kB.
MAX_BYTES = 60_000
#: Nodes of a file once every alias is written out: a hundred bytes can stand for a billion.
MAX_NODES = 100_000


class _Short(reprlib.Repr):
    """What was found, in a few characters, however much it stands for."""

    def repr_int(self, x: int, level: int) -> str:
        """Python writes no number of more than 4,300 digits."""
        return repr(x) if abs(x) < 10**60 else "a number of more than 60 digits"


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


class Strict(BaseModel):
    """A frozen model that knows each of its keys and converts nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


M = TypeVar("M", bound=BaseModel)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a UTF-8 file holds; keys that start with ``_`` (anchors) are dropped.

    Raises:
        ConfigError: if the file is absent, not YAML, or not a mapping.
    """
    text = _read_text(path)
    try:
        document = _document(text)
    except YAMLError as err:
        where = getattr(err, "problem_mark", None)
        line = f":{where.line + 1}" if where is not None else ""
        problem = getattr(err, "problem", None) or str(err).splitlines()[0]
        raise ConfigError(f"{path}{line}: not valid YAML: {problem}.") from err
    except RecursionError as err:
        raise ConfigError(f"{path}: not valid YAML: too many levels.") from err
    # What ruamel lets pass of Python's own: a date that is none, a number of too many digits.
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as err:
        reason = reprlib.repr(" ".join(str(err).split()))
        raise ConfigError(f"{path}: not valid YAML: {reason}.") from err
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, got {type(document).__name__}.")
    return {key: value for key, value in document.items() if not str(key).startswith("_")}


def _read_text(path: Path) -> str:
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise ConfigError(f"{path}: has {size:,} bytes; expected at most {MAX_BYTES:,}.")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: there is no such file. Run this in a Fieldlens project, or give --root."
        ) from None
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {err}.") from err


def _document(text: str) -> Any:
    """What YAML text holds; aliases are counted before anything is built from them."""
    constructor, parser = YAML(typ="safe", pure=True).get_constructor_parser(text)
    try:
        node = constructor.composer.get_single_node()
        if node is None:
            return None
        if _weight(node, {}) > MAX_NODES:
            raise YAMLError(f"more than {MAX_NODES:,} values once its aliases are written out")
        return constructor.construct_document(node)
    finally:
        parser.dispose()


def _weight(node: Node, known: dict[int, int]) -> int:
    """How many nodes a node stands for; a RecursionError for an alias within its own anchor."""
    if id(node) not in known:
        parts = node.value if isinstance(node, CollectionNode) else ()
        children = chain.from_iterable(parts) if isinstance(node, MappingNode) else parts
        known[id(node)] = 1 + sum(_weight(child, known) for child in children)
    return known[id(node)]


def _line(path: Path, keys: Sequence[str]) -> str:
    """``:`` and the line of the deepest of some keys that a file of YAML has; empty without any."""
    node = YAML(typ="safe", pure=True).compose(_read_text(path))
    line = ""
    for wanted in keys:
        pairs = node.value if isinstance(node, MappingNode) else ()
        found = next((pair for pair in pairs if pair[0].value == wanted), None)
        if found is None:
            break
        line, node = f":{found[0].start_mark.line + 1}", found[1]
    return line


def validate(
    model: type[M], document: object, path: Path, prefix: str = "", *, has_lines: bool = False
) -> M:
    """A document, or its part below the keys ``prefix`` (``tasks.fish``), as a ``model``.

    Args:
        has_lines: name the fault's line, too, where the file has it.

    Raises:
        ConfigError: names the file, the key, the rule and the value of the first fault, and says
            how many more there are.
    """
    try:
        return model.model_validate(document)
    except ValidationError as err:
        # A misspelt key is two faults, and the unknown key says more than the one that is missing;
        # of what a value may be instead, a broken rule says more than another type.
        told = {"extra_forbidden": 0, "value_error": 1}
        faults = sorted(
            err.errors(include_url=False), key=lambda fault: told.get(fault["type"], len(told))
        )
        first = faults[0]
        keys = [*(prefix.split(".") if prefix else []), *(str(part) for part in first["loc"])]
        key = ".".join(keys)
        line = _line(path, keys) if has_lines else ""
        # Not by repr alone, which writes out what an alias stands for.
        got = _SHORT.repr(first["input"])
        got = got if len(got) <= 60 else got[:57] + "..."
        more = f" ({len(faults) - 1} more faults)" if len(faults) > 1 else ""
        message = first["msg"].removeprefix("Value error, ")
        where = f"{path}{line}: {key or '(top level)'}"
        raise ConfigError(f"{where}: {message} (got {got}).{more}") from err


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping laid over another: mappings are joined, anything else is replaced."""
    joined = dict(below)
    for key, value in above.items():
        under = joined.get(key)
        both_map = isinstance(value, Mapping) and isinstance(under, Mapping)
        joined[key] = overlay(under, value) if both_map else value  # type: ignore[arg-type]
    return joined


# -- number types ---------------------------------------------------------------------------------
Share = Annotated[float, Field(ge=0.0, le=1.0, strict=False)]
Positive = Annotated[float, Field(gt=0.0, strict=False)]
NotNegative = Annotated[float, Field(ge=0.0, strict=False)]
