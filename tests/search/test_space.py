from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.backbones.cost import cost
from pipelines.backbones.spec import backbone
from pipelines.config.search import SpaceParams
from pipelines.search.space import PX, Network, Space

SPACE = Space.of(SpaceParams())


@given(st.integers(0, 2**31))
def test_choices_and_networks_are_each_others_inverse(seed):
    found = SPACE.random(np.random.default_rng(seed))
    choice = SPACE.choice(found)
    assert list(choice) == [each.name for each in SPACE.decisions]
    assert all(choice[each.name] in each.options for each in SPACE.decisions)
    assert SPACE.network(choice) == found


def test_base_stands_at_the_end_of_every_decision():
    last = {each.name: each.options[-1] for each in SPACE.decisions}
    assert SPACE.network(last) == SPACE.base_at(max(SPACE.params.image_px))


def adds(found: Network) -> int:
    return cost(backbone(found.line), 96, 2).multiply_adds


@pytest.mark.parametrize("seed", range(3))
def test_smallest_and_largest_bound_the_rest(seed):
    found = SPACE.random(np.random.default_rng(seed))
    choice = {**SPACE.choice(found), **{n: "ir" for n in SPACE.choice(found) if n.endswith("tor")}}
    plain = SPACE.network(choice)
    assert adds(SPACE.smallest) < adds(plain) < adds(SPACE.largest)


def test_one_option_is_no_decision():
    space = Space.of(SpaceParams(image_px=(96,), kernels=(3,), squeeze=False, fused_up_to=0))
    names = {each.name.rpartition(".")[2] for each in space.decisions}
    assert names == {"channels", "expansion", "repeats"}
    assert space.smallest.image_px == 96
    assert PX not in space.choice(space.smallest)
    assert space.size == np.prod([len(each.options) for each in space.decisions])
