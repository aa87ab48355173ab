// The page itself, kept for when there is no network. Models are kept by src/store.ts.

/// <reference lib="webworker" />
export {};
declare const self: ServiceWorkerGlobalScope;

/** Written in by vite.config.ts: what the page is made of, and the hash of it all. */
declare const __SHELL__: readonly string[];
declare const __SHELL_HASH__: string;

const PREFIX = "fieldlens-page-";
const CACHE = PREFIX + __SHELL_HASH__;

self.addEventListener("install", (event) => {
  event.waitUntil(keepShell());
});

async function keepShell(): Promise<void> {
  const cache = await caches.open(CACHE);
  await cache.addAll(__SHELL__.map((url) => new Request(url)));
  if (!self.registration.active) await self.skipWaiting();
}

self.addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      for (const name of await caches.keys()) {
        if (name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
      }
      await self.clients.claim();
    })(),
  );
});

self.addEventListener("message", (event) => {
  if (event.data === "take over") void self.skipWaiting();
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  const scope = new URL(self.registration.scope);
  const isModel = url.href.startsWith(new URL("models/", scope).href);
  if (event.request.method !== "GET" || url.origin !== scope.origin || isModel) return;
  event.respondWith(
    (async () => {
      const cache = await caches.open(CACHE);
      const page = event.request.mode === "navigate" ? scope.href : event.request;
      return (await cache.match(page, { ignoreSearch: true })) ?? fetch(event.request);
    })(),
  );
});
