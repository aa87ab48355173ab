// A photo's bytes, or a frame of the camera -> rows of RGB, upright, over white.
//
// Chromium's JPEG, PNG and WebP decoders gave Pillow's pixels to the last bit on every picture tried.
// What differs from pipelines/mobile/predictor.py, and by how little: a JPEG whose shorter side has
// at least 1,024 px is decoded there at a fraction of its size (the model's pixels then differ by
// 0.4 of 255 on average) and here in full; half-transparent pixels may be rounded to the neighbour;
// TIFF is not read at all.

import { isDeepGrey, readDeepGrey } from "./deep_png.ts";
import { rowsOf } from "./preprocess.ts";
import { Refusal } from "./refusal.ts";
import type { Rows } from "./resample.ts";
import { sniff } from "./sniff.ts";

/** Rows on the canvas at a time: phones refuse canvases of a whole 48-megapixel photo. */
const STRIP_ROWS = 64;

/** A picture that is ready to be read, and to be let go of. */
export interface Decoded {
  readonly rows: Rows;
  close(): void;
}

/**
 * The decoded picture. No colour management and no premultiplied alpha, as Pillow does it; the EXIF
 * turn is applied. Throws a Refusal.
 */
export async function decode(file: Blob): Promise<Decoded> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const format = sniff(bytes);
  if (format === "PNG" && isDeepGrey(bytes)) {
    return { rows: rowsOf(await readDeepGrey(bytes)), close: () => undefined };
  }
  try {
    // By content: a browser would otherwise believe the type that came with the name.
    const blob = new Blob([bytes], { type: `image/${format.toLowerCase()}` });
    return fromBitmap(
      await createImageBitmap(blob, {
        imageOrientation: "from-image",
        colorSpaceConversion: "none",
        premultiplyAlpha: "none",
      }),
    );
  } catch (error) {
    throw new Refusal("refusal.damaged", {}, { cause: error });
  }
}

/** The pixels of a bitmap, some rows at a time; transparency is laid over white. */
export function fromBitmap(bitmap: ImageBitmap): Decoded {
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, Math.min(height, STRIP_ROWS));
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  if (!context) throw new Refusal("refusal.runtime", { reason: "2D canvas" });
  context.imageSmoothingEnabled = false;
  context.fillStyle = "#fff";
  const read = (top: number, bottom: number): Uint8ClampedArray => {
    const rows = bottom - top;
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, top, width, rows, 0, 0, width, rows);
    return context.getImageData(0, 0, width, rows).data;
  };
  return { rows: { width, height, read }, close: () => bitmap.close() };
}
