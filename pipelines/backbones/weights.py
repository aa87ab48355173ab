"""Pretrained weights by name, from the providers that a backbone's entry orders.

`imagenet` weights of a backbone come from the first provider that gives them; all failing is an
error that lists what was tried and where to put the file by hand. There is no silent fall-back to
random weights. Files are kept in the weights folder of the cache, and in ``FIELDLENS_WEIGHTS``, a
folder of files that were fetched by hand.

Run as a module, it fetches what the default backbone needs, so that a later run is offline.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.backbones.providers import Miss
from pipelines.backbones.registry import backbone, backbones
from pipelines.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """Weights and where they come from.

    Attributes:
        tensors: by name within the row of blocks, e.g. ``0.0.weight``.
        provider: which one gave them, in words.
        sha256: of the file that they were read from.
        licence: SPDX identifier.
    """

    tensors: dict[str, Tensor]
    provider: str
    sha256: str
    licence: str


def _folders(weights_dir: Path) -> list[Path]:
    by_hand = os.environ.get("FIELDLENS_WEIGHTS")
    return [weights_dir, *([Path(by_hand)] if by_hand else [])]


def load_imagenet(name: str, weights_dir: Path) -> LoadedWeights:
    """ImageNet weights of a backbone, from the first provider that gives them.

    Args:
        weights_dir: where fetched files are kept; ``FIELDLENS_WEIGHTS`` is looked at too.

    Raises:
        WeightsError: if no provider gives them; lists what was tried and where to put the file.
    """
    from torch import nn

    spec = backbone(name)
    blocks = nn.ModuleList(spec.build())
    names, shapes = zip(*((k, v.shape) for k, v in blocks.state_dict().items()), strict=True)
    tried = []
    for provider in spec.weights:
        try:
            path = provider.find(_folders(weights_dir))
            if path is None:
                _LOG.info("%s: fetching imagenet weights: %s", name, provider.title)
                path = provider.fetch(weights_dir)
            tensors = provider.tensors(path, list(names))
            wrong = [n for n, s in zip(names, shapes, strict=True) if tensors[n].shape != s]
            if wrong:
                raise Miss(f"{wrong[0]} has another shape than the backbone's")
        except Miss as miss:
            tried.append(f"{provider.title}: {miss}")
            continue
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return LoadedWeights(tensors, provider.title, sha256, provider.licence)
    raise WeightsError(
        f"{name}: no provider gave imagenet weights. Tried {'; '.join(tried)}. "
        f"Put one of these files into {weights_dir} or a folder named by FIELDLENS_WEIGHTS, or set "
        f"`weights: none` in params.yaml to train from scratch."
    )


def found_sha256(name: str, weights_dir: Path) -> str | None:
    """Hash of the file that `load_imagenet` reads, without loading it; None if it must be fetched.

    Args:
        weights_dir: as for `load_imagenet`.

    Raises:
        ConfigError: if the backbone is unknown.
    """
    for provider in backbone(name).weights:
        try:
            path = provider.find(_folders(weights_dir))
        except Miss:
            continue
        if path is not None:
            return hashlib.sha256(path.read_bytes()).hexdigest()
    return None


def status(weights_dir: Path) -> list[tuple[str, str, bool, str]]:
    """What is on this machine, without fetching anything.

    Args:
        weights_dir: where fetched files are kept.

    Returns:
        A row a provider: backbone, provider, whether its file is here and unchanged, where or why.
    """
    rows = []
    for name, spec in backbones().items():
        for provider in spec.weights:
            try:
                path = provider.find(_folders(weights_dir))
            except Miss as miss:
                rows.append((name, provider.title, False, str(miss)))
                continue
            rows.append((name, provider.title, path is not None, str(path or "not fetched")))
    return rows


def main() -> int:
    """Fetch the default backbone's weights into the cache of the current folder.

    Returns:
        0 if they are there, 2 if not.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        loaded = load_imagenet("mobilenet_v2", Path(".cache") / "weights")
    except WeightsError as err:
        _LOG.error("%s: %s", type(err).__name__, err)
        return err.exit_code
    _LOG.info("mobilenet_v2: imagenet weights are here (%s)", loaded.provider)
    return 0


if __name__ == "__main__":
    sys.exit(main())
