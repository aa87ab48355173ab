// Which pixels show a label: pipelines/serving/segmentation.py, held to the same answers by
// tests/golden/segmentation.json.

import type { Bundle } from "./bundle.ts";
import type { Outputs } from "./kinds.ts";
import type { Geometry } from "./preprocess.ts";

/** From which probability on a pixel shows a label that has no operating point. */
const THRESHOLD = 0.5;

/** Where one label is seen. */
export interface Region {
  readonly label: string;
  /** Of what the model saw of the picture, in [0, 1]. */
  readonly areaShare: number;
  /** In px² of the upright picture. */
  readonly areaPx: number;
  /** Left, top, right and bottom in px of the upright picture; null where it is not seen. */
  readonly boxPx: readonly [number, number, number, number] | null;
}

/** What a segmentation says of a picture. */
export interface Mask {
  readonly kind: "segmentation";
  /** In the order of the bundle's labels. */
  readonly regions: readonly Region[];
  /** A map of the input a label, one after another, in [0, 1]. */
  readonly probabilities: Float32Array;
}

export function decodeMask(outputs: Outputs, bundle: Bundle, geometry: Geometry): Mask {
  const probabilities = Float32Array.from(outputs["mask"]!);
  const side = bundle.preprocess.cropPx;
  const shown = indexed(probabilities, thresholdsOf(bundle));
  return {
    kind: "segmentation",
    regions: bundle.labels.map((label, place) => ({ label, ...regionOf(shown, place + 1, side, geometry) })),
    probabilities,
  };
}

/** From which probability on a pixel shows each label, in the bundle's order. */
export function thresholdsOf(bundle: Bundle): number[] {
  return bundle.labels.map((label) => bundle.operatingPoints[label]?.threshold ?? THRESHOLD);
}

/** Of each pixel 0 where no label is shown, else 1 + the label that is farthest above its threshold. */
export function indexed(probabilities: Float32Array, thresholds: readonly number[]): Uint8Array {
  const n = probabilities.length / thresholds.length;
  const found = new Uint8Array(n);
  const best = new Float32Array(n).fill(-1);
  thresholds.forEach((threshold, place) => {
    const bound = Math.fround(threshold);
    for (let i = 0; i < n; i++) {
      // As shares of the way from the threshold to 1, so that labels of other thresholds compare.
      const above = Math.fround(Math.fround(probabilities[place * n + i]! - bound) / Math.fround(1 - bound));
      if (above < 0 || (found[i]! > 0 && above <= best[i]!)) continue;
      best[i] = above;
      found[i] = place + 1;
    }
  });
  return found;
}

function regionOf(shown: Uint8Array, index: number, side: number, { scale, shift }: Geometry): Omit<Region, "label"> {
  let [n, left, top, right, bottom] = [0, side, side, -1, -1];
  shown.forEach((at, i) => {
    if (at !== index) return;
    const [x, y] = [i % side, Math.trunc(i / side)];
    n += 1;
    [left, top, right, bottom] = [Math.min(left, x), Math.min(top, y), Math.max(right, x), Math.max(bottom, y)];
  });
  const inPicture = (px: number, axis: 0 | 1): number => (px - shift[axis]) / scale[axis];
  return {
    areaShare: n / shown.length,
    areaPx: n / (scale[0] * scale[1]),
    boxPx: n === 0 ? null : [inPicture(left, 0), inPicture(top, 1), inPicture(right + 1, 0), inPicture(bottom + 1, 1)],
  };
}

/** Square maps made larger, bilinear, so that a mask has no steps; values are at the middle of pixels. */
export function enlarged(maps: Float32Array, nMaps: number, side: number, larger: number): Float32Array {
  const found = new Float32Array(nMaps * larger * larger);
  const places = Array.from({ length: larger }, (_, at) => {
    const exact = Math.min(Math.max(((at + 0.5) * side) / larger - 0.5, 0), side - 1);
    const low = Math.min(Math.trunc(exact), Math.max(side - 2, 0));
    return { low, high: Math.min(low + 1, side - 1), share: exact - low };
  });
  let to = 0;
  for (let map = 0; map < nMaps; map++) {
    const start = map * side * side;
    for (const y of places) {
      const [above, below] = [start + y.low * side, start + y.high * side];
      for (const x of places) {
        const upper = maps[above + x.low]! * (1 - x.share) + maps[above + x.high]! * x.share;
        const lower = maps[below + x.low]! * (1 - x.share) + maps[below + x.high]! * x.share;
        found[to++] = upper * (1 - y.share) + lower * y.share;
      }
    }
  }
  return found;
}
