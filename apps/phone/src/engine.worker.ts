// The model, in a thread of its own, so that the page never freezes. Holds one task at a time.

import * as ort from "onnxruntime-web/wasm";
import mjsUrl from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import wasmUrl from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import { type Bundle, readBundle } from "./bundle.ts";
import { decode, fromBitmap } from "./decode.ts";
import { makeNovelty } from "./novelty.ts";
import { preprocess } from "./preprocess.ts";
import { argmax, softmax } from "./probabilities.ts";
import type { Answer, Loaded, Reply, Request } from "./protocol.ts";
import { Refusal } from "./refusal.ts";
import { sha256 } from "./sha256.ts";
import { bundleUrl, fetchJson, fetchModel, forgetModel, keepModel, modelUrl } from "./store.ts";

interface Ready {
  readonly bundle: Bundle;
  readonly judge: ReturnType<typeof makeNovelty> | null;
  readonly session: ort.InferenceSession;
}

let ready: Ready | null = null;
const say = (reply: Reply): void => postMessage(reply);

async function load(id: number, base: string, task: string, nThreads: number): Promise<void> {
  const start = performance.now();
  ready = null;
  const bundleJson = await fetchJson(bundleUrl(base, task));
  const bundle = readBundle(bundleJson);
  const judge = bundle.abstention ? makeNovelty(bundle.abstention, bundle.nFeatures) : null;
  const bytes = await modelBytes(id, base, task, bundle);
  ort.env.wasm.numThreads = nThreads;
  ort.env.wasm.wasmPaths = { mjs: absolute(mjsUrl), wasm: absolute(wasmUrl) };
  ort.env.logLevel = "error";
  let session: ort.InferenceSession;
  try {
    session = await ort.InferenceSession.create(bytes, {
      executionProviders: ["wasm"],
      intraOpNumThreads: nThreads,
      graphOptimizationLevel: "all",
    });
  } catch (error) {
    throw new Refusal("refusal.runtime", { reason: String(error) }, { cause: error });
  }
  ready = { bundle, judge, session };
  const loaded: Loaded = {
    nThreads,
    modelBytes: bytes.length,
    runtimeVersion: ort.env.versions.web ?? ort.env.versions.common,
    loadMs: performance.now() - start,
  };
  say({ kind: "loaded", id, loaded, bundleJson });
}

const absolute = (url: string): string => new URL(url, import.meta.url).href;

/** The model's bytes, proven to be those that the bundle names. */
async function modelBytes(id: number, base: string, task: string, bundle: Bundle): Promise<Uint8Array<ArrayBuffer>> {
  const { name, sha256: expected, sizeBytes } = bundle.file;
  const url = modelUrl(base, task, name, expected);
  const bytes = await fetchModel(url, sizeBytes, (loadedBytes, totalBytes) =>
    say({ kind: "progress", id, loadedBytes, totalBytes }),
  );
  if ((await sha256(bytes)) !== expected) {
    await forgetModel(url);
    throw new Refusal("refusal.hash");
  }
  await keepModel(url, bytes);
  return bytes;
}

async function answer(id: number, source: Blob | ImageBitmap): Promise<void> {
  if (!ready) throw new Refusal("refusal.runtime", { reason: "no model" });
  const { bundle, judge, session } = ready;
  const start = performance.now();
  const picture = source instanceof Blob ? await decode(source) : fromBitmap(source);
  const decoded = performance.now();
  let pixels: Uint8Array;
  const { width: widthPx, height: heightPx } = picture.rows;
  try {
    pixels = preprocess(picture.rows, bundle.preprocess);
  } finally {
    picture.close();
  }
  const preprocessed = performance.now();
  const side = bundle.preprocess.cropPx;
  const outputs = await session.run({
    [bundle.inputName]: new ort.Tensor("uint8", pixels, [1, side, side, 3]),
  });
  const done = performance.now();
  const logits = outputs[bundle.logitsName]!.data as Float32Array;
  const embedding = outputs[bundle.embeddingName]!.data as Float32Array;
  const probabilities = softmax(logits, bundle.temperature);
  const verdict = judge ? judge(embedding) : null;
  const positives: Record<string, boolean> = {};
  for (const [label, point] of Object.entries(bundle.operatingPoints)) {
    positives[label] = probabilities[bundle.labels.indexOf(label)]! >= point.threshold;
  }
  const result: Answer = {
    label: bundle.labels[argmax(probabilities)]!,
    probabilities,
    foreignness: verdict?.foreignness ?? null,
    isForeign: verdict?.isForeign ?? false,
    positives,
    widthPx,
    heightPx,
    decodeMs: decoded - start,
    preprocessMs: preprocessed - decoded,
    modelMs: done - preprocessed,
  };
  say({ kind: "answered", id, answer: result });
}

// One after another: a load that overtakes an answer would mix two tasks.
let last: Promise<void> = Promise.resolve();
addEventListener("message", (event: MessageEvent<Request>) => {
  const request = event.data;
  last = last
    .then(() =>
      request.kind === "load"
        ? load(request.id, request.base, request.task, request.nThreads)
        : answer(request.id, request.source),
    )
    .catch((error: unknown) => {
      if (error instanceof Refusal) say({ kind: "refused", id: request.id, key: error.key, facts: error.facts });
      else say({ kind: "failed", id: request.id, message: String(error) });
    });
});
