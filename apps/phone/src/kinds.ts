// What a model's outputs mean, by the kind of its task: the page's half of pipelines/serving/kinds.py.
// Golden files hold both to the same answers.

import type { Bundle } from "./bundle.ts";
import { argmax, softmax } from "./probabilities.ts";

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
