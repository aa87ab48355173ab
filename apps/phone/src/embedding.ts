// The nearest pictures of a gallery: pipelines/serving/embedding.py, held to the same answers by
// tests/golden/embedding.json.

import type { Bundle } from "./bundle.ts";
import type { Gallery, Picture } from "./gallery.ts";
import type { Outputs } from "./kinds.ts";
import type { Geometry } from "./preprocess.ts";
import { Refusal } from "./refusal.ts";

/** The one operating point: from which likeness on two pictures are said to be of one identity. */
export const SAME = "same_identity";
/** Nearest pictures that an answer holds. */
const N_NEIGHBOURS = 5;

/** A picture of the gallery. */
export interface Neighbour extends Picture {
  /** Half of 1 minus the cosine, in [0, 1]: 0 in the same direction, 0.5 at a right angle. */
  readonly distance: number;
  /** Whether it is near enough to be of one identity; null without an operating point. */
  readonly isSame: boolean | null;
}

/** What an embedding says of a picture. */
export interface Embedding {
  readonly kind: "embedding";
  /** Of unit length. */
  readonly vector: Float32Array;
  /** The nearest first; of equals, the first that the gallery lists. Empty without a gallery. */
  readonly neighbours: readonly Neighbour[];
}

export function decodeVector(outputs: Outputs, bundle: Bundle, _geometry: Geometry, gallery: Gallery | null = null): Embedding {
  const vector = Float32Array.from(outputs["vector"]!);
  return { kind: "embedding", vector, neighbours: gallery ? nearest(vector, gallery, bundle) : [] };
}

function nearest(vector: Float32Array, { pictures, dimensions, vectors }: Gallery, bundle: Bundle): Neighbour[] {
  if (vector.length !== dimensions) throw new Refusal("refusal.gallery", { reason: `dimensions: ${dimensions}`, task: bundle.task });
  const point = bundle.operatingPoints[SAME];
  const far = pictures.map((_, row) => {
    let cosine = 0;
    for (let i = 0; i < dimensions; i++) cosine += vector[i]! * vectors[row * dimensions + i]!;
    return Math.min(Math.max((1 - cosine) / 2, 0), 1);
  });
  const rows = [...far.keys()].sort((a, b) => far[a]! - far[b]!).slice(0, N_NEIGHBOURS);
  return rows.map((row) => {
    const distance = far[row]!;
    return { ...pictures[row]!, distance, isSame: point ? 1 - distance >= point.threshold : null };
  });
}
