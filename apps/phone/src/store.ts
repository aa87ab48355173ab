// Files from the page's own server, kept on the phone for when there is no network.
//
// Model files are named by their hash and never change: what is kept is used. What may change
// (the list of tasks, bundle.json) comes from the network first and from the phone otherwise.
// Where a browser has no Cache Storage (plain http from another computer), nothing is kept.

import { Refusal } from "./refusal.ts";

const CACHE = "fieldlens-models";
/** A field's network that hangs is no network. */
const PATIENCE_MS = 8000;

export type Progress = (loadedBytes: number, totalBytes: number) => void;

export const canKeep = (): boolean => "caches" in globalThis;

/** Where the list of tasks is. */
export const indexUrl = (base: string): string => new URL("models/index.json", base).href;

/** Where one task's bundle is. */
export const bundleUrl = (base: string, task: string): string =>
  new URL(`models/${encodeURIComponent(task)}/bundle.json`, base).href;

/** Where one task's model is; the hash makes it a name of these very bytes. */
export const modelUrl = (base: string, task: string, name: string, hash: string): string =>
  new URL(`models/${encodeURIComponent(task)}/${encodeURIComponent(name)}?sha256=${hash}`, base).href;

/** A JSON document, fresh if there is a network. Throws a Refusal if it is neither there nor kept. */
export async function fetchJson(url: string): Promise<unknown> {
  const cache = canKeep() ? await caches.open(CACHE) : null;
  let response: Response | undefined;
  try {
    response = await fetch(url, { cache: "no-cache", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (response.ok) await cache?.put(url, response.clone());
  } catch {
    response = undefined; // no network: what is kept will do
  }
  if (!response?.ok) response = (await cache?.match(url)) ?? response;
  if (!response?.ok) throw new Refusal("refusal.network");
  try {
    return await response.json();
  } catch (error) {
    throw new Refusal("refusal.bundle", { reason: "JSON" }, { cause: error });
  }
}

/** The bytes of a model, from the phone if it has them. Throws a Refusal. */
export async function fetchModel(
  url: string,
  sizeBytes: number,
  progress: Progress,
): Promise<Uint8Array<ArrayBuffer>> {
  const cache = canKeep() ? await caches.open(CACHE) : null;
  const kept = await cache?.match(url);
  if (kept) return new Uint8Array(await kept.arrayBuffer());
  let response: Response;
  try {
    response = await fetch(url);
  } catch (error) {
    throw new Refusal("refusal.network", {}, { cause: error });
  }
  if (!response.ok || !response.body) throw new Refusal("refusal.network");
  const bytes = new Uint8Array(sizeBytes);
  let loaded = 0;
  const reader = response.body.getReader();
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      if (loaded + part.value.length > sizeBytes) throw new Refusal("refusal.hash");
      bytes.set(part.value, loaded);
      loaded += part.value.length;
      progress(loaded, sizeBytes);
    }
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal("refusal.network", {}, { cause: error });
  }
  if (loaded !== sizeBytes) throw new Refusal("refusal.hash");
  return bytes;
}

/** Keep a model whose hash was found right, and let go of this task's older ones. */
export async function keepModel(url: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
  if (!canKeep()) return;
  const cache = await caches.open(CACHE);
  if (await cache.match(url)) return;
  const folder = url.slice(0, url.lastIndexOf("/") + 1);
  for (const request of await cache.keys()) {
    if (request.url.startsWith(folder) && request.url.includes("?sha256=")) await cache.delete(request);
  }
  try {
    await cache.put(url, new Response(bytes, { headers: { "Content-Type": "application/octet-stream" } }));
  } catch {
    // The phone is full or the browser keeps nothing: the answer does not depend on it.
  }
}

/** Forget a kept model whose bytes turned out wrong. */
export async function forgetModel(url: string): Promise<void> {
  if (canKeep()) await (await caches.open(CACHE)).delete(url);
}

/** The tasks whose model is on the phone. */
export async function keptTasks(base: string): Promise<Set<string>> {
  const tasks = new Set<string>();
  if (!canKeep()) return tasks;
  const root = new URL("models/", base).href;
  for (const request of await (await caches.open(CACHE)).keys()) {
    if (!request.url.startsWith(root) || !request.url.includes("?sha256=")) continue;
    tasks.add(decodeURIComponent(request.url.slice(root.length).split("/")[0] ?? ""));
  }
  return tasks;
}
