"""Faces first, then an answer for each: the mask app's own way of looking at a scene."""

from __future__ import annotations

import io
from pathlib import Path

import streamlit as st
from PIL import Image, ImageDraw, ImageFont

from apps.answers import box_colour, tone_of
from apps.models import N_THREADS, Model, project
from apps.session import Face, Scene, Shot, jpeg
from apps.tones import Tones
from pipelines.serving.faces import FaceBox, FaceDetector

#: A smaller face has too few pixels to show where a mask sits.
MIN_FACE_PX = 36
MAX_FACES = 30
#: Side of the square that the model is shown, in sides of the face's box. Training pictures hold a
#: face that fills about 0.7 of the area, as measured with this detector (docs/experiments/apps.md).
_CROP = 1.2
_LINE_SHARE = 1 / 160
_FONT_SHARE = 1 / 26
_JPEG_QUALITY = 86


def find(model: Model, image: Image.Image) -> Scene:
    """The faces in a picture, and the model's answer for each."""
    detector = _detector()
    if detector is None:
        return Scene(has_detector=False)
    predictor = model.predictor()
    found = detector.find(image)
    large = [box for box in found if box.side_px >= MIN_FACE_PX][:MAX_FACES]
    width, height = image.size
    faces = tuple(
        Face(
            (box.left / width, box.top / height, box.right / width, box.bottom / height),
            predictor.predict(image.crop(around(box, image.size))),
        )
        for box in large
    )
    return Scene(faces, n_too_small=len(found) - len(large))


def around(box: FaceBox, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The square around a face that the model is shown, as far as it lies in the picture."""
    half = box.side_px * _CROP / 2
    middle_x, middle_y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    return (
        max(0, round(middle_x - half)),
        max(0, round(middle_y - half)),
        min(size[0], round(middle_x + half)),
        min(size[1], round(middle_y + half)),
    )


def draw(shot: Shot, tones: Tones) -> bytes:
    """The picture with a numbered box around each face, in the colour of its alarm, as JPEG."""
    image = Image.open(io.BytesIO(shot.view)).convert("RGB")
    pen = ImageDraw.Draw(image)
    line_px = max(2, round(max(image.size) * _LINE_SHARE))
    font = ImageFont.load_default(max(12, round(max(image.size) * _FONT_SHARE)))
    for number, face in enumerate(shot.scene.faces if shot.scene else (), start=1):
        left, top, right, bottom = (
            share * side for share, side in zip(face.box, image.size * 2, strict=True)
        )
        colour = box_colour(tone_of(face.prediction, tones))
        pen.rectangle((left, top, right, bottom), outline="#0c1210", width=line_px + 2)
        pen.rectangle((left, top, right, bottom), outline=colour, width=line_px)
        words = str(number)
        wide = pen.textlength(words, font=font) + 3 * line_px
        high = font.size * 1.25 if isinstance(font, ImageFont.FreeTypeFont) else 16
        # Above the box where there is room, so that the face stays free.
        above = max(0.0, top - high)
        pen.rectangle((left, above, left + wide, above + high), fill=colour)
        pen.text((left + wide / 2, above + high / 2), words, fill="#0c1210", font=font, anchor="mm")
    return jpeg(image, _JPEG_QUALITY)


def _detector() -> FaceDetector | None:
    path = project().face_model
    return _load(str(path), path.stat().st_mtime_ns) if path.is_file() else None


@st.cache_resource(show_spinner=False, max_entries=1)
def _load(path: str, _version: int) -> FaceDetector:
    return FaceDetector.load(Path(path), n_threads=N_THREADS)
