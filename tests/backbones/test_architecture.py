from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.backbones.architecture import MOBILENET_V2, parse
from pipelines.backbones.spec import backbone
from pipelines.config.search import SpaceParams
from pipelines.errors import ConfigError
from pipelines.search.space import Space

V2 = MOBILENET_V2.line


@given(st.integers(0, 2**31))
def test_line_says_all_of_a_network(seed):
    found = Space.of(SpaceParams()).random(np.random.default_rng(seed)).architecture
    assert parse(found.line) == found


def test_line_may_be_a_file_and_a_value_of_yaml():
    longest = Space.of(SpaceParams()).largest.line
    # With the suffix of its list of code.
    assert len(longest) <= 255 - len(".txt")
    assert not set(longest) & set("/\\:#{}[],&*?|<>=!%@ ")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("mobilenet_v2-", "resnet18-", "unknown base 'resnet18'"),
        ("-cn_r1_k1_s1_c1280", "", "8 stages; expected 9"),
        ("ir_r2_k3_s2_e6_c24", "xx_r2_k3_s2_e6_c24", "is no stage; expected one like ir_r2"),
        ("ir_r2_k3_s2_e6_c24", "ds_r2_k3_s2_c24", "expected one of ir, er"),
        ("ir_r2", "ir_r3", "expected r1 to r2"),
        ("ir_r2", "ir_r0", "expected r1 to r2"),
        ("ir_r2_k3", "ir_r2_k7", "expected k3 or k5"),
        ("cn_r1_k1", "cn_r1_k3", "expected k1"),
        ("ir_r2_k3_s2", "ir_r2_k3_s1", "expected s2"),
        ("s2_e6_c24", "s2_e7_c24", "expected e1 to e6"),
        ("s2_e6_c24", "s2_c24", "expected e1 to e6"),
        ("ds_r1_k3_s1_c16", "ds_r1_k3_s1_e2_c16", "expected no e"),
        ("e6_c24", "e6_c32", "expected c8 to c24 in steps of 8"),
        ("e6_c24", "e6_c20", "expected c8 to c24 in steps of 8"),
        ("e6_c24", "e6_c24_se0.5", "expected se0 or se0.25"),
        ("c1280", "c1280_se0.25", "expected se0"),
    ],
)
def test_line_that_asks_for_what_its_base_has_not_is_refused(old, new, says):
    assert V2.count(old) >= 1
    with pytest.raises(ConfigError, match=r"params\.yaml: train\.backbone: ") as caught:
        backbone(V2.replace(old, new, 1))
    assert says in str(caught.value)
