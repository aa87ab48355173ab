// The page itself, kept for when there is no network. Models are kept by src/store.ts.
//
// A version of the page has a cache of its own. It is filled file by file, each held to the hash
// that the build wrote down, and the version before answers until the last one is right.

/// <reference lib="webworker" />
import { download } from "./download.ts";
import { Refusal } from "./refusal.ts";
import { sha256 } from "./sha256.ts";

declare const self: ServiceWorkerGlobalScope;

/** Written in by vite.config.ts: what the page is made of, each with its hash, and the hash of it all. */
declare const __SHELL__: readonly (readonly [url: string, hash: string])[];
declare const __SHELL_HASH__: string;

const SCOPE = new URL(self.registration.scope);
/** One host may serve several such pages, each from a folder of its own. */
const PREFIX = `fieldlens-page ${SCOPE.pathname} `;
const CACHE = PREFIX + __SHELL_HASH__;
/** Of caches that said nothing about their folder. */
const EARLIER_PREFIX = "fieldlens-page-";

self.addEventListener("install", (event) => {
  event.waitUntil(keepShell());
});

async function keepShell(): Promise<void> {
  const cache = await caches.open(CACHE);
  try {
    // What an attempt before this one has kept stays: it was right.
    for (const [path, hash] of __SHELL__) {
      const url = new URL(path, SCOPE).href;
      if (!(await cache.match(url))) await cache.put(url, await rightFile(url, hash));
    }
  } catch (error) {
    if (error instanceof DOMException && error.name === "QuotaExceededError") await caches.delete(CACHE);
    throw error;
  }
  if (!self.registration.active) await self.skipWaiting();
}

/** A file of this version: from the version before, the browser's cache or the server. */
async function rightFile(url: string, hash: string): Promise<Response> {
  // Only the large one, whose headers do not matter: 2.7 of the 2.8 MB that the page has.
  const kept = url.endsWith(".wasm") ? await caches.match(url) : undefined;
  if (kept && (await sha256(new Uint8Array(await kept.clone().arrayBuffer()))) === hash) return kept;
  const isNamedByHash = url.startsWith(new URL("assets/", SCOPE).href);
  for (const cache of [isNamedByHash ? "default" : "no-cache", "reload"] as const) {
    const { bytes, headers } = await download(url, { cache });
    if ((await sha256(bytes)) === hash) return new Response(bytes, { headers });
  }
  throw new Refusal("refusal.hash");
}

self.addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      for (const name of await caches.keys()) {
        const isOlder = name.startsWith(PREFIX) && name !== CACHE;
        if (isOlder || (await isEarlier(name))) await caches.delete(name);
      }
      await self.clients.claim();
    })(),
  );
});

async function isEarlier(name: string): Promise<boolean> {
  if (!name.startsWith(EARLIER_PREFIX)) return false;
  return (await (await caches.open(name)).match(SCOPE.href)) !== undefined;
}

self.addEventListener("message", (event) => {
  if (event.data === "take over") void self.skipWaiting();
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  const isModel = url.href.startsWith(new URL("models/", SCOPE).href);
  if (event.request.method !== "GET" || url.origin !== SCOPE.origin || isModel) return;
  event.respondWith(
    (async () => {
      const cache = await caches.open(CACHE);
      const page = event.request.mode === "navigate" ? SCOPE.href : event.request;
      return (await cache.match(page, { ignoreSearch: true })) ?? fetch(event.request);
    })(),
  );
});
