// PNG with 16 bits of grey, as X-ray systems export it. A browser would show its upper eight bits;
// a 12-bit picture would be almost black. Read as pipelines/data/images.py does: scaled by the
// smallest usual bit depth that holds the largest value.
//
// Reference: W3C PNG (2003), sections 7.2 (scan lines), 9 (filters), 10 (compression).

import { roundHalfToEven } from "./preprocess.ts";
import { Refusal } from "./refusal.ts";
import type { Picture } from "./resample.ts";

const BIT_DEPTHS = [8, 10, 12, 14, 16];
const BYTES = 2;

/** Whether the bytes of a PNG say 16 bits of grey. */
export function isDeepGrey(png: Uint8Array): boolean {
  return png[24] === 16 && png[25] === 0;
}

/** The picture, as 8-bit RGB. Throws a Refusal where it is damaged or interlaced. */
export async function readDeepGrey(png: Uint8Array): Promise<Picture> {
  const file = new DataView(png.buffer, png.byteOffset, png.byteLength);
  const width = file.getUint32(16);
  const height = file.getUint32(20);
  if (file.getUint8(28) !== 0) throw new Refusal("refusal.deepGrey");
  const raw = await inflate(imageData(file), height * (1 + width * BYTES));
  return { width, height, rgb: toRgb(unfilter(raw, width * BYTES, height)) };
}

function imageData(file: DataView): Uint8Array<ArrayBuffer>[] {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  for (let at = 8; at + 12 <= file.byteLength; at += 12 + file.getUint32(at)) {
    if (file.getUint32(at + 4) !== 0x49444154) continue; // IDAT
    const start = file.byteOffset + at + 8;
    parts.push(new Uint8Array(file.buffer.slice(start, start + file.getUint32(at)) as ArrayBuffer));
  }
  return parts;
}

async function inflate(parts: Uint8Array<ArrayBuffer>[], expectedBytes: number): Promise<Uint8Array> {
  const raw = new Uint8Array(expectedBytes);
  const reader = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  let n = 0;
  try {
    for (let part = await reader.read(); !part.done && n < expectedBytes; part = await reader.read()) {
      raw.set(part.value.subarray(0, expectedBytes - n), n);
      n += part.value.length;
    }
  } catch (error) {
    throw new Refusal("refusal.damaged", {}, { cause: error });
  }
  if (n < expectedBytes) throw new Refusal("refusal.damaged");
  return raw;
}

/** The scan lines without their filters; each begins with the filter's number. */
function unfilter(raw: Uint8Array, lineBytes: number, height: number): Uint8Array {
  const lines = new Uint8Array(lineBytes * height);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (lineBytes + 1)]!;
    if (filter > 4) throw new Refusal("refusal.damaged");
    const from = y * (lineBytes + 1) + 1;
    const to = y * lineBytes;
    for (let x = 0; x < lineBytes; x++) {
      const left = x >= BYTES ? lines[to + x - BYTES]! : 0;
      const up = y > 0 ? lines[to - lineBytes + x]! : 0;
      const corner = x >= BYTES && y > 0 ? lines[to - lineBytes + x - BYTES]! : 0;
      lines[to + x] = raw[from + x]! + guess(filter, left, up, corner);
    }
  }
  return lines;
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

function toRgb(lines: Uint8Array): Uint8Array {
  const n = lines.length / BYTES;
  let peak = 0;
  for (let i = 0; i < n; i++) peak = Math.max(peak, (lines[i * 2]! << 8) | lines[i * 2 + 1]!);
  const bits = BIT_DEPTHS.find((depth) => peak < 2 ** depth)!;
  const scale = 255 / (2 ** bits - 1);
  const rgb = new Uint8Array(n * 3);
  for (let i = 0; i < n; i++) {
    rgb.fill(roundHalfToEven(((lines[i * 2]! << 8) | lines[i * 2 + 1]!) * scale), i * 3, i * 3 + 3);
  }
  return rgb;
}
