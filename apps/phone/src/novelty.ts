// How unlike the pictures that a model knows one picture is: pipelines/mobile/novelty.py, held to
// the same numbers by tests/golden/novelty.json.

import type { Abstention } from "./bundle.ts";
import { unpack } from "./packed.ts";
import { Refusal } from "./refusal.ts";

type Arrays = Readonly<Record<string, Float64Array>>;
type Score = (embedding: ArrayLike<number>, arrays: Arrays) => number;

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
 * Length of the part of a rooted embedding that known pictures do not have: with x = rooted - mean,
 * the length of x less its projection on the rows of `basis` (after Wang et al. 2022).
 */
function rootResidual(embedding: ArrayLike<number>, arrays: Arrays): number {
  const mean = arrays["mean"]!;
  const basis = arrays["basis"]!;
  const d = mean.length;
  const x = rooted(embedding).map((value, i) => value - mean[i]!);
  const rest = x.slice();
  for (let row = 0; row < basis.length; row += d) {
    let inside = 0;
    for (let i = 0; i < d; i++) inside += x[i]! * basis[row + i]!;
    for (let i = 0; i < d; i++) rest[i] = rest[i]! - inside * basis[row + i]!;
  }
  return Math.sqrt(rest.reduce((sum, value) => sum + value * value, 0));
}

const SCORES: Readonly<Record<string, Score>> = { root_residual: rootResidual };

/** A fitted score, ready to be asked. Throws a Refusal where it is unknown or does not fit. */
export function makeNovelty(
  abstention: Abstention,
  nFeatures: number,
): (embedding: ArrayLike<number>) => Verdict {
  const fault = (reason: string): Refusal => new Refusal("refusal.bundle", { reason: `abstention.${reason}` });
  const score = Object.hasOwn(SCORES, abstention.score) ? SCORES[abstention.score] : undefined;
  if (score === undefined) throw fault(`score: ${abstention.score}`);
  const shapes = Object.fromEntries(
    Object.entries(abstention.arrays).map(([name, packed]) => [name, packed.shape.join(" x ")]),
  );
  const k = abstention.arrays["basis"]?.shape[0] ?? 0;
  const isFit =
    Object.keys(shapes).length === 2 && shapes["mean"] === `${nFeatures}` && shapes["basis"] === `${k} x ${nFeatures}`;
  if (!isFit) throw fault(`arrays: ${JSON.stringify(shapes)}`);
  const arrays: Record<string, Float64Array> = {};
  for (const [name, packed] of Object.entries(abstention.arrays)) {
    try {
      arrays[name] = unpack(packed);
    } catch (error) {
      throw fault(`arrays.${name}: ${String(error)}`);
    }
    if (!arrays[name].every(Number.isFinite)) throw fault(`arrays.${name}: not finite`);
  }
  return (embedding) => {
    const foreignness = score(embedding, arrays);
    return { foreignness, isForeign: !(foreignness <= abstention.threshold) }; // NaN is foreign
  };
}
