import { describe, expect, it } from "vitest";
import { type Abstention, readBundle } from "../src/bundle.ts";
import { makeNovelty, rooted } from "../src/novelty.ts";
import { halfToNumber, unpack } from "../src/packed.ts";
import { argmax, softmax } from "../src/probabilities.ts";
import { Refusal } from "../src/refusal.ts";
import { golden } from "./files.ts";

describe("softmax", () => {
  it("adds up to one and keeps the order", () => {
    const probabilities = softmax([1, 3, 2], 1.7);
    expect(probabilities.reduce((a, b) => a + b)).toBeCloseTo(1, 6);
    expect(argmax(probabilities)).toBe(1);
  });

  it("is flatter at a higher temperature, and survives large logits", () => {
    expect(softmax([0, 1000], 1)[1]).toBe(1);
    expect(softmax([0, 2], 4)[1]!).toBeCloseTo(1 / (1 + Math.exp(-0.5)), 6);
  });
});

it.each([
  [0x0000, 0], [0x3c00, 1], [0xc000, -2], [0x7bff, 65504], [0x0001, 2 ** -24], [0x0400, 2 ** -14],
  [0x3555, 0.333251953125], [0x7c00, Infinity], [0xfc00, -Infinity],
])("half %i is %f", (bits, expected) => {
  expect(halfToNumber(bits)).toBe(expected);
});

const packed = (dtype: "float32" | "float16" | "int8", bytes: readonly number[], shape: number[], scale = 1) => ({
  dtype, shape, scale, data: Buffer.from(bytes).toString("base64"),
});

describe("packed arrays", () => {
  it("give scaled numbers", () => {
    expect([...unpack(packed("int8", [0xff, 0x7f], [2], 0.5))]).toEqual([-0.5, 63.5]);
    expect([...unpack(packed("float32", [0, 0, 0x80, 0x3f], [1]))]).toEqual([1]);
    expect([...unpack(packed("float16", [0, 0xc0], [1]))]).toEqual([-2]);
  });

  it("refuse another length", () => {
    expect(() => unpack(packed("int8", [1, 2, 3], [2]))).toThrow(RangeError);
  });
});

describe("novelty", () => {
  const abstention = {
    score: "rooted_residuals",
    threshold: 0.5,
    acceptance: 0.95,
    arrays: {
      mean: packed("int8", [0, 0], [2]),
      basis_0: packed("int8", [1, 0], [1, 2]),
      centre: packed("int8", [0], [1]),
      spread: packed("int8", [1], [1]),
    },
  };
  const { mean, basis_0, centre, spread } = abstention.arrays;

  it("is the length of what the basis does not hold", () => {
    const judge = makeNovelty(abstention, 2);
    expect(judge([4, 0])).toEqual({ foreignness: 0, isForeign: false });
    expect(judge([0, 4]).foreignness).toBeCloseTo(1, 12);
    expect(judge([0, 4]).isForeign).toBe(true);
    expect(judge([9, 16]).foreignness).toBeCloseTo(0.8, 12);
  });

  it("is the largest of the levels' standard scores", () => {
    const arrays = {
      mean: packed("int8", [0, 0, 0, 0], [4]),
      basis_0,
      basis_1: packed("int8", [0, 1], [1, 2]),
      centre: packed("int8", [1, 0], [2]),
      spread: packed("int8", [2, 4], [2]),
    };
    const judge = makeNovelty({ ...abstention, arrays }, 4);
    // The second level has its own length: 3 and 4 of 5, rooted.
    expect(judge([0, 4, 9, 16]).foreignness).toBeCloseTo((0.6 - 0) / 4, 12);
    expect(judge([0, 4, 0, 1]).foreignness).toBeCloseTo((1 - 1) / 2, 12);
    expect(judge([4, 0, 0, 1]).foreignness).toBeCloseTo(0, 12);
    expect(judge([4, 0, 0, Number.NaN]).isForeign).toBe(true);
  });

  it("holds NaN for foreign and zeros for zeros", () => {
    expect(makeNovelty(abstention, 2)([Number.NaN, 1]).isForeign).toBe(true);
    expect([...rooted([0, 0])]).toEqual([0, 0]);
  });

  it.each([
    [{ ...abstention, score: "energy" }, 2],
    [{ ...abstention, score: "toString" }, 2],
    [abstention, 3],
    [{ ...abstention, arrays: { mean } }, 2],
    [{ ...abstention, arrays: { mean, centre, spread } }, 2],
    [{ ...abstention, arrays: { ...abstention.arrays, more: mean } }, 2],
    [{ ...abstention, arrays: { ...abstention.arrays, basis_1: basis_0 } }, 2],
    [{ ...abstention, arrays: { ...abstention.arrays, centre: mean } }, 2],
    [{ ...abstention, arrays: { ...abstention.arrays, mean: packed("int8", [0, 0], [1, 2]) } }, 2],
    [{ ...abstention, arrays: { ...abstention.arrays, basis_0: packed("int8", [1, 0], [1, 2, 1]) } }, 2],
    [{ ...abstention, arrays: { ...abstention.arrays, centre: packed("int8", [0], [1, 1]) } }, 2],
    [{ ...abstention, arrays: { ...abstention.arrays, spread: packed("int8", [0], [1]) } }, 2],
    [{ ...abstention, arrays: { ...abstention.arrays, basis_0: packed("float16", [0, 0x7c, 0, 0], [1, 2]) } }, 2],
  ])("refuses what it does not know (%#)", (wrong, n) => {
    expect(() => makeNovelty(wrong, n)).toThrow(Refusal);
  });

  it("gives Python's golden scores", () => {
    const { bundles } = JSON.parse(golden("novelty.json").toString("utf8")) as Golden;
    for (const { abstention, cases } of bundles) {
      const judge = makeNovelty(abstention, cases[0]!.embedding.length);
      for (const { embedding, foreignness, is_foreign } of cases) {
        expect(judge(embedding).foreignness).toBeCloseTo(foreignness, 9);
        expect(judge(embedding).isForeign).toBe(is_foreign);
      }
    }
    expect(bundles.flatMap(({ cases }) => cases).length).toBeGreaterThan(9);
  });
});

/** tests/golden/novelty.json; tests/mobile/test_novelty.py writes it. */
interface Golden {
  readonly bundles: {
    readonly abstention: Abstention;
    readonly cases: { readonly embedding: number[]; readonly foreignness: number; readonly is_foreign: boolean }[];
  }[];
}

describe("bundle.json", () => {
  const document = {
    schema_version: 2,
    task: "leaf", domain: "agriculture", title: "Leaves", labels: ["a", "b"], label_meanings: { a: "A." },
    preprocess: { resize_px: 256, crop_px: 224, interpolation: "bilinear" },
    input: { name: "image", shape: [-1, 224, 224, 3] },
    logits: { name: "logits", shape: [-1, 2] },
    embedding: { name: "embedding", shape: [-1, 1280] },
    files: { int8: { name: "model_int8.onnx", sha256: "0".repeat(64), size_bytes: 5 } },
    served: { precision: "int8", reason: "" },
    temperature: 1.2,
    operating_points: { a: { threshold: 0.3, min_specificity: 0.9, sensitivity: 0.8, specificity: 0.9, n_positive: 5, n_negative: 9 } },
    abstention: null,
    provenance: { data_source: "sample" },
    metrics: { int8: { n: 7, accuracy: 0.9 } },
    audit: { verdict: "clean" },
    intended_use: "Tests.",
    not_for: [],
  };

  it("is read", () => {
    const bundle = readBundle(document);
    expect(bundle.preprocess).toEqual({ resizePx: 256, cropPx: 224, grey: false, sidePx: null, borderMask: 0, range: null, maxAspect: 20 });
    expect(bundle.operatingPoints["a"]?.threshold).toBe(0.3);
    expect(bundle.accuracy).toEqual({ value: 0.9, n: 7 });
    expect(bundle.nFeatures).toBe(1280);
  });

  it("says how files are read, and what people call a label", () => {
    const preprocess = { resize_px: 256, crop_px: 224, range: [-1024, 3071], max_aspect: 40 };
    const bundle = readBundle({ ...document, preprocess, label_names: { a: "健康" } });
    expect(bundle.preprocess).toMatchObject({ range: [-1024, 3071], maxAspect: 40 });
    expect(bundle.labelNames).toEqual({ a: "健康" });
    expect(readBundle({ ...document, preprocess: { ...preprocess, range: "full" } }).preprocess.range).toBe("full");
    for (const range of [[5, 5], [1], "half", 3]) {
      expect(() => readBundle({ ...document, preprocess: { ...preprocess, range } })).toThrow(Refusal);
    }
  });

  it("brings its views along", () => {
    const preprocess = { ...document.preprocess, grey: true, side_px: 64, border_mask: 0.1 };
    expect(readBundle({ ...document, preprocess }).preprocess).toMatchObject({ grey: true, sidePx: 64, borderMask: 0.1 });
  });

  it.each([
    [{ ...document, schema_version: 1 }, "refusal.schema"],
    [{ ...document, schema_version: 3 }, "refusal.schema"],
    [null, "refusal.schema"],
    [[], "refusal.schema"],
    [{ ...document, labels: "a" }, "refusal.bundle"],
    [{ ...document, files: {} }, "refusal.bundle"],
    [{ ...document, temperature: "1" }, "refusal.bundle"],
    [{ ...document, preprocess: { ...document.preprocess, sharpen: true } }, "refusal.bundle"],
    [{ ...document, preprocess: { ...document.preprocess, interpolation: "bicubic" } }, "refusal.bundle"],
    [{ ...document, preprocess: { ...document.preprocess, crop_px: 300 } }, "refusal.bundle"],
    [{ ...document, operating_points: { c: document.operating_points.a } }, "refusal.bundle"],
  ])("is refused where it is not known (%#)", (wrong, key) => {
    expect(() => readBundle(wrong)).toThrow(expect.objectContaining({ key }));
  });
});
