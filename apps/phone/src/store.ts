// The models and their list, kept on the phone for when there is no network.
//
// A model and its bundle.json are a pair, with the gallery where there is one, and a pair changes as a
// whole: its files are kept under their hashes, then its bundle under a new version, and only then what
// came before is let go of. Whatever breaks off on the way (the network, the storage, the phone) leaves
// the pair from before. Nothing is written over: a browser may lose the old entry of an address before
// it has the new one.
//
// Where a browser has no Cache Storage (plain http from another computer), nothing is kept.

import { type Bundle, readBundle } from "./bundle.ts";
import { download, type Progress } from "./download.ts";
import { KINDS } from "./kinds.ts";
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
  /** The file of known pictures beside the model; null where there is none. */
  readonly gallery: { readonly sha256: string; readonly bytes: Uint8Array<ArrayBuffer> } | null;
}

/** A file beside bundle.json. */
interface Named {
  readonly name: string;
  readonly sha256: string;
  readonly sizeBytes: number;
}

const GALLERY = "gallery.json";

/** Whether a pair is there next time too: yes; storage is full; the browser would not; it never does. */
export type Keeping = "kept" | "full" | "refused" | "off";

const indexUrl = (base: string): string => new URL("models/index.json", base).href;
const folderUrl = (base: string, task: string): string => new URL(`models/${encodeURIComponent(task)}/`, base).href;
const bundleUrl = (base: string, task: string): string => `${folderUrl(base, task)}bundle.json`;
/** The hash makes it a name of these very bytes. */
const fileUrl = (base: string, task: string, file: Omit<Named, "sizeBytes">): string =>
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
      const bytes = await keptFile(cache, fileUrl(base, task, bundle.file), bundle.file.sha256);
      const hash = new URL(entry.url).searchParams.get("gallery");
      const known = hash && (await keptFile(cache, fileUrl(base, task, { name: GALLERY, sha256: hash }), hash));
      if (bytes && (!hash || known)) return { bundle, text, bytes, gallery: hash && known ? { sha256: hash, bytes: known } : null };
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
  const bundle = had && had.text === text ? had.bundle : readBundle(json);
  const listed = KINDS.get(bundle.kind)!.hasGallery ? await fetchListed(base, task, signal) : null;
  if (had && had.text === text && had.gallery?.sha256 === listed?.sha256) return had;
  const { file } = bundle;
  const sizeBytes = file.sizeBytes + (listed?.sizeBytes ?? 0);
  const bytes =
    had?.bundle.file.sha256 === file.sha256
      ? had.bytes
      : await fetchFile(base, task, file, (got) => progress(got, sizeBytes), signal);
  if (!listed) return { bundle, text, bytes, gallery: null };
  const { sha256 } = listed;
  const gallery =
    had?.gallery?.sha256 === sha256
      ? had.gallery
      : { sha256, bytes: await fetchFile(base, task, listed, (got) => progress(file.sizeBytes + got, sizeBytes), signal) };
  return { bundle, text, bytes, gallery };
}

/** Which gallery the server has beside a bundle; null where it has none. Throws a Refusal. */
async function fetchListed(base: string, task: string, signal: AbortSignal): Promise<Named | null> {
  const { json } = await fetchJson(`${folderUrl(base, task)}gallery_file.json`, signal);
  if (json === null) return null;
  const { sha256, size_bytes: sizeBytes } = json as { readonly sha256?: unknown; readonly size_bytes?: unknown };
  if (typeof sha256 !== "string" || typeof sizeBytes !== "number") throw new Refusal("refusal.notJson");
  return { name: GALLERY, sha256, sizeBytes };
}

/** A file beside bundle.json: the one on the phone, else the server's. Throws a Refusal. */
async function fetchFile(base: string, task: string, file: Named, progress: Progress, signal: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
  const url = fileUrl(base, task, file);
  const kept = canKeep() ? await keptFile(await caches.open(CACHE), url, file.sha256) : null;
  if (kept) return kept;
  // The page keeps files itself; where it cannot, the browser's own cache is better than nothing,
  // and is passed by where it holds what a server gave under a wrong name.
  const ways: readonly RequestCache[] = canKeep() ? ["no-store"] : ["default", "reload"];
  for (const cache of ways) {
    const { bytes } = await download(url, { cache, sizeBytes: file.sizeBytes, progress, signal });
    if ((await sha256(bytes)) === file.sha256) return bytes;
  }
  throw new Refusal("refusal.hash");
}

/** Keep a pair in the place of the one before. */
export async function keepPair(base: string, task: string, pair: Pair): Promise<Keeping> {
  if (!canKeep()) return "off";
  return alone(async (cache) => {
    const files = filesOf(base, task, pair);
    const added: string[] = [];
    let older: readonly Request[];
    try {
      for (const { url, sha256, bytes } of files) {
        if (await keptFile(cache, url, sha256)) continue;
        added.push(url);
        await cache.put(url, new Response(bytes, { headers: { "Content-Type": "application/octet-stream" } }));
      }
      const hashes = { model: pair.bundle.file.sha256, ...(pair.gallery && { gallery: pair.gallery.sha256 }) };
      older = await putNewest(cache, bundleUrl(base, task), pair.text, hashes);
    } catch (error) {
      for (const url of added) await cache.delete(url);
      return error instanceof DOMException && error.name === "QuotaExceededError" ? "full" : "refused";
    }
    await forget(cache, older);
    const folder = folderUrl(base, task);
    const urls = files.map(({ url }) => url);
    await forget(cache, (await cache.keys()).filter(({ url }) => url.startsWith(folder) && isFile({ url }) && !urls.includes(url)));
    return "kept";
  });
}

/** What is kept of a pair beside its text, by address. */
function filesOf(base: string, task: string, { bundle: { file }, bytes, gallery }: Pair): { url: string; sha256: string; bytes: Uint8Array<ArrayBuffer> }[] {
  const model = { url: fileUrl(base, task, file), sha256: file.sha256, bytes };
  return gallery ? [model, { url: fileUrl(base, task, { name: GALLERY, sha256: gallery.sha256 }), ...gallery }] : [model];
}

/** The tasks that have a whole pair on the phone. */
export async function keptTasks(base: string): Promise<Set<string>> {
  const tasks = new Set<string>();
  if (!canKeep()) return tasks;
  const entries = (await (await caches.open(CACHE)).keys()).map((entry) => new URL(entry.url));
  const files = new Set(entries.filter(isFile).map((url) => folderOf(url) + url.searchParams.get("sha256")));
  const folders = new Set(entries.filter(isFile).map(folderOf));
  const root = new URL("models/", base).href;
  for (const url of entries) {
    const folder = folderOf(url);
    if (!folder.startsWith(root) || !url.pathname.endsWith("/bundle.json")) continue;
    const hashes = ["model", "gallery"].map((name) => url.searchParams.get(name)).filter((hash) => hash !== null);
    // Earlier pages kept a bundle without saying whose it is.
    const isWhole = hashes.length > 0 ? hashes.every((hash) => files.has(folder + hash)) : folders.has(folder);
    if (isWhole) tasks.add(decodeURIComponent(folder.slice(root.length, -1)));
  }
  return tasks;
}

const isFile = (entry: { readonly url: string } | URL): boolean =>
  new URL(entry instanceof URL ? entry.href : entry.url).searchParams.has("sha256");
const folderOf = (url: URL): string => url.origin + url.pathname.slice(0, url.pathname.lastIndexOf("/") + 1);

/** A file's bytes, if they are on the phone and right; wrong ones are let go of. */
async function keptFile(cache: Cache, url: string, hash: string): Promise<Uint8Array<ArrayBuffer> | null> {
  const kept = await cache.match(url);
  if (!kept) return null;
  const bytes = new Uint8Array(await kept.arrayBuffer());
  if ((await sha256(bytes)) === hash) return bytes;
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
