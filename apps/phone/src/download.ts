// Bytes from the page's own server. What ends a download early is told apart, because each has its
// own next step; a field's network that hangs is ended after a while without a byte, and one that
// is slow is not.

import { Refusal } from "./refusal.ts";

/** Time without a byte. Mobile networks pause for some seconds when a phone changes its mast. */
const STALL_MS = 15_000;

export type Progress = (loadedBytes: number, totalBytes: number) => void;

export interface Wish {
  readonly cache: RequestCache;
  /** What the bytes must come to; null where nobody has said it. */
  readonly sizeBytes?: number | null;
  readonly progress?: Progress;
  /** Ends it from outside. */
  readonly signal?: AbortSignal;
}

export interface Download {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly headers: Headers;
}

/** All bytes of an address. Throws a Refusal. */
export async function download(url: string, wish: Wish): Promise<Download> {
  const stall = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const arrived = (): void => {
    clearTimeout(timer);
    timer = setTimeout(() => stall.abort(), STALL_MS);
  };
  const signal = wish.signal ? AbortSignal.any([stall.signal, wish.signal]) : stall.signal;
  let loaded = 0;
  let isAnswered = false;
  try {
    arrived();
    const response = await fetch(url, { cache: wish.cache, signal });
    arrived();
    isAnswered = true;
    if (!response.ok || !response.body) throw new Refusal("refusal.status", { status: response.status });
    const parts: Uint8Array<ArrayBuffer>[] = [];
    const reader = response.body.getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      arrived();
      parts.push(part.value);
      loaded += part.value.length;
      if (wish.sizeBytes != null && loaded > wish.sizeBytes) {
        void reader.cancel().catch(() => undefined);
        throw new Refusal("refusal.hash");
      }
      wish.progress?.(loaded, wish.sizeBytes ?? loaded);
    }
    // A connection that breaks off is an error of the reader; this ended as it was meant to.
    if (wish.sizeBytes != null && loaded < wish.sizeBytes) throw new Refusal("refusal.hash");
    return { bytes: new Uint8Array(await new Blob(parts).arrayBuffer()), headers: response.headers };
  } catch (error) {
    if (error instanceof Refusal) throw error;
    if (stall.signal.aborted) throw new Refusal("refusal.stalled", { seconds: STALL_MS / 1000 }, { cause: error });
    throw new Refusal(isAnswered ? "refusal.cut" : "refusal.network", {}, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}
