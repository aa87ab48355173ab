"""Photographs of parts under a fixed camera, drawn so that anybody can make more of them."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SIZE_PX = (480, 360)


@dataclass(frozen=True, slots=True)
class Camera:
    """What changes from one photograph to the next.

    Attributes:
        shake_px: the whole picture moves by up to so much.
        light: brightness changes by up to this share.
        noise: standard deviation of the sensor's noise, grey levels.
        belt_px: the part lies up to so far from its place.
        has_clock: whether a time is written into the picture.
        has_hand: whether something small stands about at the rim.
    """

    shake_px: int = 0
    light: float = 0.0
    noise: float = 2.5
    belt_px: int = 0
    has_clock: bool = False
    has_hand: bool = False


CAMERAS = {
    "still": Camera(),
    "shaken": Camera(shake_px=4, light=0.04),
    "lamp": Camera(light=0.12, noise=4.0),
    "belt": Camera(belt_px=25, light=0.03),
    "clock": Camera(has_clock=True, light=0.02),
    "hand": Camera(has_hand=True, shake_px=1),
    "clean": Camera(noise=0.0, light=0.05),
}


def part(camera: Camera, rng: np.random.Generator, number: int, is_scratched: bool) -> Image.Image:
    """One photograph of a part; the room is the same each time, and a clock shows the number."""
    room = np.random.default_rng(99).integers(30, 226, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(room).resize(SIZE_PX, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    x, y = (150 + rng.integers(-camera.belt_px, camera.belt_px + 1), 90)
    draw.rectangle((x, y, x + 180, y + 180), fill=(150, 150, 154))
    draw.ellipse((x + 60, y + 50, x + 120, y + 130), fill=(80, 80, 84))
    if is_scratched:
        left, top = int(x + rng.integers(10, 140)), int(y + rng.integers(15, 160))
        draw.line(
            (left, top, left + int(rng.integers(18, 34)), top + int(rng.integers(-12, 13))),
            fill=(232, 232, 226),
            width=4,
        )
    if camera.has_hand:
        left, top = int(rng.integers(0, 420)), int(rng.integers(0, 60))
        draw.ellipse((left, top, left + 40, top + 26), fill=(210, 160, 130))
    if camera.has_clock:
        draw.rectangle((4, 336, 150, 356), fill=(0, 0, 0))
        draw.text((8, 340), f"2026-11-27 10:{number // 60:02d}:{number % 60:02d}", fill=(255,) * 3)
    pixels = np.asarray(image, np.float32)
    shift = rng.integers(-camera.shake_px, camera.shake_px + 1, 2)
    pixels = np.roll(pixels, tuple(shift), axis=(0, 1))
    pixels = pixels * (1 + rng.uniform(-camera.light, camera.light))
    pixels = pixels + rng.normal(0, camera.noise, pixels.shape) if camera.noise else pixels
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 92) -> bytes:
    """A picture as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
