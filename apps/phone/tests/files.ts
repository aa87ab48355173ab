// Golden files of the repository, and pictures made by hand.

import { readFileSync } from "node:fs";
import { inflateSync } from "node:zlib";
import type { Picture } from "../src/resample.ts";

/** A file of tests/golden, the same that hold the Python side. */
export function golden(name: string): Buffer {
  return readFileSync(new URL(`../../../tests/golden/${name}`, import.meta.url));
}

/** An 8-bit RGB PNG that is not interlaced (W3C PNG, sections 7 and 9). */
export function readPng(bytes: Buffer): Picture {
  const width = bytes.readUInt32BE(16);
  const height = bytes.readUInt32BE(20);
  if (bytes[24] !== 8 || bytes[25] !== 2 || bytes[28] !== 0) throw new Error("only 8-bit RGB");
  const parts: Buffer[] = [];
  for (let at = 8; at < bytes.length; at += 12 + bytes.readUInt32BE(at)) {
    if (bytes.toString("latin1", at + 4, at + 8) === "IDAT") {
      parts.push(bytes.subarray(at + 8, at + 8 + bytes.readUInt32BE(at)));
    }
  }
  const raw = inflateSync(Buffer.concat(parts));
  const line = width * 3;
  const rgb = new Uint8Array(height * line);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (line + 1)]!;
    for (let x = 0; x < line; x++) {
      const left = x >= 3 ? rgb[y * line + x - 3]! : 0;
      const up = y > 0 ? rgb[(y - 1) * line + x]! : 0;
      const corner = x >= 3 && y > 0 ? rgb[(y - 1) * line + x - 3]! : 0;
      const guess = [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter]!;
      rgb[y * line + x] = raw[y * (line + 1) + 1 + x]! + guess;
    }
  }
  return { width, height, rgb };
}

function paeth(left: number, up: number, corner: number): number {
  const guess = left + up - corner;
  const [a, b, c] = [Math.abs(guess - left), Math.abs(guess - up), Math.abs(guess - corner)];
  return a <= b && a <= c ? left : b <= c ? up : corner;
}

/** The bytes of an uint8 .npy file (NumPy's format, version 1.0). */
export function readNpy(bytes: Buffer): Uint8Array {
  if (!bytes.toString("latin1", 10, 80).includes("'|u1'")) throw new Error("only uint8");
  return new Uint8Array(bytes.subarray(10 + bytes.readUInt16LE(8)));
}
