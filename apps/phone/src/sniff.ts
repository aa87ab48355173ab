// What a file says of itself, before a decoder sees it.
//
// The same door as pipelines/data/images.py: by content and never by name, one frame, bounded size,
// nothing cut short. Browsers would show half a photo without a word; an answer must not rest on it.

import { Refusal } from "./refusal.ts";

/** As in pipelines/data/images.py. */
export const MAX_PIXELS = 64_000_000;
export const MAX_FILE_BYTES = 100_000_000;

export type Format = "JPEG" | "PNG" | "WEBP" | "BMP" | "GIF";

/** The format of a picture that may enter. Throws a Refusal. */
export function sniff(bytes: Uint8Array): Format {
  if (bytes.length === 0) throw new Refusal("refusal.empty");
  if (bytes.length > MAX_FILE_BYTES) {
    throw new Refusal("refusal.tooLarge", { megabytes: Math.round(MAX_FILE_BYTES / 1e6) });
  }
  const file = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    if (starts(bytes, 0, [0xff, 0xd8, 0xff])) return jpeg(file);
    if (starts(bytes, 0, [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a])) return png(file);
    if (word(bytes, 0, 4) === "RIFF" && word(bytes, 8, 4) === "WEBP") return webp(file);
    if (word(bytes, 0, 2) === "BM") return bmp(file);
    if (word(bytes, 0, 4) === "GIF8") return gif(file);
  } catch (error) {
    if (error instanceof RangeError) throw new Refusal("refusal.damaged");
    throw error;
  }
  if (/^ftyp(heic|heix|hevc|mif1|msf1|avif)/.test(word(bytes, 4, 8))) throw new Refusal("refusal.heic");
  if (["II*\0", "MM\0*"].includes(word(bytes, 0, 4))) throw new Refusal("refusal.tiff");
  throw new Refusal("refusal.notAnImage");
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

/** Refuse a size that cannot be, or is too large to decode. */
function bound(width: number, height: number): void {
  if (width < 1 || height < 1) throw new Refusal("refusal.damaged");
  if (width * height > MAX_PIXELS) {
    throw new Refusal("refusal.tooManyPixels", { megapixels: Math.round(MAX_PIXELS / 1e6) });
  }
}

// ITU-T T.81 (1992), annex B: segments of a marker and a length; FFD9 ends the picture.
function jpeg(file: DataView): Format {
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
    if (isFrame) bound(file.getUint16(at + 7), file.getUint16(at + 5));
    if (marker === 0xda) break; // the scan: from here on pixels
    at += 2 + length;
  }
  for (let i = file.byteLength - 2; i > at; i--) {
    if (file.getUint8(i) === 0xff && file.getUint8(i + 1) === 0xd9) return "JPEG";
  }
  throw new Refusal("refusal.damaged");
}

// PNG (W3C 2003), section 5.3: chunks of length, name, data and CRC; acTL announces an animation.
function png(file: DataView): Format {
  bound(file.getUint32(16), file.getUint32(20));
  for (let at = 8; ; at += 12 + file.getUint32(at)) {
    const name = word(file, at + 4, 4);
    if (name === "acTL" && file.getUint32(at + 8) > 1) throw new Refusal("refusal.frames");
    if (name === "IEND") return "PNG";
  }
}

// RFC 9649 (2024), section 2: RIFF chunks, padded to an even length.
function webp(file: DataView): Format {
  const declared = file.getUint32(4, true) + 8;
  if (declared > file.byteLength) throw new Refusal("refusal.damaged");
  let nFrames = 0;
  for (let at = 12; at + 8 <= declared; ) {
    const name = word(file, at, 4);
    const length = file.getUint32(at + 4, true);
    const data = at + 8;
    if (name === "VP8X") bound(1 + uint24(file, data + 4), 1 + uint24(file, data + 7));
    if (name === "VP8 ") {
      bound(file.getUint16(data + 6, true) & 0x3fff, file.getUint16(data + 8, true) & 0x3fff);
    }
    if (name === "VP8L") {
      const bits = file.getUint32(data + 1, true);
      bound(1 + (bits & 0x3fff), 1 + ((bits >>> 14) & 0x3fff));
    }
    if (name === "ANMF") nFrames += 1;
    at = data + length + (length & 1);
  }
  if (nFrames > 1) throw new Refusal("refusal.frames");
  return "WEBP";
}

const uint24 = (file: DataView, at: number): number =>
  file.getUint16(at, true) | (file.getUint8(at + 2) << 16);

function bmp(file: DataView): Format {
  if (file.getUint32(14, true) < 40) {
    bound(file.getUint16(18, true), file.getUint16(20, true));
  } else {
    bound(file.getInt32(18, true), Math.abs(file.getInt32(22, true)));
  }
  return "BMP";
}

// GIF89a (1990): blocks; each image descriptor (0x2C) is a frame, 0x3B ends the file.
function gif(file: DataView): Format {
  bound(file.getUint16(6, true), file.getUint16(8, true));
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
      at = pastBlocks(at + 11 + table(file.getUint8(at + 9)));
    } else {
      throw new Refusal("refusal.damaged");
    }
  }
  if (nFrames > 1) throw new Refusal("refusal.frames");
  return "GIF";
}
