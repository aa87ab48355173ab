// What a model's outputs mean, by the kind of its task: the page's half of pipelines/serving/kinds.py.
// Golden files hold both to the same answers.

import type { Bundle } from "./bundle.ts";

/** A model's outputs for one picture, by name. */
export type Outputs = Readonly<Record<string, ArrayLike<number>>>;

/** What a classification says of a picture. */
export interface Classes {
  readonly label: string;
  /** In the order of the bundle's labels. */
  readonly probabilities: readonly number[];
  /** By label with an operating point: does its probability reach it? */
  readonly positives: Readonly<Record<string, boolean>>;
}

interface Kind {
  /** Names of the model's outputs, in the order of the bundle. */
  readonly outputs: readonly string[];
  readonly decode: (outputs: Outputs, bundle: Bundle) => Classes;
}

/** The output that tells pictures out of distribution. */
export const EMBEDDING = "embedding";

export const KINDS: ReadonlyMap<string, Kind> = new Map([
  ["classification", { outputs: ["logits", EMBEDDING], decode: decodeClassification }],
]);

function decodeClassification(outputs: Outputs, bundle: Bundle): Classes {
  const probabilities = softmax(outputs["logits"]!, bundle.temperature);
  const positives: Record<string, boolean> = {};
  for (const [label, point] of Object.entries(bundle.operatingPoints)) {
    positives[label] = probabilities[bundle.labels.indexOf(label)]! >= point.threshold;
  }
  return { label: bundle.labels[argmax(probabilities)]!, probabilities, positives };
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
