// What a live camera's stream of answers amounts to.

/** Answers that the rate is measured over. */
const WINDOW = 10;
/** A live label is read out once it has stood this long; not at every frame. */
const STEADY_MS = 1500;

/** How many answers come in a second. */
export class Pace {
  readonly #times: number[] = [];

  /** The rate after one more answer; null until there are two. */
  add(nowMs: number): number | null {
    this.#times.push(nowMs);
    if (this.#times.length > WINDOW) this.#times.shift();
    const n = this.#times.length;
    return n > 1 ? ((n - 1) * 1000) / (nowMs - this.#times[0]!) : null;
  }
}

/** Which answers are worth reading out: those that stay, once each. */
export class Steady {
  #label: string | null = null;
  #sinceMs = 0;
  #spoken: string | null = null;

  /** Whether this answer is to be read out now; an empty label is an out-of-distribution picture. */
  add(label: string, nowMs: number): boolean {
    if (label !== this.#label) {
      this.#label = label;
      this.#sinceMs = nowMs;
    }
    if (label === this.#spoken || nowMs - this.#sinceMs < STEADY_MS) return false;
    this.#spoken = label;
    return true;
  }
}
