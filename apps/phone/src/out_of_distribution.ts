// How unlike the pictures that a model knows one picture is: pipelines/serving/out_of_distribution.py, held to
// the same numbers by tests/golden/out_of_distribution.json.

import type { Abstention } from "./bundle.ts";
import { unpack } from "./packed.ts";
import { Refusal } from "./refusal.ts";

/** The only score that bundles name. */
const SCORE = "rooted_residuals";

/** What known pictures are like at one level of the embedding. */
interface Level {
  /** Place of its first value in the embedding. */
  readonly start: number;
  readonly mean: Float64Array;
  readonly basis: Float64Array;
  readonly centre: number;
  readonly spread: number;
}

export interface Verdict {
  /** Larger is further from the training pictures. */
  readonly oodScore: number;
  readonly isOod: boolean;
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
export function makeOutOfDistribution(
  abstention: Abstention,
  nFeatures: number,
): (embedding: ArrayLike<number>) => Verdict {
  if (abstention.score !== SCORE) throw fault(`score: ${abstention.score}`);
  const levels = readLevels(abstention.arrays, nFeatures);
  return (embedding) => {
    const values = Float64Array.from(embedding);
    // The level that is most surprised decides (Tippett 1931).
    const oodScore = Math.max(...levels.map((level) => standardScore(values, level)));
    return { oodScore, isOod: !(oodScore <= abstention.threshold) }; // NaN is out of distribution
  };
}

function standardScore(embedding: Float64Array, level: Level): number {
  const values = embedding.subarray(level.start, level.start + level.mean.length);
  return (residual(values, level) - level.centre) / level.spread;
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
  const shapes = Object.fromEntries(Object.entries(packed).map(([name, { shape }]) => [name, shape.join(" x ")]));
  const { mean, centre, spread } = arrays;
  const levels: Level[] = [];
  let start = 0;
  for (let basis; (basis = packed[`basis_${levels.length}`]) !== undefined; ) {
    const level = levels.length;
    // NaN is the end of no embedding.
    const end = start + (basis.shape.length === 2 ? basis.shape[1]! : Number.NaN);
    levels.push({
      start,
      mean: mean?.subarray(start, end) ?? new Float64Array(),
      basis: arrays[`basis_${level}`]!,
      centre: centre?.[level] ?? Number.NaN,
      spread: spread?.[level] ?? Number.NaN,
    });
    start = end;
  }
  const isFit =
    levels.length > 0 &&
    Object.keys(shapes).length === levels.length + 3 &&
    start === nFeatures &&
    shapes["mean"] === `${nFeatures}` &&
    shapes["centre"] === `${levels.length}` &&
    shapes["spread"] === `${levels.length}` &&
    levels.every(({ spread }) => spread > 0);
  if (!isFit) throw fault(`arrays: ${JSON.stringify(shapes)}`);
  return levels;
}

function fault(reason: string): Refusal {
  return new Refusal("refusal.bundle", { reason: `abstention.${reason}` });
}
