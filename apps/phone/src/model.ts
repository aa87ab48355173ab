// A model that is ready to run, and what it says of a picture's pixels. Apart from the worker, so that
// Node can ask a model too.

import * as ort from "onnxruntime-web/wasm";
import type { Bundle } from "./bundle.ts";
import type { Gallery } from "./gallery.ts";
import { EMBEDDING, KINDS, type Outputs, type Said } from "./kinds.ts";
import { makeOutOfDistribution } from "./out_of_distribution.ts";
import type { Geometry } from "./preprocess.ts";
import { Refusal } from "./refusal.ts";

export interface Model {
  readonly bundle: Bundle;
  /** What its answers are compared with. */
  readonly gallery: Gallery | null;
  readonly judge: ReturnType<typeof makeOutOfDistribution> | null;
  readonly session: ort.InferenceSession;
}

/** What is said of a picture, and whether to believe it. */
export interface Judged {
  readonly said: Said;
  readonly oodScore: number | null;
  readonly isOod: boolean;
}

/** Proof that this browser can run a model. Throws a Refusal. */
export async function makeModel(bundle: Bundle, bytes: Uint8Array, nThreads: number, gallery: Gallery | null = null): Promise<Model> {
  const judge = bundle.abstention ? makeOutOfDistribution(bundle.abstention, bundle.nFeatures) : null;
  ort.env.wasm.numThreads = nThreads;
  ort.env.logLevel = "error";
  try {
    const session = await ort.InferenceSession.create(bytes, {
      executionProviders: ["wasm"],
      intraOpNumThreads: nThreads,
      graphOptimizationLevel: "all",
    });
    return { bundle, gallery, judge, session };
  } catch (error) {
    throw new Refusal("refusal.runtime", { reason: String(error) }, { cause: error });
  }
}

/** The answer for the pixels that `preprocess` gives; places are led back by the geometry of the picture. */
export async function ask({ bundle, gallery, judge, session }: Model, pixels: Uint8Array, geometry: Geometry): Promise<Judged> {
  const side = bundle.preprocess.cropPx;
  const ran = await session.run({ [bundle.inputName]: new ort.Tensor("uint8", pixels, [1, side, side, 3]) });
  const outputs: Outputs = Object.fromEntries(
    Object.entries(ran).map(([name, tensor]) => [name, tensor.data as Float32Array]),
  );
  const verdict = judge ? judge(outputs[EMBEDDING]!) : null;
  return {
    said: KINDS.get(bundle.kind)!.decode(outputs, bundle, geometry, gallery),
    oodScore: verdict?.oodScore ?? null,
    isOod: verdict?.isOod ?? false,
  };
}
