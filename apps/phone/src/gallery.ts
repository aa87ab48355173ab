// gallery.json, the known pictures beside a model: pipelines/serving/gallery.py. One of another model is
// refused, because vectors of two models mean nothing to each other.

import type { Bundle } from "./bundle.ts";
import { bytesOf, unpack } from "./packed.ts";
import { Refusal } from "./refusal.ts";
import { sha256 } from "./sha256.ts";

/** One known picture. */
export interface Picture {
  /** As the gallery names it. */
  readonly path: string;
  readonly identity: string;
  /** A small JPEG in base64; empty where the gallery has none. */
  readonly thumbnail: string;
}

/** Known pictures, with vectors of unit length. */
export interface Gallery {
  readonly pictures: readonly Picture[];
  /** Length of a vector. */
  readonly dimensions: number;
  /** A vector a picture, one after another. */
  readonly vectors: Float32Array;
}

/** As in Python, of a file that would fill a phone's memory. */
const MOST_BYTES = 64_000_000;

/** The gallery in a file's bytes, if it was made by one of this bundle's models. Throws a Refusal. */
export async function readGallery(bytes: Uint8Array<ArrayBuffer>, bundle: Bundle): Promise<Gallery> {
  const fault = (reason: string, cause?: unknown): Refusal =>
    new Refusal("refusal.gallery", { reason, task: bundle.task }, { cause });
  if (bytes.length > MOST_BYTES) throw fault(`${bytes.length} bytes`);
  let document: Partial<Document>;
  let stored: Uint8Array<ArrayBuffer>;
  try {
    document = JSON.parse(new TextDecoder().decode(bytes)) as Partial<Document>;
    if (document.schema_version !== 1) throw new TypeError(`schema_version: ${document.schema_version}`);
    if (!Array.isArray(document.pictures) || !document.pictures.every(isPicture)) throw new TypeError("pictures");
    stored = bytesOf(String(document.vectors));
  } catch (error) {
    throw fault(String(error), error);
  }
  const { pictures, dimensions = 0, model_sha256: model } = document as Document;
  if (!bundle.hashes.includes(model)) throw new Refusal("refusal.galleryOther", { task: bundle.task });
  const isWhole = (await sha256(stored)) === document.vectors_sha256 && stored.length === 2 * pictures.length * dimensions;
  if (!isWhole || pictures.length === 0) throw fault("vectors");
  const shape = [pictures.length, dimensions];
  const vectors = Float32Array.from(unpack({ shape, dtype: "float16", scale: 1, data: document.vectors! }));
  for (let start = 0; start < vectors.length; start += dimensions) {
    // Binary16 has moved the lengths by a thousandth.
    const length = Math.fround(Math.hypot(...vectors.subarray(start, start + dimensions)));
    if (!(length >= 0.5 && length < Infinity)) throw fault("vectors");
    for (let i = start; i < start + dimensions; i++) vectors[i] = vectors[i]! / length;
  }
  return { pictures: pictures.map(({ path, identity, thumbnail = "" }) => ({ path, identity, thumbnail })), dimensions, vectors };
}

interface Document {
  readonly schema_version: unknown;
  readonly model_sha256: string;
  readonly vectors_sha256: string;
  readonly dimensions: number;
  readonly pictures: readonly (Omit<Picture, "thumbnail"> & Partial<Picture>)[];
  readonly vectors: string;
}

function isPicture(value: unknown): boolean {
  const { path, identity, thumbnail = "" } = (value ?? {}) as Record<string, unknown>;
  return typeof path === "string" && typeof identity === "string" && identity !== "" && typeof thumbnail === "string";
}
