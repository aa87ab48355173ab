from __future__ import annotations

import pytest

from pipelines.errors import BundleError
from pipelines.serving.sessions import make_session


@pytest.mark.parametrize("data", [b"", b"noise" * 50, b"\x08\x07"], ids=["empty", "noise", "stub"])
def test_what_is_no_model_is_a_bundle_error(data):
    with pytest.raises(BundleError, match=r"the model file was not loaded"):
        make_session(data)


def test_threads_wait_without_spinning(tiny_onnx):
    options = make_session(tiny_onnx, n_threads=2).get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
