// The page's side of the worker.

import type { Progress } from "./download.ts";
import type { Answer, Loaded, Reply, Request, Updated } from "./protocol.ts";
import { Refusal } from "./refusal.ts";

/** Threads beyond four gain little on a phone, whose other cores are small ones. */
const MOST_THREADS = 4;

/** How many threads the model may use here; one where the page is not cross-origin isolated. */
export function threadsHere(): number {
  const asked = Number(new URLSearchParams(location.search).get("threads") ?? MOST_THREADS);
  if (!globalThis.crossOriginIsolated) return 1;
  return Math.max(1, Math.min(asked || 1, MOST_THREADS, navigator.hardwareConcurrency || 1));
}

interface Waiting {
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: Error) => void;
  readonly progress?: Progress;
}

export class Engine {
  readonly #worker = new Worker(new URL("./engine.worker.ts", import.meta.url), { type: "module" });
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;

  constructor() {
    this.#worker.addEventListener("message", (event: MessageEvent<Reply>) => this.#receive(event.data));
    this.#worker.addEventListener("error", (event) => {
      const error = new Refusal("refusal.runtime", { reason: event.message || "worker" });
      for (const waiting of this.#waiting.values()) waiting.reject(error);
      this.#waiting.clear();
    });
  }

  /** Get a task's model ready: the newest that is here, else the server's. Rejects with a Refusal. */
  async load(base: string, task: string, progress: Progress): Promise<{ loaded: Loaded; bundleJson: unknown }> {
    const message = { kind: "load", base, task, nThreads: threadsHere() } as const;
    const reply = await this.#ask(message, [], progress);
    if (reply.kind !== "loaded") throw new Error(`expected loaded, got ${reply.kind}`);
    return reply;
  }

  /**
   * Look for a newer model on the server while the one that is ready answers; the next `load` gets
   * it ready. Rejects with a Refusal.
   */
  async update(base: string, task: string, progress: Progress): Promise<Updated> {
    const message = { kind: "update", base, task, nThreads: threadsHere() } as const;
    const reply = await this.#ask(message, [], progress);
    if (reply.kind !== "updated") throw new Error(`expected updated, got ${reply.kind}`);
    return reply.updated;
  }

  /** The answer for one picture, and a small copy of a large one. A bitmap is handed over and closed. Rejects with a Refusal. */
  async answer(source: Blob | ImageBitmap): Promise<{ answer: Answer; preview: ImageBitmap | null }> {
    const transfer = source instanceof Blob ? [] : [source];
    const reply = await this.#ask({ kind: "answer", source }, transfer);
    if (reply.kind !== "answered") throw new Error(`expected answered, got ${reply.kind}`);
    return reply;
  }

  #ask(message: WithoutId<Request>, transfer: Transferable[], progress?: Progress): Promise<Reply> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, progress ? { resolve, reject, progress } : { resolve, reject });
      this.#worker.postMessage({ ...message, id }, transfer);
    });
  }

  #receive(reply: Reply): void {
    const waiting = this.#waiting.get(reply.id);
    if (!waiting) return;
    if (reply.kind === "progress") {
      waiting.progress?.(reply.loadedBytes, reply.totalBytes);
      return;
    }
    this.#waiting.delete(reply.id);
    if (reply.kind === "refused") waiting.reject(new Refusal(reply.key, reply.facts));
    else if (reply.kind === "failed") waiting.reject(new Refusal("refusal.runtime", { reason: reply.message }));
    else waiting.resolve(reply);
  }
}

type WithoutId<T> = T extends unknown ? Omit<T, "id"> : never;
