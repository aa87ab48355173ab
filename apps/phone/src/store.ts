// The models and their list, kept on the phone for when there is no network.
//
// A model and its bundle.json are a pair, and a pair changes as a whole: the model is kept under its
// hash, then its bundle under a new version, and only then what came before is let go of. Whatever
// breaks off on the way (the network, the storage, the phone) leaves the pair from before. Nothing
// is written over: a browser may lose the old entry of an address before it has the new one.
//
// Where a browser has no Cache Storage (plain http from another computer), nothing is kept.

import { type Bundle, readBundle } from "./bundle.ts";
import { download, type Progress } from "./download.ts";
import { Refusal } from "./refusal.ts";
import { sha256 } from "./sha256.ts";
import { isIndex } from "./tasks.ts";

const CACHE = "fieldlens-models";

export const canKeep = (): boolean => "caches" in globalThis;

/** A model with its description; proven to belong together. */
export interface Pair {
  readonly bundle: Bundle;
  /** bundle.json as it came. */
  readonly text: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Whether a pair is there next time too: yes; storage is full; the browser would not; it never does. */
export type Keeping = "kept" | "full" | "refused" | "off";

const indexUrl = (base: string): string => new URL("models/index.json", base).href;
const folderUrl = (base: string, task: string): string => new URL(`models/${encodeURIComponent(task)}/`, base).href;
const bundleUrl = (base: string, task: string): string => `${folderUrl(base, task)}bundle.json`;
/** The hash makes it a name of these very bytes. */
const modelUrl = (base: string, task: string, file: Bundle["file"]): string =>
  `${folderUrl(base, task)}${encodeURIComponent(file.name)}?sha256=${file.sha256}`;

/** The list of tasks that is on the phone; null if there is none. */
export async function keptIndex(base: string): Promise<unknown> {
  if (!canKeep()) return null;
  const cache = await caches.open(CACHE);
  const [newest] = await versions(cache, indexUrl(base));
  return newest ? ((await (await cache.match(newest))?.json()) ?? null) : null;
}

/** The server's list of tasks, which is kept from now on. Throws a Refusal. */
export async function fetchIndex(base: string): Promise<unknown> {
  const { text, json } = await fetchJson(indexUrl(base));
  if (!isIndex(json)) throw new Refusal("refusal.notJson");
  if (canKeep()) {
    await alone(async (cache) => {
      const [newest] = await versions(cache, indexUrl(base));
      if (newest && (await (await cache.match(newest))?.text()) === text) return;
      await forget(cache, await putNewest(cache, indexUrl(base), text, {}));
    }).catch(() => undefined); // as with models: the page does not depend on what is kept
  }
  return json;
}

/** The newest whole pair of a task on the phone; null if there is none. */
export async function keptPair(base: string, task: string): Promise<Pair | null> {
  if (!canKeep()) return null;
  const cache = await caches.open(CACHE);
  for (const entry of await versions(cache, bundleUrl(base, task))) {
    const text = await (await cache.match(entry))?.text();
    if (text === undefined) continue;
    try {
      const bundle = readBundle(JSON.parse(text));
      const bytes = await keptModel(cache, modelUrl(base, task, bundle.file), bundle);
      if (bytes) return { bundle, text, bytes };
    } catch {
      continue; // another version of the page kept it, and an older one may be readable
    }
  }
  return null;
}

/**
 * The server's pair of a task; of the pair that is there already, only what has changed is loaded.
 * Throws a Refusal.
 */
export async function fetchPair(
  base: string,
  task: string,
  had: Pair | null,
  progress: Progress,
  signal: AbortSignal,
): Promise<Pair> {
  const { text, json } = await fetchJson(bundleUrl(base, task), signal);
  if (had?.text === text) return had;
  const bundle = readBundle(json);
  if (had?.bundle.file.sha256 === bundle.file.sha256) return { bundle, text, bytes: had.bytes };
  const url = modelUrl(base, task, bundle.file);
  const kept = canKeep() ? await keptModel(await caches.open(CACHE), url, bundle) : null;
  if (kept) return { bundle, text, bytes: kept };
  // The page keeps models itself; where it cannot, the browser's own cache is better than nothing,
  // and is passed by where it holds what a server gave under a wrong name.
  const ways: readonly RequestCache[] = canKeep() ? ["no-store"] : ["default", "reload"];
  for (const cache of ways) {
    const { bytes } = await download(url, { cache, sizeBytes: bundle.file.sizeBytes, progress, signal });
    if ((await sha256(bytes)) === bundle.file.sha256) return { bundle, text, bytes };
  }
  throw new Refusal("refusal.hash");
}

/** Keep a pair in the place of the one before. */
export async function keepPair(base: string, task: string, pair: Pair): Promise<Keeping> {
  if (!canKeep()) return "off";
  return alone(async (cache) => {
    const url = modelUrl(base, task, pair.bundle.file);
    const isThere = (await keptModel(cache, url, pair.bundle)) !== null;
    let older: readonly Request[];
    try {
      if (!isThere) await cache.put(url, new Response(pair.bytes, { headers: { "Content-Type": "application/octet-stream" } }));
      older = await putNewest(cache, bundleUrl(base, task), pair.text, { model: pair.bundle.file.sha256 });
    } catch (error) {
      if (!isThere) await cache.delete(url);
      return error instanceof DOMException && error.name === "QuotaExceededError" ? "full" : "refused";
    }
    await forget(cache, older);
    const folder = folderUrl(base, task);
    const models = (await cache.keys()).filter((entry) => entry.url.startsWith(folder) && isModel(entry) && entry.url !== url);
    await forget(cache, models);
    return "kept";
  });
}

/** The tasks that have a whole pair on the phone. */
export async function keptTasks(base: string): Promise<Set<string>> {
  const tasks = new Set<string>();
  if (!canKeep()) return tasks;
  const entries = (await (await caches.open(CACHE)).keys()).map((entry) => new URL(entry.url));
  const models = new Set(entries.filter(isModel).map((url) => folderOf(url) + url.searchParams.get("sha256")));
  const folders = new Set(entries.filter(isModel).map(folderOf));
  const root = new URL("models/", base).href;
  for (const url of entries) {
    const folder = folderOf(url);
    if (!folder.startsWith(root) || !url.pathname.endsWith("/bundle.json")) continue;
    const model = url.searchParams.get("model");
    // Earlier pages kept a bundle without saying whose it is.
    if (model ? models.has(folder + model) : folders.has(folder)) {
      tasks.add(decodeURIComponent(folder.slice(root.length, -1)));
    }
  }
  return tasks;
}

const isModel = (entry: { readonly url: string } | URL): boolean =>
  new URL(entry instanceof URL ? entry.href : entry.url).searchParams.has("sha256");
const folderOf = (url: URL): string => url.origin + url.pathname.slice(0, url.pathname.lastIndexOf("/") + 1);

/** A model's bytes, if they are on the phone and right; wrong ones are let go of. */
async function keptModel(cache: Cache, url: string, bundle: Bundle): Promise<Uint8Array<ArrayBuffer> | null> {
  const kept = await cache.match(url);
  if (!kept) return null;
  const bytes = new Uint8Array(await kept.arrayBuffer());
  if ((await sha256(bytes)) === bundle.file.sha256) return bytes;
  await cache.delete(url);
  return null;
}

/** What is kept of one address, newest first; an entry of earlier pages has no version. */
async function versions(cache: Cache, url: string): Promise<readonly Request[]> {
  const entries = await cache.keys(url, { ignoreSearch: true });
  return [...entries].sort((a, b) => versionOf(b) - versionOf(a));
}

const versionOf = (entry: Request): number => Number(new URL(entry.url).searchParams.get("version") ?? 0);

/** Keep a text as the newest version of its address; gives those before it. */
async function putNewest(
  cache: Cache,
  url: string,
  text: string,
  facts: Readonly<Record<string, string>>,
): Promise<readonly Request[]> {
  const older = await versions(cache, url);
  const version = older[0] ? versionOf(older[0]) + 1 : 1;
  const query = new URLSearchParams({ version: String(version), ...facts });
  await cache.put(`${url}?${query}`, new Response(text, { headers: { "Content-Type": "application/json" } }));
  return older;
}

async function forget(cache: Cache, entries: readonly Request[]): Promise<void> {
  for (const entry of entries) await cache.delete(entry);
}

/** Two windows of the page do not tidy up behind each other. */
function alone<T>(work: (cache: Cache) => Promise<T>): Promise<T> {
  const run = async (): Promise<T> => work(await caches.open(CACHE));
  return navigator.locks ? navigator.locks.request(CACHE, run) : run();
}

/** A JSON document as text and parsed; a network that answers for the server answers in HTML. */
async function fetchJson(url: string, signal?: AbortSignal): Promise<{ text: string; json: unknown }> {
  const { bytes } = await download(url, { cache: "no-cache", ...(signal && { signal }) });
  const text = new TextDecoder().decode(bytes);
  try {
    return { text, json: JSON.parse(text) };
  } catch (error) {
    throw new Refusal("refusal.notJson", {}, { cause: error });
  }
}
