from __future__ import annotations

import numpy as np
import pytest

from pipelines.errors import DataError
from pipelines.validation.blind import blind_scores


@pytest.mark.parametrize("kind", [str, np.str_])
def test_single_label_is_named_as_a_person_writes_it(kind):
    labels = [kind("with_mask")] * 4
    with pytest.raises(DataError, match=r"^all images are 'with_mask': there is nothing"):
        blind_scores({}, labels, list("abcd"), folds=2, seed=1, resamples=10)
