"""int8, remedied step by step until it keeps its bounds on the val split.

Each step builds on the best attempt before it; a step may name several remedies, joined by ``+``,
which are then tried together. Every attempt is measured through ONNX Runtime, as the app
will run it, and written into the bundle, so that the path to the released file can be read.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.config.export import ExportParams
from pipelines.errors import ConfigError
from pipelines.export.attempts import (
    WEIGHTS_ALONE,
    Attempt,
    JudgeMaker,
    Recipe,
    best_of,
    max_bytes,
    reached,
    with_choice,
)
from pipelines.export.byte_weights import with_byte_weights
from pipelines.export.exact_sums import exact
from pipelines.export.graphs import (
    add_to_logits,
    blocks_of,
    convolutions_of,
    logits_of,
    operators_of,
    with_inner_features,
    with_short_names,
)
from pipelines.export.quantize import CALIBRATORS, equalized, rounded, static_int8, stem_nodes
from pipelines.metrics.classification import sqnr_db

_LOG = logging.getLogger(__name__)

#: Blocks that may be left in float32, at most.
_MAX_FLOAT_BLOCKS = 4
#: Calibration pictures by which a block's sensitivity is measured.
_SENSITIVITY_IMAGES = 32
#: Remedies whose files are no slower than fp32: what follows on one that holds its bounds and is.
_QUICK = frozenset({"weights"})
#: What ONNX Runtime joins with a convolution in float32, and computes alone, in four passes, where
#: bytes stand around it: such networks were slower in int8 with every remedy, or as fast with half
#: of their blocks in float32 (docs/experiments/int8.md).
_SLOW = "HardSwish"

#: Whether a file is as fast as it must be.
KeepsPace = Callable[[bytes], bool]


class Search:
    """Tries remedies on one model; holds the pictures that they are measured on."""

    def __init__(
        self,
        fp32: bytes,
        calibration: Sequence[NDArray[np.uint8]],
        val_pixels: NDArray[np.uint8],
        judge: JudgeMaker,
        params: ExportParams,
        folder: Path,
        keeps_pace: KeepsPace = lambda _: True,
    ) -> None:
        self._fp32 = fp32
        self._calibration = calibration
        self._pixels = val_pixels
        self._params = params
        self._folder = folder
        self._keeps_pace = keeps_pace
        self._reference = logits_of(fp32, val_pixels)
        self._judge = judge(self._reference)
        # Of a head on maps, the second axis counts places, and no class has weights of its own.
        n_classes = self._reference.shape[1] if self._reference.ndim == 2 else 0
        self._most_bytes = max_bytes(params.max_int8_bytes, n_classes)

    def run(self) -> list[Attempt]:
        """Every attempt in order; exactly one is chosen."""
        steps = [step.split("+") for step in self._params.remedies]
        unknown = [name for names in steps for name in names if name not in REMEDIES]
        if unknown:
            raise ConfigError(
                f"params.yaml: export.remedies: there is no remedy {unknown[0]!r}. "
                f"Expected some of {', '.join(REMEDIES)}, or several of them joined by '+'."
            )
        attempts: list[Attempt] = []
        holding: Attempt | None = None
        quick = [names for names in steps if _QUICK.intersection(names)]
        if quick and _SLOW in operators_of(self._fp32):
            steps = quick
        for names in steps:
            if holding is not None and names not in quick:
                continue
            best = best_of(attempts, self._most_bytes)
            for recipe in self._recipes(names, best.recipe if best else Recipe(self._fp32)):
                attempt = self._attempt("+".join(names), recipe)
                attempts.append(attempt)
                if not attempt.candidate.holds_bounds:
                    continue
                if not attempt.is_slow:
                    return with_choice(attempts, attempt)
                holding = holding or attempt
                break
        chosen = holding or best_of(attempts, self._most_bytes)
        if chosen is None:
            raise ConfigError("params.yaml: export.remedies: expected at least one calibrator.")
        return with_choice(attempts, chosen)

    def _recipes(self, names: Sequence[str], recipe: Recipe) -> Iterator[Recipe]:
        *first, last = names
        for name in first:
            recipe = next(REMEDIES[name](self, recipe))
        return REMEDIES[last](self, recipe)

    def int8(self, recipe: Recipe) -> bytes:
        """The file that a recipe makes."""
        if recipe.calibrator == WEIGHTS_ALONE:
            return with_short_names(with_byte_weights(with_inner_features(recipe.model)))
        plain = static_int8(
            recipe.model, self._calibration, self._folder, recipe.calibrator, recipe.float_nodes
        )
        model = with_inner_features(plain)
        return with_short_names(exact(model) if recipe.is_exact else model)

    def _attempt(self, remedy: str, recipe: Recipe) -> Attempt:
        model = self.int8(recipe)
        logits = logits_of(model, self._pixels)
        candidate, missed = reached(
            logits,
            len(model),
            self._reference,
            self._judge,
            self._params,
            remedy=remedy,
            calibrator=recipe.calibrator,
            float_nodes=recipe.float_nodes,
        )
        _LOG.info(
            "int8 by %s: agreement %.4f, %s, %.1f dB, %d bytes%s",
            remedy,
            candidate.agreement,
            ", ".join(f"{name} {value:.4f}" for name, value in candidate.metrics.items()),
            candidate.sqnr_db,
            candidate.size_bytes,
            f"; misses {'; '.join(missed)}" if missed else "; holds the bounds",
        )
        return Attempt(
            candidate, recipe, model, missed, not missed and self._is_slow(recipe, model)
        )

    def _is_slow(self, recipe: Recipe, model: bytes) -> bool:
        if recipe.calibrator == WEIGHTS_ALONE:
            # What runs are fp32's operators: a clock would only find its own noise.
            return self._params.min_speedup > 1
        return not self._keeps_pace(model)

    # -- remedies --------------------------------------------------------------------------------
    def equalize(self, recipe: Recipe) -> Iterator[Recipe]:
        """Weights and activations that suit int8 better."""
        yield replace(recipe, model=equalized(recipe.model, self._calibration))

    def round(self, recipe: Recipe) -> Iterator[Recipe]:
        """Weights rounded so that outputs change least."""
        model = rounded(recipe.model, self._calibration, recipe.float_nodes)
        yield replace(recipe, model=model)

    def float_stem(self, recipe: Recipe) -> Iterator[Recipe]:
        """The first blocks in float32."""
        yield replace(recipe, float_nodes=stem_nodes(recipe.model))

    def sum_exactly(self, recipe: Recipe) -> Iterator[Recipe]:
        """The same answers, bit for bit, on every processor."""
        yield replace(recipe, is_exact=True)

    def weights(self, _: Recipe) -> Iterator[Recipe]:
        """Weights alone as bytes, computed with in float32: a small file, and no faster one."""
        suited = equalized(self._fp32, self._calibration)
        yield Recipe(rounded(suited, self._calibration), WEIGHTS_ALONE)

    def leave_out(self, recipe: Recipe) -> Iterator[Recipe]:
        """The most sensitive blocks in float32: one, then two, and so on, while the file may grow.

        A block's sensitivity is how many dB the logits gain when it alone stays in float32. Blocks
        of one convolution are no candidates: between quantised neighbours ONNX Runtime 1.31
        quantises it again when it loads the file, with one scale for all channels (its
        WeightBiasQuantization; docs/experiments/int8.md).
        """
        pixels = np.concatenate(list(self._calibration))[:_SENSITIVITY_IMAGES]
        reference = logits_of(self._fp32, pixels)
        convolutions = convolutions_of(recipe.model)
        gains: dict[tuple[str, ...], float] = {}
        for block in blocks_of(recipe.model):
            if set(block) <= set(recipe.float_nodes) or len(convolutions & set(block)) < 2:
                continue
            trial = self.int8(replace(recipe, float_nodes=(*recipe.float_nodes, *block)))
            if len(trial) <= self._most_bytes:
                gains[block] = sqnr_db(reference, logits_of(trial, pixels))
        ranked = sorted(gains, key=gains.__getitem__, reverse=True)
        for n_blocks in range(1, min(_MAX_FLOAT_BLOCKS, len(ranked)) + 1):
            left_out = [node for block in ranked[:n_blocks] for node in block]
            yield replace(recipe, float_nodes=(*recipe.float_nodes, *left_out))

    def correct_bias(self, recipe: Recipe) -> Iterator[Recipe]:
        """The mean error of the logits on calibration pictures, taken off the head's bias.

        References:
            Nagel et al. 2019, "Data-free quantization through weight equalization and bias
            correction", section 4.2, at the last layer, where it can be measured directly.
        """
        pixels = np.concatenate(list(self._calibration))
        error = logits_of(self._fp32, pixels) - logits_of(self.int8(recipe), pixels)
        yield replace(recipe, model=add_to_logits(recipe.model, error.mean(axis=0)))


def _calibrator(name: str) -> Callable[[Search, Recipe], Iterator[Recipe]]:
    return lambda _, recipe: iter([replace(recipe, calibrator=name)])


#: By name: what to try next, from the best recipe so far.
REMEDIES: dict[str, Callable[[Search, Recipe], Iterator[Recipe]]] = {
    **{name: _calibrator(name) for name in CALIBRATORS},
    "float_stem": Search.float_stem,
    "equalize": Search.equalize,
    "round": Search.round,
    "exact": Search.sum_exactly,
    "leave_out": Search.leave_out,
    "bias_correction": Search.correct_bias,
    "weights": Search.weights,
}


def search_int8(
    fp32: bytes,
    calibration: Sequence[NDArray[np.uint8]],
    val_pixels: NDArray[np.uint8],
    judge: JudgeMaker,
    params: ExportParams,
    keeps_pace: KeepsPace = lambda _: True,
) -> list[Attempt]:
    """Every quantisation tried, in order, one of them chosen: the first that holds the bounds.

    Where that is slow, what may be faster is tried, and chosen if it holds them, too.

    Args:
        fp32: ONNX bytes of the float model.
        calibration: batches of train pictures, each (n, h, w, 3).
        val_pixels: (n, h, w, 3).
        judge: of the kind, for the pictures of val.
        keeps_pace: is asked about files that hold the bounds.

    Raises:
        ConfigError: if a remedy is unknown, or there is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        return Search(fp32, calibration, val_pixels, judge, params, Path(folder), keeps_pace).run()
