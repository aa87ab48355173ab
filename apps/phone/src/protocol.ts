// What the page and its worker say to each other.

import type { Judged } from "./model.ts";
import type { Geometry } from "./preprocess.ts";
import type { RefusalKey } from "./refusal.ts";
import type { Keeping } from "./store.ts";

export interface Answer extends Judged {
  /** Width and height of the upright picture, in px of which places are told. */
  readonly size: readonly [number, number];
  readonly geometry: Geometry;
  /** Share of the picture's pixels whose stored values lie outside the model's range. */
  readonly outside: number;
  readonly decodeMs: number;
  readonly preprocessMs: number;
  readonly modelMs: number;
}

export interface Loaded {
  readonly nThreads: number;
  readonly modelBytes: number;
  readonly runtimeVersion: string;
  /** How much the gallery holds; null without one. */
  readonly gallery: { readonly nPictures: number; readonly nIdentities: number } | null;
  readonly keeping: Keeping;
  /** Whether the server was asked for it just now; what was on the phone may have a newer one. */
  readonly isFresh: boolean;
}

/** What became of the question whether the server has a newer model. */
export interface Updated {
  readonly isNew: boolean;
  /** Whether only its gallery is another. */
  readonly isGalleryAlone: boolean;
  readonly keeping: Keeping;
}

export type Request =
  | { readonly kind: "load" | "update"; readonly id: number; readonly base: string; readonly task: string; readonly nThreads: number }
  | { readonly kind: "answer"; readonly id: number; readonly source: Blob | ImageBitmap };

export type Reply =
  | { readonly kind: "progress"; readonly id: number; readonly loadedBytes: number; readonly totalBytes: number }
  | { readonly kind: "loaded"; readonly id: number; readonly loaded: Loaded; readonly bundleJson: unknown }
  | { readonly kind: "updated"; readonly id: number; readonly updated: Updated }
  | { readonly kind: "answered"; readonly id: number; readonly answer: Answer; readonly preview: ImageBitmap | null }
  | { readonly kind: "refused"; readonly id: number; readonly key: RefusalKey; readonly facts: Record<string, string | number> }
  | { readonly kind: "failed"; readonly id: number; readonly message: string };
