from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml.error import YAMLError

from pipelines.errors import ConfigError
from pipelines.strict_yaml import MAX_BYTES, MAX_LEVELS, read_yaml


def written(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{b: ", "}")])
def test_brackets_as_deep_as_is_allowed_are_read(tmp_path, opening, closing):
    # The document is the first level.
    n_levels = MAX_LEVELS - 1
    value = read_yaml(written(tmp_path, f"a: {opening * n_levels}1{closing * n_levels}"))["a"]
    for _ in range(n_levels):
        value = value[0] if isinstance(value, list) else value["b"]
    assert value == 1


@pytest.mark.parametrize("n_levels", [MAX_LEVELS + 2, 5_000, MAX_BYTES - 10])
@pytest.mark.parametrize("opening", ["[", "{", "[{"])
def test_brackets_too_deep_end_the_reading_where_they_are(tmp_path, n_levels, opening):
    path = written(tmp_path, ("a: " + opening * n_levels)[:MAX_BYTES])
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert str(caught.value) == f"{path}: not valid YAML: more than {MAX_LEVELS} levels."
    # Refused by their number: not when Python's stack was full, after work for each level.
    assert isinstance(caught.value.__cause__, YAMLError)


@pytest.mark.parametrize("opening", ["- ", "? ", "a:\n "])
def test_levels_without_brackets_are_counted_too(tmp_path, opening):
    lines = (" " * n + opening.strip() for n in range(MAX_LEVELS + 2))
    path = written(tmp_path, "\n".join(lines) + " 1")
    with pytest.raises(ConfigError, match=f"not valid YAML: more than {MAX_LEVELS} levels"):
        read_yaml(path)
