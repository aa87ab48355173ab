"""From the bytes of a phone's 12-megapixel photo to the answer: ours, and the plain way.

Ours is what the app does: a JPEG decoded at a fraction of its size, int8 in ONNX Runtime. The plain
way decodes every pixel with Pillow, turns and resizes it, and asks eager torch: torchvision's own
network, as a script of thirty lines has it, and our float model (norms folded, channels last),
which is quicker. One thread, the four in turns in one process, so that a busy machine is unfair to
all alike. The photo is a test picture enlarged to 4000 x 3000 px, with a sensor's noise and an EXIF
rotation. Needs bundles and float models (`make repro`, or `make real` and --root .real):

    python benchmarks/first_answer.py --root .real --task tomato_leaf
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
from latency import eager, unfolded
from numpy.typing import NDArray
from PIL import Image, ImageOps
from report import header, make_parser, run, say, table

from apps import answers, frame
from apps.inference import answer_picture
from apps.models import ROOT_VARIABLE, load_model
from apps.texts import load_texts
from pipelines.data.images import open_image
from pipelines.data.manifest import in_split, read_manifest
from pipelines.export.latency import paired_ms, speedup
from pipelines.paths import Paths, TaskPaths
from pipelines.serving.predictor import Predictor

#: Of a phone's ordinary photo; with quality 90 about 3 MB.
_SIZE_PX = (4000, 3000)
_QUALITY = 90
#: Standard deviation of the noise, of 255.
_NOISE = 6.0
_EXIF_ORIENTATION, _TURNED = 0x0112, 6


def main() -> int:
    """Parse, time, print."""
    parser = make_parser(__doc__, has_root=True)
    parser.add_argument("--task", default="tomato_leaf", help="whose model (tomato_leaf)")
    parser.add_argument("--runs", type=int, default=15, help="counted runs of each (15)")
    return run(compare, parser)


def compare(arguments: argparse.Namespace) -> None:
    """Print times, ratios, and how far the two answers are apart."""
    os.environ[ROOT_VARIABLE] = str(arguments.root)
    files = Paths(arguments.root).task(arguments.task)
    model, t = load_model(arguments.task), load_texts("en")
    predictor = model.predictor()
    data = photo(files)

    def drawn() -> str:
        shot = answer_picture(model, data, key="photo", name="photo.jpg")
        said = answers.answer(t, model, shot.prediction, {})
        return frame.phone(t, model, "eco", frame.picture(t, shot) + said)

    ms = paired_ms(
        {
            "answer": lambda: predictor.predict(data),
            "drawn": drawn,
            "ours": plain(predictor, data, partial(eager, files)),
            "plain": plain(predictor, data, partial(unfolded, files)),
        },
        arguments.runs,
    )
    header("From the bytes of a 12-megapixel photo to the answer")
    say(
        f"{arguments.task}, {predictor.precision}, one thread, {len(data) / 1e6:.1f} MB of JPEG, "
        f"median of {arguments.runs} runs in turns; ratios are medians over pairs of runs.",
        "",
    )
    names = {
        "answer": "fractional decode, resize, int8",
        "drawn": "the same, with the picture and the answer drawn for the page",
        "ours": "Pillow full decode, resize, our float model in eager torch",
        "plain": "Pillow full decode, resize, torchvision's network in eager torch",
    }
    table(
        ["way", "ms", "times faster than ours in torch", "than torchvision's"],
        [
            [
                names[key],
                f"{statistics.median(ms[key]):.0f}",
                *(f"{speedup(ms[slow], ms[key]):.2f}" for slow in ("ours", "plain")),
            ]
            for key in names
        ],
    )
    decoded = open_image(data, reading=predictor.reading).rgb
    full, some = (predictor.pixels(image) for image in (decoded, predictor.open(data)))
    distance = np.abs(full.astype(np.int64) - some)
    shares = [predictor.predict(source).probabilities for source in (decoded, data)]
    apart = max(abs(shares[0][label] - shares[1][label]) for label in shares[0])
    say(
        f"Pixels of the model's input against a full decode: {distance.mean():.2f} of 255 apart on "
        f"average, {distance.max()} at most; probabilities {apart:.4f} at most.",
        "",
    )


def photo(files: TaskPaths) -> bytes:
    """A test picture as a phone would have stored it."""
    entry = in_split(read_manifest(files.manifest), "test")[0]
    image = open_image(files.raw_dir / entry.path).rgb
    large = np.asarray(image.resize(_SIZE_PX, Image.Resampling.LANCZOS), dtype=np.float32)
    noise = np.random.default_rng(0).normal(0, _NOISE, size=(*large.shape[:2], 1))
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = _TURNED
    buffer = io.BytesIO()
    picture = Image.fromarray(np.clip(large + noise, 0, 255).astype(np.uint8))
    picture.save(buffer, "JPEG", quality=_QUALITY, exif=exif)
    return buffer.getvalue()


def plain(
    predictor: Predictor, data: bytes, asks: Callable[[NDArray[np.uint8]], Callable[[], object]]
) -> Callable[[], object]:
    """What a script of thirty lines does, with a network that is asked for some pixels."""
    spec = predictor.bundle.preprocess
    pixels = np.zeros((1, spec.crop_px, spec.crop_px, 3), dtype=np.uint8)
    ask = asks(pixels)

    def answer() -> object:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        scale = spec.resize_px / min(image.size)
        small = image.resize(
            (round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR
        )
        left, top = (small.width - spec.crop_px) // 2, (small.height - spec.crop_px) // 2
        box = (left, top, left + spec.crop_px, top + spec.crop_px)
        pixels[0] = np.asarray(small.crop(box))
        return ask()

    return answer


if __name__ == "__main__":
    sys.exit(main())
