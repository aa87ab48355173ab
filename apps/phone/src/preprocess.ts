// The browser's half of pipelines/data/preprocess.py: an upright picture -> the pixels that a model
// sees. Normalisation is inside the model.

import type { Range } from "./deep_png.ts";
import { type Interpolation, type Picture, type Rows, resize } from "./resample.ts";

/** bundle.json's `preprocess`. */
export interface PreprocessSpec {
  /** The shorter side after resizing. */
  readonly resizePx: number;
  /** Side of the central square that is kept. */
  readonly cropPx: number;
  /** Of that resize. */
  readonly interpolation: Interpolation;
  /** One channel, three times. */
  readonly grey: boolean;
  /** The shorter side that every picture is brought to first; null leaves it. */
  readonly sidePx: number | null;
  /** Share of the input's side that is painted over along each edge. */
  readonly borderMask: number;
  /** The longer side becomes the input's, and what is beside the picture is painted over. */
  readonly whole: boolean;
  /** Which stored values of a picture with 16 bits a channel are black and white. */
  readonly range: Range;
  /** A picture whose longer side is more than so many times the shorter is refused. */
  readonly maxAspect: number;
}

/** Of a longer picture, only the middle is resized. */
const RESIZED_ASPECT = 4;

/** What is painted over a masked border, and beside a whole picture. */
const MASK_VALUE = 128;

/** Where the model's input shows what: px of the input are `scale` x px of the picture + `shift`. */
export interface Geometry {
  readonly scale: readonly [number, number];
  readonly shift: readonly [number, number];
}

type Size = Pick<Rows, "width" | "height">;

/** The model's input: (crop_px, crop_px, 3), in [0, 255]. */
export function preprocess(rows: Rows, spec: PreprocessSpec): Uint8Array {
  if (spec.whole) return framed(rows, spec);
  const middle = middleOf(rows);
  let source = spec.grey ? greyRows(middle) : middle;
  if (spec.sidePx !== null) source = withSide(source, spec.sidePx);
  const [width, height] = sizeWithSide(source.width, source.height, spec.resizePx);
  const left = Math.trunc((width - spec.cropPx) / 2);
  const top = Math.trunc((height - spec.cropPx) / 2);
  const box = { left, top, width: spec.cropPx, height: spec.cropPx };
  const pixels = resize(source, width, height, spec.interpolation, box).rgb;
  if (spec.grey) greyInPlace(pixels);
  return maskBorder(pixels, spec.cropPx, Math.trunc(spec.borderMask * spec.cropPx));
}

/**
 * The geometry of a picture.
 *
 * @param stored its upright size.
 * @param decoded the size that it was decoded at.
 */
export function geometryOf(stored: Size, decoded: Size, spec: PreprocessSpec): Geometry {
  const sides = [[stored.width, decoded.width], [stored.height, decoded.height]] as const;
  if (spec.whole) {
    const { size, margin } = inSquare(decoded, spec.cropPx);
    return geometry((side) => size[side]! / sides[side]![0], (side) => margin[side]!);
  }
  const middle = middleSize(decoded);
  const placed = spec.sidePx === null ? middle : sizeWithSide(...middle, spec.sidePx);
  const wider = sizeWithSide(...placed, spec.resizePx);
  // Of the middle, then of the resized picture.
  const cuts = sides.map(([, px], side) => [Math.trunc((px - middle[side]!) / 2), Math.trunc((wider[side]! - spec.cropPx) / 2)] as const);
  const scales = middle.map((px, side) => wider[side]! / px);
  return geometry(
    (side) => (scales[side]! * sides[side]![1]) / sides[side]![0],
    (side) => -cuts[side]![0] * scales[side]! - cuts[side]![1],
  );
}

function geometry(scale: (side: 0 | 1) => number, shift: (side: 0 | 1) => number): Geometry {
  return { scale: [scale(0), scale(1)], shift: [shift(0), shift(1)] };
}

/** A picture's size with its longer side at that of a square, and its left and top in it. */
function inSquare({ width, height }: Size, sidePx: number): { size: [number, number]; margin: [number, number] } {
  const scale = sidePx / Math.max(width, height);
  const fit = (px: number): number => Math.min(sidePx, Math.max(1, roundHalfToEven(px * scale)));
  const size: [number, number] = [fit(width), fit(height)];
  return { size, margin: [Math.ceil((sidePx - size[0]) / 2), Math.ceil((sidePx - size[1]) / 2)] };
}

/** The whole picture in the middle of a square, grey beside it. */
function framed(rows: Rows, { cropPx, interpolation, grey }: PreprocessSpec): Uint8Array {
  const { size: [width, height], margin: [left, top] } = inSquare(rows, cropPx);
  const { rgb } = resize(rows, width, height, interpolation);
  const pixels = new Uint8Array(cropPx * cropPx * 3).fill(MASK_VALUE);
  for (let y = 0; y < height; y++) {
    pixels.set(rgb.subarray(y * width * 3, (y + 1) * width * 3), ((top + y) * cropPx + left) * 3);
  }
  if (grey) greyInPlace(pixels);
  return pixels;
}

/** Width and height with the shorter side at `sidePx`, as Pillow's caller rounds them. */
export function sizeWithSide(widthPx: number, heightPx: number, sidePx: number): [number, number] {
  const scale = sidePx / Math.min(widthPx, heightPx);
  return [
    Math.max(sidePx, roundHalfToEven(widthPx * scale)),
    Math.max(sidePx, roundHalfToEven(heightPx * scale)),
  ];
}

/** Python's `round`: halves go to the even neighbour. */
export function roundHalfToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Luma as Pillow rounds it (ITU-R BT.601-7, section 2.5.1; Pillow's Convert.c, L24). */
export function luma(red: number, green: number, blue: number): number {
  return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >>> 16;
}

/** The middle of a long picture: all that the model may see of it, and more. */
function middleOf(rows: Rows): Rows {
  const [width, height] = middleSize(rows);
  if (width === rows.width && height === rows.height) return rows;
  const [left, above] = [Math.trunc((rows.width - width) / 2), Math.trunc((rows.height - height) / 2)];
  return {
    width,
    height,
    read(top, bottom) {
      const whole = rows.read(top + above, bottom + above);
      if (width === rows.width) return whole;
      const part = new Uint8Array((bottom - top) * width * 4);
      for (let y = 0; y < bottom - top; y++) {
        const from = (y * rows.width + left) * 4;
        part.set(whole.subarray(from, from + width * 4), y * width * 4);
      }
      return part;
    },
  };
}

function middleSize({ width, height }: Size): [number, number] {
  const most = RESIZED_ASPECT * Math.min(width, height);
  return [Math.min(width, most), Math.min(height, most)];
}

function greyRows(rows: Rows): Rows {
  return {
    width: rows.width,
    height: rows.height,
    read(top, bottom) {
      const rgba = rows.read(top, bottom);
      for (let i = 0; i < rgba.length; i += 4) {
        const grey = luma(rgba[i]!, rgba[i + 1]!, rgba[i + 2]!);
        rgba[i] = rgba[i + 1] = rgba[i + 2] = grey;
      }
      return rgba;
    },
  };
}

function greyInPlace(rgb: Uint8Array): void {
  for (let i = 0; i < rgb.length; i += 3) {
    rgb[i] = rgb[i + 1] = rgb[i + 2] = luma(rgb[i]!, rgb[i + 1]!, rgb[i + 2]!);
  }
}

function withSide(rows: Rows, sidePx: number): Rows {
  const [width, height] = sizeWithSide(rows.width, rows.height, sidePx);
  if (width === rows.width && height === rows.height) return rows;
  return rowsOf(resize(rows, width, height, "bilinear"));
}

/** A whole picture, to be read by rows. */
export function rowsOf(picture: Picture): Rows {
  const { width, height, rgb } = picture;
  return {
    width,
    height,
    read(top, bottom) {
      const n = (bottom - top) * width;
      const rgba = new Uint8Array(n * 4);
      let from = top * width * 3;
      for (let i = 0; i < n * 4; i += 4) {
        rgba[i] = rgb[from++]!;
        rgba[i + 1] = rgb[from++]!;
        rgba[i + 2] = rgb[from++]!;
        rgba[i + 3] = 255;
      }
      return rgba;
    },
  };
}

function maskBorder(rgb: Uint8Array, sidePx: number, edgePx: number): Uint8Array {
  if (edgePx === 0) return rgb;
  for (let y = 0; y < sidePx; y++) {
    const isInside = y >= edgePx && y < sidePx - edgePx;
    const row = y * sidePx * 3;
    if (!isInside) {
      rgb.fill(MASK_VALUE, row, row + sidePx * 3);
      continue;
    }
    rgb.fill(MASK_VALUE, row, row + edgePx * 3);
    rgb.fill(MASK_VALUE, row + (sidePx - edgePx) * 3, row + sidePx * 3);
  }
  return rgb;
}
