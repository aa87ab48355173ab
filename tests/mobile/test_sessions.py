from __future__ import annotations

import pytest

from pipelines.errors import BundleError
from pipelines.mobile.sessions import make_session


@pytest.mark.parametrize("data", [b"", b"noise" * 50, b"\x08\x07"], ids=["empty", "noise", "stub"])
def test_what_is_no_model_is_a_bundle_error(data):
    with pytest.raises(BundleError, match=r"the model file was not loaded"):
        make_session(data)
