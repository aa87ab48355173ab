"""Bytes that are changed here and there."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

Named = Iterator[tuple[str, bytes]]


def patched(data: bytes, at: int, form: str, *values: int | bytes) -> bytes:
    """The bytes with a field of `struct`'s ``form`` written over them; they get no longer."""
    field = struct.pack(form, *values)
    return (data[:at] + field + data[at + len(field) :])[: len(data)]


def spoilt(data: bytes, draw: np.random.Generator, n_bytes: int) -> bytes:
    """The bytes with so many of them drawn anew."""
    changed = bytearray(data)
    for _ in range(n_bytes):
        changed[int(draw.integers(len(data)))] = int(draw.integers(256))
    return bytes(changed)


def damaged(name: str, sound: bytes, seed: int, n: int, most_bytes: int) -> Named:
    """The bytes themselves; then so often with a few drawn anew, at most so many, and cut."""
    draw = np.random.default_rng(seed)
    yield f"sound/{name}", sound
    for number in range(n):
        yield f"{name}/flip-{number}", spoilt(sound, draw, 1 + number % most_bytes)
        yield f"{name}/cut-{number}", sound[: len(sound) * number // n]


def flipped(data: bytes, draw: np.random.Generator, n_bits: int, reach: int) -> bytes:
    """The bytes with so many bits turned over, all of them among the first ``reach`` bytes."""
    changed = bytearray(data)
    for _ in range(n_bits):
        changed[int(draw.integers(min(len(data), reach)))] ^= 1 << int(draw.integers(8))
    return bytes(changed)
