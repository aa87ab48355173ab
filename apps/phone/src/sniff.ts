// What a file says of itself, before a decoder sees it.
//
// The same door as pipelines/data/images.py: by content and never by name, one frame, bounded size,
// nothing cut short. Browsers would show half a photo without a word; an answer must not rest on it.

import { isDeep } from "./deep_png.ts";
import { Refusal } from "./refusal.ts";

/** As in pipelines/data/pixel_range.py, where they are explained. */
export const MAX_PIXELS = 64_000_000;
export const MAX_FILE_BYTES = 100_000_000;
/** A browser holds four bytes a pixel, twice for a while; JPEG alone can be had at a fraction. */
const MAX_WHOLE_PIXELS = 40_000_000;
/** A JPEG may have so many times more, where the browser can decode it at a fraction of its size. */
const SCALED = 6;
const MAX_DEEP_GREY_PIXELS = 25_600_000;
const MAX_DEEP_PIXELS = 12_800_000;
const MAX_SCANNED_PIXELS = 1_600_000_000;
const MAX_COEFFICIENT_BYTES = 340_000_000;

export type Format = "JPEG" | "PNG" | "WEBP" | "BMP" | "GIF" | "AVIF";

export interface Bounds {
  /** A picture whose longer side is more than so many times the shorter is refused. */
  readonly maxAspect: number;
  /** Whether the browser can decode a JPEG at a fraction of its size. */
  readonly canScale: boolean;
}

export interface Size {
  readonly width: number;
  readonly height: number;
}

/** What a picture says of itself; the size as stored, before it is turned upright. */
export interface Seen extends Size {
  readonly format: Format;
}

/** What a picture that may enter says of itself. Throws a Refusal. */
export function sniff(bytes: Uint8Array, bounds: Bounds): Seen {
  if (bytes.length === 0) throw new Refusal("refusal.empty");
  if (bytes.length > MAX_FILE_BYTES) {
    throw new Refusal("refusal.tooLarge", { megabytes: Math.round(MAX_FILE_BYTES / 1e6) });
  }
  const file = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    const seen = look(bytes, file);
    refuseBySize(seen, mostPixels(seen.format, bytes, bounds), bounds.maxAspect);
    return seen;
  } catch (error) {
    if (error instanceof RangeError) throw new Refusal("refusal.damaged");
    throw error;
  }
}

function look(bytes: Uint8Array, file: DataView): Seen {
  if (starts(bytes, 0, [0xff, 0xd8, 0xff])) return { format: "JPEG", ...jpeg(file, bytes) };
  if (starts(bytes, 0, [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a])) return { format: "PNG", ...png(file) };
  if (word(bytes, 0, 4) === "RIFF" && word(bytes, 8, 4) === "WEBP") return { format: "WEBP", ...webp(file) };
  if (word(bytes, 0, 2) === "BM") return { format: "BMP", ...bmp(file) };
  if (word(bytes, 0, 4) === "GIF8") return { format: "GIF", ...gif(file) };
  if (word(bytes, 4, 8) === "ftypavif") return { format: "AVIF", ...avif(file) };
  throw new Refusal(...otherFormat(bytes));
}

/** What no browser can be relied on to read, by its name. */
function otherFormat(bytes: Uint8Array): ConstructorParameters<typeof Refusal> {
  if (/^ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)/.test(word(bytes, 4, 8))) return ["refusal.heic"];
  if (word(bytes, 4, 8) === "ftypavis") return ["refusal.frames"];
  const isTiff = ["II*\0", "MM\0*", "II+\0", "MM\0+"].includes(word(bytes, 0, 4));
  const isJpeg2000 = starts(bytes, 0, [0xff, 0x4f, 0xff, 0x51]) || word(bytes, 4, 4) === "jP  ";
  const isJpegXl = starts(bytes, 0, [0xff, 0x0a]) || word(bytes, 4, 4) === "JXL ";
  const format = isTiff ? "TIFF" : isJpeg2000 ? "JPEG 2000" : isJpegXl ? "JPEG XL" : word(bytes, 128, 4) === "DICM" ? "DICOM" : null;
  return format ? ["refusal.otherFormat", { format }] : ["refusal.notAnImage"];
}

function mostPixels(format: Format, bytes: Uint8Array, bounds: Bounds): number {
  if (format === "JPEG") return bounds.canScale ? SCALED * MAX_PIXELS : MAX_PIXELS;
  if (format !== "PNG" || !isDeep(bytes)) return MAX_WHOLE_PIXELS;
  return bytes[25] === 0 ? MAX_DEEP_GREY_PIXELS : MAX_DEEP_PIXELS;
}

/** Refuse a size that cannot be, is too large to decode, or leaves nothing to look at. */
function refuseBySize({ width, height }: Size, mostPixels: number, maxAspect: number): void {
  if (width < 1 || height < 1) throw new Refusal("refusal.damaged");
  const [longer, shorter] = [Math.max(width, height), Math.min(width, height)];
  if (longer > maxAspect * shorter) throw new Refusal("refusal.aspect", { width, height, most: maxAspect });
  if (width * height > mostPixels) {
    const [megapixels, most] = [width * height, mostPixels].map((n) => Math.round(n / 1e6)) as [number, number];
    throw new Refusal("refusal.tooManyPixels", { megapixels, most });
  }
}

function starts(bytes: Uint8Array, at: number, expected: readonly number[]): boolean {
  return expected.every((byte, i) => bytes[at + i] === byte);
}

function word(bytes: Uint8Array | DataView, at: number, n: number): string {
  let text = "";
  for (let i = at; i < at + n; i++) {
    const byte = bytes instanceof DataView ? bytes.getUint8(i) : bytes[i];
    if (byte === undefined) break;
    text += String.fromCharCode(byte);
  }
  return text;
}

// ITU-T T.81 (1992), annex B: segments of a marker and a length; FFD9 ends the picture.
function jpeg(file: DataView, bytes: Uint8Array): Size {
  let size: Size = { width: 0, height: 0 };
  let coefficientBytes = 0;
  let at = 2;
  for (;;) {
    if (file.getUint8(at) !== 0xff) throw new Refusal("refusal.damaged");
    const marker = file.getUint8(at + 1);
    if (marker === 0xff) {
      at += 1; // a fill byte
      continue;
    }
    const length = file.getUint16(at + 2);
    const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame) {
      size = { width: file.getUint16(at + 7), height: file.getUint16(at + 5) };
      coefficientBytes = 2 * size.width * size.height * samplesAPixel(file, at + 9);
    }
    if (marker === 0xda) break; // the scan: from here on pixels
    at += 2 + length;
  }
  const nScans = countMarkers(bytes, at, 0xda);
  const isKeptWhole = nScans > 1 && coefficientBytes > MAX_COEFFICIENT_BYTES;
  if (isKeptWhole || nScans * size.width * size.height > MAX_SCANNED_PIXELS && nScans > 1) throw new Refusal("refusal.scans");
  for (let i = file.byteLength - 2; i > at; i--) {
    if (file.getUint8(i) === 0xff && file.getUint8(i + 1) === 0xd9) return size;
  }
  throw new Refusal("refusal.damaged");
}

/** Of the components behind a frame's header: their sampling, against that of the finest (T.81, A.1.1). */
function samplesAPixel(file: DataView, at: number): number {
  const layers = Array.from({ length: file.getUint8(at) }, (_, i) => file.getUint8(at + 2 + 3 * i));
  const [across, down] = [layers.map((layer) => layer >> 4), layers.map((layer) => layer & 15)];
  const finest = Math.max(1, ...across) * Math.max(1, ...down);
  return layers.reduce((sum, _, i) => sum + across[i]! * down[i]!, 0) / finest;
}

/** The marker cannot stand in entropy-coded data (T.81, B.1.1.5). */
function countMarkers(bytes: Uint8Array, from: number, code: number): number {
  let n = 0;
  for (let i = bytes.indexOf(0xff, from); i >= 0; i = bytes.indexOf(0xff, i + 1)) if (bytes[i + 1] === code) n += 1;
  return n;
}

// PNG (W3C 2003), section 5.3: chunks of length, name, data and CRC; acTL announces an animation.
function png(file: DataView): Size {
  const size = { width: file.getUint32(16), height: file.getUint32(20) };
  for (let at = 8; ; at += 12 + file.getUint32(at)) {
    const name = word(file, at + 4, 4);
    if (name === "acTL" && file.getUint32(at + 8) > 1) throw new Refusal("refusal.frames");
    if (name === "IEND") return size;
  }
}

// RFC 9649 (2024), section 2: RIFF chunks, padded to an even length.
function webp(file: DataView): Size {
  const declared = file.getUint32(4, true) + 8;
  if (declared > file.byteLength) throw new Refusal("refusal.damaged");
  let nFrames = 0;
  const sizes: Size[] = [];
  for (let at = 12; at + 8 <= declared; ) {
    const name = word(file, at, 4);
    const length = file.getUint32(at + 4, true);
    const data = at + 8;
    if (name === "VP8X") sizes.push({ width: 1 + uint24(file, data + 4), height: 1 + uint24(file, data + 7) });
    if (name === "VP8 ") {
      sizes.push({ width: file.getUint16(data + 6, true) & 0x3fff, height: file.getUint16(data + 8, true) & 0x3fff });
    }
    if (name === "VP8L") {
      const bits = file.getUint32(data + 1, true);
      sizes.push({ width: 1 + (bits & 0x3fff), height: 1 + ((bits >>> 14) & 0x3fff) });
    }
    if (name === "ANMF") nFrames += 1;
    at = data + length + (length & 1);
  }
  if (nFrames > 1) throw new Refusal("refusal.frames");
  return largest(sizes);
}

/** A file may contradict itself; what is bounded is the most that a decoder could believe. */
function largest(sizes: readonly Size[]): Size {
  return { width: Math.max(0, ...sizes.map((size) => size.width)), height: Math.max(0, ...sizes.map((size) => size.height)) };
}

const uint24 = (file: DataView, at: number): number =>
  file.getUint16(at, true) | (file.getUint8(at + 2) << 16);

function bmp(file: DataView): Size {
  if (file.getUint32(14, true) < 40) return { width: file.getUint16(18, true), height: file.getUint16(20, true) };
  return { width: file.getInt32(18, true), height: Math.abs(file.getInt32(22, true)) };
}

// ISO/IEC 23008-12 (2022), 9.3 and AV1 in ISOBMFF 1.2.0, 2.3.3: boxes of a length and a name; `ispe`
// has the size of a picture or of a tile of it, `av1C` whether it has more than 8 bits a channel.
function avif(file: DataView): Size {
  const sizes: Size[] = [];
  const walk = (from: number, until: number): void => {
    for (let at = from; at + 8 <= until; ) {
      const length = file.getUint32(at) || until - at;
      const name = word(file, at + 4, 4);
      if (length < 8 || at + length > until) throw new Refusal("refusal.damaged");
      if (name === "meta") walk(at + 12, at + length); // four bytes of version and flags
      if (name === "iprp" || name === "ipco") walk(at + 8, at + length);
      if (name === "ispe") sizes.push({ width: file.getUint32(at + 12), height: file.getUint32(at + 16) });
      if (name === "av1C" && file.getUint8(at + 10) & 0x40) throw new Refusal("refusal.otherFormat", { format: "AVIF 10 bit" });
      at += length;
    }
  };
  walk(0, file.byteLength);
  return largest(sizes);
}

// GIF89a (1990): blocks; each image descriptor (0x2C) is a frame, 0x3B ends the file.
function gif(file: DataView): Size {
  const sizes = [{ width: file.getUint16(6, true), height: file.getUint16(8, true) }];
  const table = (flags: number): number => (flags & 0x80 ? 3 * 2 ** ((flags & 7) + 1) : 0);
  const pastBlocks = (from: number): number => {
    let at = from;
    for (let size = file.getUint8(at); size > 0; size = file.getUint8(at)) at += size + 1;
    return at + 1;
  };
  let nFrames = 0;
  for (let at = 13 + table(file.getUint8(10)); ; ) {
    const kind = file.getUint8(at);
    if (kind === 0x3b) break;
    if (kind === 0x21) {
      at = pastBlocks(at + 2);
    } else if (kind === 0x2c) {
      nFrames += 1;
      sizes.push({ width: file.getUint16(at + 5, true), height: file.getUint16(at + 7, true) });
      at = pastBlocks(at + 11 + table(file.getUint8(at + 9)));
    } else {
      throw new Refusal("refusal.damaged");
    }
  }
  if (nFrames > 1) throw new Refusal("refusal.frames");
  return largest(sizes);
}
