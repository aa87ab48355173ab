"""What has been found out about networks: one line a network in a file that only grows.

A search asks no network twice: what has a line is answered from it, in whichever study it is asked
again. Lines are the search's whole memory: its controllers are replayed from them.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.atomic import storage_errors
from pipelines.backbones.architecture import parse
from pipelines.search.cells import key_of
from pipelines.search.space import Network

_LOG = logging.getLogger(__name__)

_Positive = Annotated[float, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Score(_Part):
    """What a network is worth and costs.

    Attributes:
        accuracy: of the val split, in [0, 1].
        ratio: latency as a multiple of the reference's.
        ms: latency; the ratio times the search's one latency of the reference, so that an hour in
            which the machine was slow slows no network.
        refusal: why the latency is no measurement; None where it is one.
    """

    accuracy: Annotated[float, Field(ge=0, le=1)]
    ratio: _Positive
    ms: _Positive
    refusal: str | None = None


class Record(_Part):
    """A line: a network's score, or why there is none.

    Attributes:
        key: hash of all that it depends on.
        line: of the architecture.
        image_px: side of the input.
        score: None where the network failed.
        error: why it failed.
        seconds: that it took, of the wall's clock.
    """

    key: str
    line: str
    image_px: int
    score: Score | None = None
    error: str | None = None
    seconds: Annotated[float, Field(ge=0)] = 0.0

    @property
    def is_sound(self) -> bool:
        """Whether there is a score, and its latency is a measurement."""
        return self.score is not None and self.score.refusal is None


class Records:
    """The lines of one file; one process at a time may add to them."""

    def __init__(self, file: Path, made_of: object) -> None:
        """Read what is there. A line that a killed process tore is as if it were not.

        Args:
            file: need not be there.
            made_of: all that scores depend on beside the network (data, weights, code, precision,
                processor), as JSON knows it; lines of something else stay, and answer nothing.
        """
        self._file = file
        self._made_of = made_of
        self._by_key = {record.key: record for record in read_records(file)}

    def key(self, network: Network) -> str:
        """A hash of all that a network's score depends on."""
        return key_of([self._made_of, network.line, network.image_px])

    def get(self, network: Network) -> Record | None:
        """What is known of a network; of several lines the last."""
        return self._by_key.get(self.key(network))

    @property
    def networks(self) -> list[Network]:
        """Those about which something is known, in the order in which they were asked."""
        every = {
            key: Network(parse(record.line), record.image_px)
            for key, record in self._by_key.items()
        }
        return [network for key, network in every.items() if self.key(network) == key]

    def add(
        self, network: Network, score: Score | None, error: str | None, seconds: float
    ) -> Record:
        """Keep what a network came to.

        Raises:
            StorageError: if the disk is full or forbids it.
        """
        record = Record(
            key=self.key(network),
            line=network.line,
            image_px=network.image_px,
            score=score,
            error=error,
            seconds=round(seconds, 3),
        )
        with storage_errors(self._file):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a+b") as stream:
                # What was torn off becomes a line of its own.
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - 1))
                end = b"" if stream.read(1) in (b"", b"\n") else b"\n"
                stream.write(end + record.model_dump_json().encode() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
        self._by_key[record.key] = record
        return record


def read_records(file: Path) -> list[Record]:
    """Every whole line of a file, whatever it was made of; none where there is no file."""
    try:
        lines = file.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in filter(None, lines):
        try:
            found.append(Record.model_validate_json(line))
        except ValidationError:
            _LOG.debug("%s: a line of %d bytes is torn; it is asked again", file, len(line))
    return found
