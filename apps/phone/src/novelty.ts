// How unlike the pictures that a model knows one picture is: pipelines/mobile/novelty.py, held to
// the same numbers by tests/golden/novelty.json.

import type { Abstention } from "./bundle.ts";
import { unpack } from "./packed.ts";
import { Refusal } from "./refusal.ts";

/** The only score that bundles name. */
const SCORE = "rooted_residuals";

/** What known pictures are like at one level of the embedding. */
interface Level {
  readonly mean: Float64Array;
  readonly basis: Float64Array;
  readonly centre: number;
  readonly spread: number;
}

export interface Verdict {
  /** Larger is more foreign. */
  readonly foreignness: number;
  readonly isForeign: boolean;
}

/** The signed square root of each value, then of length 1 (Perronnin et al. 2010); zeros stay zeros. */
export function rooted(embedding: ArrayLike<number>): Float64Array {
  const roots = Float64Array.from(embedding, (value) => Math.sign(value) * Math.sqrt(Math.abs(value)));
  const length = Math.sqrt(roots.reduce((sum, value) => sum + value * value, 0));
  return length > 0 ? roots.map((value) => value / length) : roots;
}

/**
 * Length of the part of a rooted level that known pictures do not have: with x = rooted - mean, the
 * length of x less its projection on the rows of `basis` (after Wang et al. 2022).
 */
function residual(values: ArrayLike<number>, { mean, basis }: Level): number {
  const d = mean.length;
  const x = rooted(values).map((value, i) => value - mean[i]!);
  const rest = x.slice();
  for (let row = 0; row < basis.length; row += d) {
    let inside = 0;
    for (let i = 0; i < d; i++) inside += x[i]! * basis[row + i]!;
    for (let i = 0; i < d; i++) rest[i] = rest[i]! - inside * basis[row + i]!;
  }
  return Math.sqrt(rest.reduce((sum, value) => sum + value * value, 0));
}

/** A fitted score, ready to be asked. Throws a Refusal where it is unknown or does not fit. */
export function makeNovelty(
  abstention: Abstention,
  nFeatures: number,
): (embedding: ArrayLike<number>) => Verdict {
  if (abstention.score !== SCORE) throw fault(`score: ${abstention.score}`);
  const levels = readLevels(abstention.arrays, nFeatures);
  return (embedding) => {
    const values = Float64Array.from(embedding);
    let [foreignness, start] = [Number.NEGATIVE_INFINITY, 0];
    // The level that is most surprised decides (Tippett 1931).
    for (const level of levels) {
      const end = start + level.mean.length;
      const score = (residual(values.subarray(start, end), level) - level.centre) / level.spread;
      foreignness = Math.max(foreignness, score);
      start = end;
    }
    return { foreignness, isForeign: !(foreignness <= abstention.threshold) }; // NaN is foreign
  };
}

function readLevels(packed: Abstention["arrays"], nFeatures: number): Level[] {
  const arrays: Record<string, Float64Array> = {};
  for (const [name, array] of Object.entries(packed)) {
    try {
      arrays[name] = unpack(array);
    } catch (error) {
      throw fault(`arrays.${name}: ${String(error)}`);
    }
    if (!arrays[name].every(Number.isFinite)) throw fault(`arrays.${name}: not finite`);
  }
  const { mean, centre, spread } = arrays;
  const widths: number[] = [];
  for (let basis; (basis = packed[`basis_${widths.length}`]) !== undefined; ) widths.push(basis.shape[1] ?? 0);
  const isFit =
    widths.length > 0 &&
    Object.keys(arrays).length === widths.length + 3 &&
    mean?.length === nFeatures &&
    widths.reduce((sum, width) => sum + width) === nFeatures &&
    centre?.length === widths.length &&
    spread?.length === widths.length &&
    spread.every((value) => value > 0);
  if (!isFit) {
    const shapes = Object.entries(packed).map(([name, { shape }]) => [name, shape.join(" x ")]);
    throw fault(`arrays: ${JSON.stringify(Object.fromEntries(shapes))}`);
  }
  return widths.map((width, level) => {
    const start = widths.slice(0, level).reduce((sum, value) => sum + value, 0);
    return {
      mean: mean.subarray(start, start + width),
      basis: arrays[`basis_${level}`]!,
      centre: centre[level]!,
      spread: spread[level]!,
    };
  });
}

function fault(reason: string): Refusal {
  return new Refusal("refusal.bundle", { reason: `abstention.${reason}` });
}
