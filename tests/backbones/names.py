"""Backbones by name, for tests that take every one of them; a few belong to the quick tests."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from pipelines.backbones.spec import backbones

#: A stranger's is held to the same, so that what is asked is known to fit more than MobileNets.
NAMES = ("toy", *backbones())
#: Small ones of different make: separable, inverted, with squeeze-and-excite, residual, shuffled,
#: and one without norms or padding.
QUICK = frozenset(
    {"toy", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "resnet18", "shufflenet_v2"}
    | {"squeezenet"}
)


def marked(name: str, quick: Collection[str] = QUICK) -> tuple[pytest.MarkDecorator, ...]:
    """The marks of a test that takes a backbone."""
    return () if name in quick else (pytest.mark.slow,)
