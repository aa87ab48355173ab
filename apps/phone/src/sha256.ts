// SHA-256 of a model file. The browser's own is there on https and localhost only; a phone that
// reads the page from a computer in the same room by http must not skip the check.

import { sha256 as digestInScript } from "@noble/hashes/sha2.js";

/** Hexadecimal SHA-256. */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const subtle = globalThis.crypto?.subtle;
  const digest = subtle ? new Uint8Array(await subtle.digest("SHA-256", bytes)) : digestInScript(bytes);
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
