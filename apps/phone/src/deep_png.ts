// PNG with 16 bits a channel, as X-ray systems and microscopes export it. A browser would show its
// upper eight bits; a 12-bit picture would be almost black. Read as pipelines/data/pixel_range.py does: by
// the one range of values that the model states, never by the picture's own peak.
//
// Line by line, so that memory goes with 8 bits of the picture and not with all that is inflated:
// the libraries that read such files hold all that a file inflates to, however much that is.
//
// Reference: W3C PNG (2003), sections 7.2 (scan lines), 8 (interlacing), 9 (filters), 10 (compression).

import { roundHalfToEven } from "./preprocess.ts";
import { Refusal } from "./refusal.ts";
import type { Rows } from "./resample.ts";

/** Stored values that are shown as black and as white; all of the type's; or nothing stated. */
export type Range = readonly [low: number, high: number] | "full" | null;

const MOST = 65_535;
/** Samples a pixel, by colour type: grey, RGB, grey and opacity, RGB and opacity. */
const SAMPLES: Readonly<Record<number, number>> = { 0: 1, 2: 3, 4: 2, 6: 4 };

interface Pass {
  readonly x: number;
  readonly y: number;
  readonly dx: number;
  readonly dy: number;
}

const WHOLE: readonly Pass[] = [{ x: 0, y: 0, dx: 1, dy: 1 }];
const ADAM7: readonly Pass[] = [
  { x: 0, y: 0, dx: 8, dy: 8 },
  { x: 4, y: 0, dx: 8, dy: 8 },
  { x: 0, y: 4, dx: 4, dy: 8 },
  { x: 2, y: 0, dx: 4, dy: 4 },
  { x: 0, y: 2, dx: 2, dy: 4 },
  { x: 1, y: 0, dx: 2, dy: 2 },
  { x: 0, y: 1, dx: 1, dy: 2 },
];

/** Whether the bytes of a PNG say 16 bits a channel. */
export function isDeep(png: Uint8Array): boolean {
  return png[24] === 16;
}

export interface DeepPicture {
  readonly rows: Rows;
  /** Share of the pixels with a value outside the range. */
  readonly outside: number;
}

/** The picture in 8 bits, opacity over white. Throws a Refusal where it is damaged or no range is stated. */
export async function readDeep(png: Uint8Array, range: Range): Promise<DeepPicture> {
  if (range === null) throw new Refusal("refusal.deep");
  const file = new DataView(png.buffer, png.byteOffset, png.byteLength);
  const [width, height, colour] = [file.getUint32(16), file.getUint32(20), file.getUint8(25)];
  const nSamples = SAMPLES[colour];
  if (nSamples === undefined) throw new Refusal("refusal.damaged");
  const nShown = nSamples < 3 ? 1 : 3;
  const clear = clearColour(file, nShown);
  const [low, high] = range === "full" ? [0, MOST] : range;
  const shownBy = levels(low, high);
  const shown = new Uint8Array(width * height * nShown);
  let nOutside = 0;

  const putLine = (line: Uint8Array, { x, dx }: Pass, row: number): void => {
    const nPixels = line.length / (2 * nSamples);
    for (let i = 0; i < nPixels; i++) {
      const from = i * 2 * nSamples;
      const to = (row * width + x + i * dx) * nShown;
      let opacity = nSamples % 2 ? MOST : sample(line, from + 2 * nShown);
      if (clear?.every((value, k) => sample(line, from + 2 * k) === value)) opacity = 0;
      let isOutside = false;
      for (let k = 0; k < nShown; k++) {
        const value = sample(line, from + 2 * k);
        isOutside ||= value < low || value > high;
        const level = shownBy[value]!;
        shown[to + k] = opacity === MOST ? level : roundHalfToEven(255 - (255 - level) * (opacity / MOST));
      }
      if (isOutside) nOutside += 1;
    }
  };

  const reader = new Lines([...chunks(file, 0x49444154)]); // IDAT
  for (const pass of file.getUint8(28) === 0 ? WHOLE : ADAM7) {
    const nPixels = Math.ceil((width - pass.x) / pass.dx);
    if (nPixels < 1) continue;
    let above: Uint8Array = new Uint8Array(nPixels * 2 * nSamples);
    for (let row = pass.y; row < height; row += pass.dy) {
      const line = await reader.next(1 + above.length);
      above = unfilter(line, above, 2 * nSamples);
      putLine(above, pass, row);
    }
  }
  await reader.cancel();
  return { rows: rowsOfLevels(shown, width, height, nShown), outside: nOutside / (width * height) };
}

const sample = (line: Uint8Array, at: number): number => (line[at]! << 8) | line[at + 1]!;

/** What each stored value is shown as; as pipelines/data/pixel_range.py computes it. */
function levels(low: number, high: number): Uint8Array {
  const factor = 255 / (high - low);
  const shown = new Uint8Array(MOST + 1);
  for (let value = 0; value <= MOST; value++) {
    shown[value] = roundHalfToEven((Math.min(Math.max(value, low), high) - low) * factor);
  }
  return shown;
}

/** Payloads of the chunks with a name (W3C PNG, 5.3). */
function* chunks(file: DataView, name: number): Generator<Uint8Array<ArrayBuffer>> {
  for (let at = 8; at + 12 <= file.byteLength; at += 12 + file.getUint32(at)) {
    if (file.getUint32(at + 4) !== name) continue;
    const start = file.byteOffset + at + 8;
    yield new Uint8Array(file.buffer as ArrayBuffer, start, file.getUint32(at));
  }
}

/** The one colour that is clear (W3C PNG, 11.3.2); null if there is none. */
function clearColour(file: DataView, nSamples: number): number[] | null {
  for (const chunk of chunks(file, 0x74524e53)) {
    if (chunk.length === 2 * nSamples) return Array.from({ length: nSamples }, (_, k) => sample(chunk, 2 * k));
  }
  return null;
}

/** What is inflated, some bytes at a time. */
class Lines {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  #rest: Uint8Array = new Uint8Array(0);

  constructor(parts: Uint8Array<ArrayBuffer>[]) {
    this.#reader = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  }

  /** The next bytes, to be used before the call after this. Throws a Refusal if there are not so many. */
  async next(n: number): Promise<Uint8Array> {
    const line = this.#rest.length >= n ? this.#rest.subarray(0, n) : new Uint8Array(n);
    let at = Math.min(n, this.#rest.length);
    if (this.#rest.length < n) line.set(this.#rest);
    this.#rest = this.#rest.subarray(at);
    while (at < n) {
      const part = await this.#reader.read().catch((error: unknown) => {
        throw new Refusal("refusal.damaged", {}, { cause: error });
      });
      if (part.done) throw new Refusal("refusal.damaged");
      line.set(part.value.subarray(0, n - at), at);
      this.#rest = part.value.subarray(Math.min(n - at, part.value.length));
      at += part.value.length;
    }
    return line;
  }

  /** Let go of the rest: a file may inflate to much more than its picture. */
  async cancel(): Promise<void> {
    await this.#reader.cancel().catch(() => undefined);
  }
}

/** A scan line, which begins with its filter's number, without its filter. */
function unfilter(filtered: Uint8Array, above: Uint8Array, pixelBytes: number): Uint8Array {
  const filter = filtered[0]!;
  if (filter > 4) throw new Refusal("refusal.damaged");
  const line = new Uint8Array(above.length);
  for (let i = 0; i < line.length; i++) {
    const left = i >= pixelBytes ? line[i - pixelBytes]! : 0;
    const corner = i >= pixelBytes ? above[i - pixelBytes]! : 0;
    line[i] = filtered[i + 1]! + guess(filter, left, above[i]!, corner);
  }
  return line;
}

function guess(filter: number, left: number, up: number, corner: number): number {
  if (filter === 0) return 0;
  if (filter === 1) return left;
  if (filter === 2) return up;
  if (filter === 3) return (left + up) >> 1;
  const whole = left + up - corner; // Paeth
  const [a, b, c] = [Math.abs(whole - left), Math.abs(whole - up), Math.abs(whole - corner)];
  return a <= b && a <= c ? left : b <= c ? up : corner;
}

function rowsOfLevels(levels: Uint8Array, width: number, height: number, n: number): Rows {
  return {
    width,
    height,
    read(top, bottom) {
      const rgba = new Uint8Array((bottom - top) * width * 4);
      for (let to = 0, from = top * width * n; to < rgba.length; to += 4, from += n) {
        rgba[to] = levels[from]!;
        rgba[to + 1] = levels[n === 3 ? from + 1 : from]!;
        rgba[to + 2] = levels[n === 3 ? from + 2 : from]!;
        rgba[to + 3] = 255;
      }
      return rgba;
    },
  };
}
