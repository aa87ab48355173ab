// A photo's bytes, or a frame of the camera -> rows of RGB, upright, over white.
//
// Chromium's JPEG, PNG, WebP and AVIF decoders gave Pillow's pixels to the last bit on every picture
// tried, those of a large JPEG at 1/2, 1/4 and 1/8 of its size too. What may differ from
// pipelines/serving/predictor.py, and by how little: half-transparent pixels may be rounded to the
// neighbour, and a browser that cannot decode at a fraction of the size decodes a large JPEG in full
// (the model's pixels then differ by 0.4 of 255 on average).

import { isDeep, readDeep } from "./deep_png.ts";
import type { PreprocessSpec } from "./preprocess.ts";
import { Refusal } from "./refusal.ts";
import type { Rows } from "./resample.ts";
import { MAX_PIXELS, type Seen, type Size, sniff } from "./sniff.ts";

/** Rows on the canvas at a time: phones refuse canvases of a whole 48-megapixel photo. */
const STRIP_ROWS = 64;
/** A JPEG is decoded no smaller than so many times what the model needs, as by the predictor. */
const DECODED_SIDES = 2;
const SCALES = [8, 4, 2, 1] as const;

/** A picture that is ready to be read, and to be let go of. */
export interface Decoded {
  readonly rows: Rows;
  /** As it is stored, upright; it may have been decoded smaller. */
  readonly stored: Size;
  /** Share of the pixels whose stored values lie outside the model's range. */
  readonly outside: number;
  /** A small copy to show, of a picture that would cost the page too much to show itself. */
  preview(): Promise<ImageBitmap | null>;
  close(): void;
}

/** A picture of more pixels is shown as a copy with this longer side. */
const SHOWN_PIXELS = 4_000_000;
const PREVIEW_PX = 1600;

/**
 * Whether a JPEG can be decoded at a fraction of its size. Browsers whose frames do not know their
 * turn show a photo lying on its side.
 */
const canScale = (): boolean => "ImageDecoder" in globalThis && "rotation" in VideoFrame.prototype;

/**
 * The decoded picture. No colour management and no premultiplied alpha, as Pillow does it; the EXIF
 * turn is applied. Throws a Refusal.
 */
export async function decode(file: Blob, spec: PreprocessSpec): Promise<Decoded> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const seen = sniff(bytes, { maxAspect: spec.maxAspect, canScale: canScale() });
  if (seen.format === "PNG" && isDeep(bytes)) {
    return { ...(await readDeep(bytes, spec.range)), stored: seen, preview: async () => null, close: () => undefined };
  }
  const scale = seen.format === "JPEG" && canScale() ? scaleOf(seen, spec) : 1;
  // By content: a browser would otherwise believe the type that came with the name.
  const type = `image/${seen.format.toLowerCase()}`;
  try {
    if (scale > 1) {
      const { bitmap, stored } = await decodeSmaller(bytes, type, seen, scale);
      return fromBitmap(bitmap, stored);
    }
    return fromBitmap(
      await createImageBitmap(new Blob([bytes], { type }), {
        imageOrientation: "from-image",
        colorSpaceConversion: "none",
        premultiplyAlpha: "none",
      }),
    );
  } catch (error) {
    throw new Refusal("refusal.damaged", {}, { cause: error });
  }
}

/** What a JPEG's sides are divided by: as much as the model allows, and at least as memory needs. */
function scaleOf({ width, height }: Seen, { resizePx, sidePx }: PreprocessSpec): number {
  const least = DECODED_SIDES * Math.max(resizePx, sidePx ?? 0);
  const wanted = SCALES.find((scale) => Math.min(Math.trunc(width / least), Math.trunc(height / least)) >= scale) ?? 1;
  const needed = [1, 2, 4].find((scale) => width * height <= MAX_PIXELS * scale * scale) ?? 8;
  return Math.max(wanted, needed);
}

async function decodeSmaller(
  bytes: Uint8Array<ArrayBuffer>,
  type: string,
  size: Seen,
  scale: number,
): Promise<{ bitmap: ImageBitmap; stored: Size }> {
  const decoder = new ImageDecoder({
    data: bytes,
    type,
    colorSpaceConversion: "none",
    desiredWidth: Math.ceil(size.width / scale),
    desiredHeight: Math.ceil(size.height / scale),
  });
  try {
    const { image } = await decoder.decode({ completeFramesOnly: true });
    // Whole, and not row by row: a part of a turned frame is another part in each browser.
    const canvas = new OffscreenCanvas(image.displayWidth, image.displayHeight);
    canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" })?.drawImage(image, 0, 0);
    const isTurned = ((image as VideoFrame & { rotation: number }).rotation / 90) % 2 === 1;
    image.close();
    const stored = isTurned ? { width: size.height, height: size.width } : size;
    return { bitmap: canvas.transferToImageBitmap(), stored };
  } finally {
    decoder.close();
  }
}

/** The pixels of a bitmap, some rows at a time; transparency is laid over white. */
export function fromBitmap(bitmap: ImageBitmap, stored: Size = { width: bitmap.width, height: bitmap.height }): Decoded {
  const { width, height } = bitmap;
  const isScaled = stored.width !== width;
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
  const preview = async (): Promise<ImageBitmap | null> => {
    if (!isScaled && width * height <= SHOWN_PIXELS) return null;
    const share = Math.min(1, PREVIEW_PX / Math.max(width, height));
    return createImageBitmap(bitmap, { resizeWidth: Math.ceil(width * share), resizeHeight: Math.ceil(height * share), resizeQuality: "medium" });
  };
  return { rows: { width, height, read }, stored, outside: 0, preview, close: () => bitmap.close() };
}
