"""`fieldlens weights`: which weights there are, and getting, checking and taking in their files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.columns import table
from pipelines.commands.answer import Answer
from pipelines.errors import ConfigError
from pipelines.paths import Paths

if TYPE_CHECKING:
    from pipelines.backbones.weights import Found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, and with which network's file."""
    parser.add_argument(
        "action",
        choices=("list", "fetch", "verify", "import"),
        help="list: every backbone, and who has weights of it; fetch: bring the file of NAME here; "
        "verify: check the hashes of what is here; import: take in FILE as weights of NAME",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="of a backbone, as in params.yaml")
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="safetensors, or tensors saved by torch"
    )
    parser.add_argument("--width", type=float, default=1.0, help="width multiplier (1)")
    parser.add_argument(
        "--licence",
        default="NOASSERTION",
        metavar="SPDX",
        help="of a file that no provider knows; it goes into every bundle trained from it",
    )


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """What the action asks for.

    Raises:
        ConfigError: if NAME or FILE is missing, or there is no such backbone or width.
        WeightsError: if nobody gives the weights, or a file is of another network.
    """
    wanted = {"fetch": 1, "import": 2}.get(arguments.action, 0)
    got = [each for each in (arguments.name, arguments.file) if each is not None]
    if len(got) != wanted:
        usage = " ".join(["fieldlens weights", arguments.action, *("NAME", "FILE")[:wanted]])
        raise ConfigError(f"weights {arguments.action}: expected `{usage}`, got {len(got)} names.")
    if arguments.action == "list":
        return _list(paths)
    if arguments.action == "verify":
        return _verify(paths)
    if arguments.action == "fetch":
        return _fetch(arguments.name, arguments.width, paths)
    return _import(arguments.name, arguments.width, arguments.file, arguments.licence, paths)


def _list(paths: Paths) -> Answer:
    from pipelines.backbones.spec import all_widths
    from pipelines.backbones.weights import inspect

    found: dict[str, list[Found]] = {}
    for each in inspect(paths.weights_dir):
        found.setdefault(each.network.title, []).append(each)
    rows = []
    for network in all_widths():
        name, width = network.spec.name, f"{network.width:g}"
        rows += [
            (name, width, each.provider.title, _licence(each), _state(each))
            for each in found.get(network.title, [])
        ] or [(name, width, "none known", "", "")]
    return Answer(table(("BACKBONE", "WIDTH", "PROVIDER", "LICENCE", "HERE"), rows))


def _licence(found: Found) -> str:
    from pipelines.backbones.weights import Imported

    # It stands in the file, and of one that has changed nothing is believed.
    is_doubted = bool(found.fault) and isinstance(found.provider, Imported)
    return "" if is_doubted else found.provider.licence


def _state(found: Found) -> str:
    return "changed" if found.fault else "yes" if found.path else "-"


def _verify(paths: Paths) -> Answer:
    from pipelines.backbones.weights import inspect

    found = inspect(paths.weights_dir)
    here = {each.path: each for each in found if each.path is not None}
    faults = tuple(dict.fromkeys(each.fault for each in found if each.fault))
    lines = [f"{path}: {each.provider.title}" for path, each in here.items()]
    summary = f"{len(here)} files are as they should be, {len(faults)} are not."
    if faults:
        summary += " Remove those; `fieldlens weights fetch NAME` then brings another."
    return Answer("\n".join([*lines, summary]), faults, 2 if faults else 0)


def _fetch(name: str, width: float, paths: Paths) -> Answer:
    from pipelines.backbones.spec import backbone
    from pipelines.backbones.weights import load_imagenet

    loaded = load_imagenet(name, paths.weights_dir, width)
    return Answer(
        f"{backbone(name, width).title}: {loaded.provider}, licence {loaded.licence}, "
        f"sha256 {loaded.sha256}"
    )


def _import(name: str, width: float, file: Path, licence: str, paths: Paths) -> Answer:
    from pipelines.backbones.by_hand import import_file
    from pipelines.backbones.spec import backbone
    from pipelines.backbones.weights import Imported

    network = backbone(name, width)
    provider = import_file(network, file, paths.weights_dir, licence)
    if isinstance(provider, Imported):
        return Answer(
            f"{network.title}: taken in as {provider.path}, licence {licence}. It goes before all "
            f"other weights of this backbone until the file is removed."
        )
    return Answer(
        f"{network.title}: the file is that of {provider.title}, licence {provider.licence}; it is "
        f"in {paths.weights_dir}."
    )
