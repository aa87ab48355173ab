"""What is true of a picture of an embedding: whose it is, and on which occasion it was taken.

In the manifest as a JSON list of two names; as numbers, a name's are the same in every split.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.data.manifest import Entry


def written(identity: str, occasion: str) -> str:
    """As it stands in the manifest."""
    return json.dumps([identity, occasion], ensure_ascii=False)


def identity_of(truth: str) -> str:
    """The identity's name."""
    identity: str = json.loads(truth)[0]
    return identity


def known_of(entries: Sequence[Entry]) -> NDArray[np.int64]:
    """(n, 2) identities and occasions as numbers."""
    names = [json.loads(entry.truth) for entry in entries]
    return np.array([[_number(each) for each in pair] for pair in names], np.int64).reshape(-1, 2)


def _number(name: str) -> int:
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "little", signed=True)
