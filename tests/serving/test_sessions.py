from __future__ import annotations

import numpy as np
import pytest

from pipelines.errors import BundleError
from pipelines.serving.sessions import check_interface, make_session
from tests.conftest import mean_colour_net

PIXELS, LOGITS = [-1, 8, 8, 3], {"logits": [-1, 2]}


def test_what_passes_the_vetting_and_cannot_run_is_a_bundle_error():
    model = mean_colour_net(np.ones((3, 2)), np.zeros(2), 8)
    model.graph.node[0].input[0] = "nowhere"
    with pytest.raises(BundleError, match=r"ONNX Runtime .* cannot load the model: .*nowhere"):
        make_session(model.SerializeToString())


def test_threads_wait_without_spinning(tiny_onnx):
    options = make_session(tiny_onnx, n_threads=2).get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize(
    ("inputs", "outputs", "reason"),
    [
        ({"image": PIXELS}, LOGITS, "input 'image': .* got only pixels"),
        ({"pixels": [-1, 9, 8, 3]}, LOGITS, r"expected \[-1, 9, 8, 3\], got \['n', 8, 8, 3\]"),
        ({"pixels": [*PIXELS, 1]}, LOGITS, "input 'pixels'"),
        ({"pixels": PIXELS}, {"boxes": [-1, 2]}, "output 'boxes'"),
        ({"pixels": PIXELS}, {"logits": [-1, 7]}, "output 'logits'"),
    ],
)
def test_session_that_does_not_fit_its_bundle_is_refused(inputs, outputs, reason):
    session = make_session(mean_colour_net(np.ones((3, 2)), np.zeros(2), 8).SerializeToString())
    check_interface(session, {"pixels": PIXELS}, LOGITS)
    with pytest.raises(BundleError, match=reason):
        check_interface(session, inputs, outputs)
