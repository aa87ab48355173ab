// What a model's outputs mean, by the kind of its task: the page's half of pipelines/serving/kinds.py.
// Golden files hold both to the same answers.

import type { Bundle } from "./bundle.ts";
import { type Boxes, decodeBoxes } from "./detection.ts";
import { decodeVector, type Embedding, SAME } from "./embedding.ts";
import type { Gallery } from "./gallery.ts";
import type { Geometry } from "./preprocess.ts";
import { decodeMask, type Mask } from "./segmentation.ts";
import type { TextKey } from "./texts.ts";

/** A model's outputs for one picture, by name. */
export type Outputs = Readonly<Record<string, ArrayLike<number>>>;

/** What a classification says of a picture. */
export interface Classes {
  readonly kind: "classification";
  readonly label: string;
  /** In the order of the bundle's labels. */
  readonly probabilities: readonly number[];
  /** By label with an operating point: does its probability reach it? */
  readonly positives: Readonly<Record<string, boolean>>;
}

/** What a model of any kind says of a picture. */
export type Said = Classes | Boxes | Mask | Embedding;

interface Kind {
  /** Names of the model's outputs, in the order of the bundle. */
  readonly outputs: readonly string[];
  readonly decode: (outputs: Outputs, bundle: Bundle, geometry: Geometry, gallery?: Gallery | null) => Said;
  /** The one metric that is told of a model, and its words. */
  readonly figure: { readonly metric: string; readonly text: TextKey };
  /** Whether its outputs are divided by the bundle's temperature. */
  readonly isCalibrated: boolean;
  /** The names of its operating points; null where they are labels. */
  readonly points: readonly string[] | null;
  /** Whether its answers need the gallery beside the bundle. */
  readonly hasGallery: boolean;
}

/** The output that tells pictures out of distribution. */
export const EMBEDDING = "embedding";

const ACCURACY = { metric: "accuracy", text: "about.accuracy" } as const;
const DICE = { metric: "dice", text: "about.dice" } as const;
const RECALL_AT_1 = { metric: "recall_at_1", text: "about.recallAt1" } as const;
const AP50 = { metric: "ap50", text: "about.ap50" } as const;

const PLAIN = { isCalibrated: false, points: null, hasGallery: false } as const;

export const KINDS: ReadonlyMap<string, Kind> = new Map([
  ["classification", { outputs: ["logits", EMBEDDING], decode: decodeClasses, figure: ACCURACY, ...PLAIN, isCalibrated: true }],
  ["detection", { outputs: ["boxes", EMBEDDING], decode: decodeBoxes, figure: AP50, ...PLAIN }],
  ["segmentation", { outputs: ["mask", EMBEDDING], decode: decodeMask, figure: DICE, ...PLAIN }],
  ["embedding", { outputs: ["vector", EMBEDDING], decode: decodeVector, figure: RECALL_AT_1, ...PLAIN, points: [SAME], hasGallery: true }],
] satisfies [Said["kind"], Kind][]);

function decodeClasses(outputs: Outputs, bundle: Bundle): Classes {
  const probabilities = softmax(outputs["logits"]!, bundle.temperature);
  const positives: Record<string, boolean> = {};
  for (const [label, point] of Object.entries(bundle.operatingPoints)) {
    positives[label] = probabilities[bundle.labels.indexOf(label)]! >= point.threshold;
  }
  return { kind: "classification", label: bundle.labels[argmax(probabilities)]!, probabilities, positives };
}

/** Probabilities of logits divided by the temperature (Guo et al. 2017). */
export function softmax(logits: ArrayLike<number>, temperature: number): number[] {
  const scaled = Array.from(logits, (logit) => logit / temperature);
  const top = Math.max(...scaled);
  const exponentials = scaled.map((value) => Math.exp(value - top));
  const sum = exponentials.reduce((a, b) => a + b, 0);
  return exponentials.map((value) => Math.fround(value / sum));
}

/** Place of the largest value; the first one of equals, as NumPy's argmax. */
export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}
