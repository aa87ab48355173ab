// The model, in a thread of its own, so that the page never freezes. Holds one task at a time.

import * as ort from "onnxruntime-web/wasm";
import mjsUrl from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import wasmUrl from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import { decode, fromBitmap } from "./decode.ts";
import type { Progress } from "./download.ts";
import { readGallery } from "./gallery.ts";
import { ask, makeModel, type Model } from "./model.ts";
import { geometryOf, preprocess } from "./preprocess.ts";
import type { Answer, Loaded, Reply, Request } from "./protocol.ts";
import { Refusal } from "./refusal.ts";
import { fetchPair, type Keeping, keepPair, keptPair, type Pair } from "./store.ts";

interface Ready extends Model {
  readonly task: string;
  readonly pair: Pair;
  readonly keeping: Keeping;
}

/** The model that answers. */
let ready: Ready | null = null;
/** A newer one of the same task, which waits until the page asks for it. */
let next: Ready | null = null;
/** Ends the download that the page no longer waits for. */
let downloading = new AbortController();
const say = (reply: Reply): void => postMessage(reply);

async function load(request: Wanted, signal: AbortSignal): Promise<void> {
  const { id, base, task, nThreads } = request;
  let isFresh = false;
  if (next?.task === task) {
    await take(next);
    next = null;
  } else if (ready?.task !== task) {
    await take(null);
    await wait(null);
    let pair = await keptPair(base, task);
    isFresh = pair === null;
    pair ??= await fetchPair(base, task, null, progressOf(id), signal);
    const usable = await prepare(task, pair, nThreads);
    await take({ ...usable, keeping: isFresh ? await keepPair(base, task, pair) : "kept" });
  }
  const { pair, keeping, gallery } = ready!;
  const loaded: Loaded = {
    nThreads,
    modelBytes: pair.bytes.length,
    runtimeVersion: ort.env.versions.web ?? ort.env.versions.common,
    gallery: gallery && {
      nPictures: gallery.pictures.length,
      nIdentities: new Set(gallery.pictures.map(({ identity }) => identity)).size,
    },
    keeping,
    isFresh,
  };
  say({ kind: "loaded", id, loaded, bundleJson: JSON.parse(pair.text) });
}

/** Downloads beside the answers; only a newer model that runs here takes the place of the one that is kept. */
async function update(request: Wanted, signal: AbortSignal): Promise<void> {
  const { id, base, task, nThreads } = request;
  const newest = (): Ready | null => [next, ready].find((candidate) => candidate?.task === task) ?? null;
  const pair = await fetchPair(base, task, newest()?.pair ?? null, progressOf(id), signal);
  const isNew = pair !== newest()?.pair;
  const usable = isNew ? await inTurn(() => prepare(task, pair, nThreads)) : newest()!;
  const keeping = usable.keeping === "kept" ? "kept" : await keepPair(base, task, pair);
  await inTurn(async () => {
    if (isNew && ready?.task === task) await wait({ ...usable, keeping });
    else if (isNew) await usable.session.release(); // the page shows another task by now
    else if (usable === next) next = { ...next, keeping };
    else if (usable === ready) ready = { ...ready, keeping };
  });
  const isGalleryAlone = next?.pair.text === ready?.pair.text;
  say({ kind: "updated", id, updated: { isNew: next?.task === task, isGalleryAlone, keeping } });
}

/** Throws a Refusal. */
async function prepare(task: string, pair: Pair, nThreads: number): Promise<Ready> {
  ort.env.wasm.wasmPaths = { mjs: absolute(mjsUrl), wasm: absolute(wasmUrl) };
  const gallery = pair.gallery && (await readGallery(pair.gallery.bytes, pair.bundle));
  return { ...(await makeModel(pair.bundle, pair.bytes, nThreads, gallery)), task, pair, keeping: "off" };
}

/** From now on this one answers; the one before gives its memory back. */
async function take(model: Ready | null): Promise<void> {
  const before = ready;
  ready = model;
  await before?.session.release();
}

/** From now on this one waits. */
async function wait(model: Ready | null): Promise<void> {
  const before = next;
  next = model;
  await before?.session.release();
}

const absolute = (url: string): string => new URL(url, import.meta.url).href;

const progressOf =
  (id: number): Progress =>
  (loadedBytes, totalBytes) =>
    say({ kind: "progress", id, loadedBytes, totalBytes });

async function answer(id: number, source: Blob | ImageBitmap): Promise<void> {
  if (!ready) throw new Refusal("refusal.runtime", { reason: "no model" });
  const model = ready;
  const { bundle } = model;
  const start = performance.now();
  const picture = source instanceof Blob ? await decode(source, bundle.preprocess) : fromBitmap(source);
  const decoded = performance.now();
  let pixels: Uint8Array;
  let preview: ImageBitmap | null;
  try {
    pixels = preprocess(picture.rows, bundle.preprocess);
    preview = source instanceof Blob ? await picture.preview() : null;
  } finally {
    picture.close();
  }
  const preprocessed = performance.now();
  const geometry = geometryOf(picture.stored, picture.rows, bundle.preprocess);
  const said = await ask(model, pixels, geometry);
  const done = performance.now();
  const result: Answer = {
    ...said,
    size: [picture.stored.width, picture.stored.height],
    geometry,
    outside: picture.outside,
    decodeMs: decoded - start,
    preprocessMs: preprocessed - decoded,
    modelMs: done - preprocessed,
  };
  postMessage({ kind: "answered", id, answer: result, preview } satisfies Reply, preview ? [preview] : []);
}

type Wanted = Extract<Request, { kind: "load" | "update" }>;

// One after another: a load that overtakes an answer would mix two tasks.
let last: Promise<unknown> = Promise.resolve();
function inTurn<T>(work: () => Promise<T>): Promise<T> {
  const done = last.then(work);
  last = done.catch(() => undefined);
  return done;
}

addEventListener("message", (event: MessageEvent<Request>) => {
  const request = event.data;
  void received(request).catch((error: unknown) => {
    if (error instanceof Refusal) say({ kind: "refused", id: request.id, key: error.key, facts: error.facts });
    else say({ kind: "failed", id: request.id, message: String(error) });
  });
});

async function received(request: Request): Promise<void> {
  if (request.kind === "answer") return inTurn(() => answer(request.id, request.source));
  downloading.abort();
  downloading = new AbortController();
  const { signal } = downloading;
  return request.kind === "update" ? update(request, signal) : inTurn(() => load(request, signal));
}
