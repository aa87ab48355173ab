// Rows of a model become boxes in the picture: pipelines/serving/detection.py, held to the same
// answers by tests/golden/detection.json.

import type { Bundle } from "./bundle.ts";
import type { Outputs } from "./kinds.ts";
import type { Geometry } from "./preprocess.ts";

/** x0, y0, x1, y1 as shares of the input's side, score, number of the label. */
const N_COLUMNS = 6;
/** From which score on a box counts, of a label that no point was fitted for. */
const DEFAULT_THRESHOLD = 0.5;

/** One thing that was found, in px of the upright picture. */
export interface Box {
  readonly label: string;
  /** How sure the model is, in [0, 1]. */
  readonly score: number;
  readonly x0: number;
  readonly y0: number;
  readonly x1: number;
  readonly y1: number;
}

/** What a detection says of a picture. */
export interface Boxes {
  readonly kind: "detection";
  /** The most certain first; those too that do not count, for whoever moves the threshold. */
  readonly boxes: readonly Box[];
}

export function decodeBoxes(outputs: Outputs, bundle: Bundle, { scale, shift }: Geometry): Boxes {
  const rows = outputs["boxes"]!;
  const side = bundle.preprocess.cropPx;
  // What lies beside the picture, where the view frames it, is cut off: margins are alike at both
  // ends, to a pixel.
  const inPicture = (share: number, axis: 0 | 1): number => {
    const margin = Math.max(shift[axis], 0);
    return (Math.min(Math.max(share * side, margin), side - margin) - shift[axis]) / scale[axis];
  };
  const boxes: Box[] = [];
  for (let at = 0; at < rows.length; at += N_COLUMNS) {
    const [x0, x1] = [inPicture(rows[at]!, 0), inPicture(rows[at + 2]!, 0)];
    const [y0, y1] = [inPicture(rows[at + 1]!, 1), inPicture(rows[at + 3]!, 1)];
    const [score, label] = [rows[at + 4]!, bundle.labels[Math.trunc(rows[at + 5]!)]];
    // Rows of score 0 are padding; of what lies in the grey margin nothing is left.
    if (score > 0 && x1 > x0 && y1 > y0 && label !== undefined) boxes.push({ label, score, x0, y0, x1, y1 });
  }
  return { kind: "detection", boxes };
}

/** From which score on a box of a label counts, as chosen on val. */
export function thresholdOf(bundle: Bundle, label: string): number {
  return bundle.boxPoints[label]?.threshold ?? DEFAULT_THRESHOLD;
}

/** The boxes that count: from one score on, or from each label's own where that is null. */
export function counted(said: Boxes, bundle: Bundle, least: number | null): Box[] {
  return said.boxes.filter((box) => box.score >= (least ?? thresholdOf(bundle, box.label)));
}
