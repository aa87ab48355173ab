"""What one person has shown the app in this session: in memory only, and gone on a button.

A `Shot` holds the picture as it is drawn and as the model saw it, never the uploaded file. Nothing
here is cached across sessions or written to disk.
"""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from pipelines.serving.predictor import Prediction

#: Pictures that a session keeps beside those that are looked at; the oldest go first.
MAX_SHOTS = 12
#: Pictures that are answered at once.
MAX_AT_ONCE = 50
#: Longer side of the picture on the phone-shaped panel, 350 px wide, on a dense screen.
_VIEW_PX = 640
_THUMB_PX = 144


@dataclass(frozen=True, slots=True)
class Face:
    """One face of a scene.

    Attributes:
        box: left, top, right, bottom, as shares of the picture's width and height.
    """

    box: tuple[float, float, float, float]
    prediction: Prediction


@dataclass(frozen=True, slots=True)
class Scene:
    """What was found before the model was asked.

    Attributes:
        faces: from left to right; empty: the whole picture was answered.
        has_detector: false where the detector is not on this machine.
    """

    faces: tuple[Face, ...] = ()
    n_too_small: int = 0
    has_detector: bool = True


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture and its answer.

    Attributes:
        key: tells the pictures of a session apart.
        truth: the true label of a test picture; None if it is not known.
        view: the picture as JPEG, for the screen.
        pixels: (crop_px, crop_px, 3) as the model saw it.
        elapsed_ms: decoding, preprocessing and model.
        scene: faces, where the task looks for them.
    """

    key: str
    name: str
    truth: str | None
    view: bytes
    thumb: bytes
    pixels: NDArray[np.uint8]
    prediction: Prediction
    elapsed_ms: float
    scene: Scene | None = None

    @property
    def answers(self) -> tuple[Prediction, ...]:
        """One a face, or the whole picture's where there is none."""
        faces = self.scene.faces if self.scene else ()
        return tuple(face.prediction for face in faces) or (self.prediction,)

    @property
    def main(self) -> Prediction:
        """The answer for the largest face, or for the whole picture where there is none."""
        faces = self.scene.faces if self.scene else ()
        return max(faces, key=_area).prediction if faces else self.prediction


def _area(face: Face) -> float:
    left, top, right, bottom = face.box
    return (right - left) * (bottom - top)


@dataclass(slots=True)
class Store:
    """The pictures of one session and task.

    Attributes:
        shown: key of a picture that is looked at again; None for the newest.
        turn: part of the widgets' keys; another number empties them.
        refused: by key, the sentence for a file that could not be answered.
    """

    shots: dict[str, Shot] = field(default_factory=dict)
    shown: str | None = None
    turn: int = 0
    picked: tuple[str, str] | None = None
    gallery_turn: int = 0
    refused: dict[str, str] = field(default_factory=dict)

    def trim(self, wanted: Collection[str]) -> None:
        """Let the oldest pictures go when there are too many.

        Args:
            wanted: keys of those that are looked at; they stay, however many.
        """
        for key in list(self.shots):
            if len(self.shots) <= max(MAX_SHOTS, len(wanted)):
                return
            if key not in wanted and key != self.shown:
                del self.shots[key]

    def forget(self) -> None:
        """Delete every picture, and empty the widgets that hold the uploaded files."""
        self.shots.clear()
        self.refused.clear()
        self.shown = None
        self.picked = None
        self.turn += 1


def store(task: str) -> Store:
    """The session's pictures of one task."""
    key = f"store-{task}"
    if key not in st.session_state:
        st.session_state[key] = Store()
    kept: Store = st.session_state[key]
    return kept


def fitted(image: Image.Image) -> Image.Image:
    """The picture no smaller than the phone on the screen can show it, nor twice as large.

    Shrunk by a whole number, the mean of each block of pixels: a tenth of a resampling's time.
    """
    return image.reduce(max(1, max(image.size) // _VIEW_PX))


def jpeg(image: Image.Image, quality: int = 84) -> bytes:
    """The picture as JPEG, without metadata."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, exif=b"")
    return buffer.getvalue()


def thumb(image: Image.Image) -> bytes:
    """A small square JPEG from the middle of a picture, shrunk by a whole number as `fitted` is."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return jpeg(image.reduce(max(1, side // _THUMB_PX), box=box))
