import { describe, expect, it } from "vitest";
import { type Abstention, readBundle } from "../src/bundle.ts";
import { type Boxes, counted } from "../src/detection.ts";
import { type Embedding } from "../src/embedding.ts";
import { type Gallery, readGallery } from "../src/gallery.ts";
import { makeOutOfDistribution, rooted } from "../src/out_of_distribution.ts";
import { halfToNumber, unpack } from "../src/packed.ts";
import { argmax, type Classes, KINDS, softmax } from "../src/kinds.ts";
import { geometryOf, type PreprocessSpec } from "../src/preprocess.ts";
import { Refusal } from "../src/refusal.ts";
import { enlarged, indexed, type Mask, thresholdsOf } from "../src/segmentation.ts";
import { golden } from "./files.ts";

const UNMOVED = { scale: [1, 1], shift: [0, 0] } as const;

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

describe("out of distribution", () => {
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
    const judge = makeOutOfDistribution(abstention, 2);
    expect(judge([4, 0])).toEqual({ oodScore: 0, isOod: false });
    expect(judge([0, 4]).oodScore).toBeCloseTo(1, 12);
    expect(judge([0, 4]).isOod).toBe(true);
    expect(judge([9, 16]).oodScore).toBeCloseTo(0.8, 12);
  });

  it("is the largest of the levels' standard scores", () => {
    const arrays = {
      mean: packed("int8", [0, 0, 0, 0], [4]),
      basis_0,
      basis_1: packed("int8", [0, 1], [1, 2]),
      centre: packed("int8", [1, 0], [2]),
      spread: packed("int8", [2, 4], [2]),
    };
    const judge = makeOutOfDistribution({ ...abstention, arrays }, 4);
    // The second level has its own length: 3 and 4 of 5, rooted.
    expect(judge([0, 4, 9, 16]).oodScore).toBeCloseTo((0.6 - 0) / 4, 12);
    expect(judge([0, 4, 0, 1]).oodScore).toBeCloseTo((1 - 1) / 2, 12);
    expect(judge([4, 0, 0, 1]).oodScore).toBeCloseTo(0, 12);
    expect(judge([4, 0, 0, Number.NaN]).isOod).toBe(true);
  });

  it("holds NaN for out of distribution and zeros for zeros", () => {
    expect(makeOutOfDistribution(abstention, 2)([Number.NaN, 1]).isOod).toBe(true);
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
    expect(() => makeOutOfDistribution(wrong, n)).toThrow(Refusal);
  });

  it("gives Python's golden scores", () => {
    const { bundles } = JSON.parse(golden("out_of_distribution.json").toString("utf8")) as Golden;
    for (const { abstention, cases } of bundles) {
      const judge = makeOutOfDistribution(abstention, cases[0]!.embedding.length);
      for (const { embedding, ood_score, is_ood } of cases) {
        expect(judge(embedding).oodScore).toBeCloseTo(ood_score, 9);
        expect(judge(embedding).isOod).toBe(is_ood);
      }
    }
    expect(bundles.flatMap(({ cases }) => cases).length).toBeGreaterThan(9);
  });
});

describe("a classification", () => {
  it("gives Python's golden answers", () => {
    const { cases } = JSON.parse(golden("classification.json").toString("utf8")) as { readonly cases: readonly Case[] };
    const document = JSON.parse(golden("bundle_schema_3.json").toString("utf8"));
    const [logits, embedding] = document.outputs;
    for (const { labels, temperature, thresholds, logits: values, label, probabilities, positives } of cases) {
      const point = document.operating_points.red_tile;
      const points = Object.entries(thresholds).map(([name, threshold]) => [name, { ...point, threshold }]);
      const bundle = readBundle({
        ...document, labels, temperature, label_names: {}, operating_points: Object.fromEntries(points),
        outputs: [{ ...logits, shape: [-1, labels.length] }, embedding],
      });
      const said = KINDS.get(bundle.kind)!.decode({ logits: values }, bundle, UNMOVED) as Classes;
      expect(said.label).toBe(label);
      expect(said.positives).toEqual(positives);
      said.probabilities.forEach((value, index) => expect(value).toBeCloseTo(probabilities[index]!, 6));
    }
    expect(cases.length).toBeGreaterThan(3);
  });
});

describe("a detection", () => {
  const document = JSON.parse(golden("bundle_schema_3.json").toString("utf8"));
  const of = (labels: readonly string[], thresholds: Readonly<Record<string, number>>, side: number) =>
    readBundle({
      ...document, kind: "detection", labels, label_names: {}, operating_points: {}, metrics: null,
      box_points: Object.fromEntries(Object.entries(thresholds).map(([label, threshold]) => [label, { threshold, recall: 0.8, precision: 0.9, n_boxes: 10 }])),
      outputs: [{ name: "boxes", shape: [-1, 5, 6] }, document.outputs[1]],
      preprocess: { resize_px: side, crop_px: side, whole: true },
    });

  it("gives Python's golden boxes", () => {
    const { cases } = JSON.parse(golden("detection.json").toString("utf8")) as { readonly cases: readonly Found[] };
    for (const { labels, thresholds, side_px, size: [width, height], geometry, rows, boxes, corners, counts } of cases) {
      const bundle = of(labels, thresholds, side_px);
      const placed = geometryOf({ width, height }, { width, height }, bundle.preprocess);
      const matrix = [[placed.scale[0], 0, placed.shift[0]], [0, placed.scale[1], placed.shift[1]], [0, 0, 1]];
      matrix.flat().forEach((value, index) => expect(value).toBeCloseTo(geometry.flat()[index]!, 9));
      const said = KINDS.get(bundle.kind)!.decode({ boxes: Float32Array.from(rows.flat()) }, bundle, placed) as Boxes;
      const certain = counted(said, bundle, null);
      expect(said.boxes.map((box) => [box.label, certain.includes(box)])).toEqual(boxes);
      said.boxes.flatMap((box) => [box.x0, box.y0, box.x1, box.y1]).forEach((px, index) => expect(px).toBeCloseTo(corners.flat()[index]!, 2));
      for (const label of labels) expect(certain.filter((box) => box.label === label)).toHaveLength(counts[label]!);
      expect(counted(said, bundle, 0.01)).toHaveLength(said.boxes.length);
      expect(counted(said, bundle, 0.95)).toHaveLength(0);
    }
    expect(cases.length).toBeGreaterThan(2);
  });

  it("is refused where a threshold has no label", () => {
    expect(() => of(["a"], { b: 0.5 }, 64)).toThrow(Refusal);
  });
});

describe("a segmentation", () => {
  it("gives Python's golden masks", () => {
    const { cases } = JSON.parse(golden("segmentation.json").toString("utf8")) as { readonly cases: readonly Seen[] };
    const document = JSON.parse(golden("bundle_schema_3.json").toString("utf8"));
    for (const { labels, thresholds, side_px, mask, geometry, indexed: places, regions } of cases) {
      const point = document.operating_points.red_tile;
      const bundle = readBundle({
        ...document, kind: "segmentation", labels, label_names: {}, metrics: null,
        operating_points: Object.fromEntries(Object.entries(thresholds).map(([label, threshold]) => [label, { ...point, threshold }])),
        outputs: [{ name: "mask", shape: [-1, labels.length, side_px, side_px] }, document.outputs[1]],
        preprocess: { resize_px: side_px, crop_px: side_px },
      });
      const [[xScale, , left], [, yScale, top]] = geometry;
      const placed = { scale: [xScale, yScale], shift: [left, top] } as const;
      const said = KINDS.get(bundle.kind)!.decode({ mask: Float32Array.from(mask.flat(2)) }, bundle, placed) as Mask;
      expect([...indexed(said.probabilities, thresholdsOf(bundle))]).toEqual(places.flat());
      expect(said.regions.map(({ label }) => label)).toEqual(Object.keys(regions));
      for (const { label, areaShare, areaPx, boxPx } of said.regions) {
        const { area_share, area_px, box_px } = regions[label]!;
        expect(areaShare).toBeCloseTo(area_share, 9);
        expect(areaPx).toBeCloseTo(area_px, 6);
        expect(boxPx?.map((px) => Number(px.toFixed(6))) ?? null).toEqual(box_px);
      }
    }
    expect(cases.length).toBeGreaterThan(3);
  });

  it("is drawn larger without steps", () => {
    const maps = Float32Array.from([0, 1, 0, 1, 1, 1, 1, 1]);
    expect([...enlarged(maps, 2, 2, 4)].slice(0, 4)).toEqual([0, 0.25, 0.75, 1]);
    expect([...enlarged(maps, 2, 2, 4)].slice(16)).toEqual(Array(16).fill(1));
    expect([...enlarged(maps, 2, 2, 2)]).toEqual([...maps]);
  });
});

describe("an embedding", () => {
  const document = JSON.parse(golden("bundle_schema_3.json").toString("utf8"));
  const of = (threshold: number | null) =>
    readBundle({
      ...document, kind: "embedding", task: "flowers", labels: [], label_names: {}, label_meanings: {}, metrics: null, audit: null,
      operating_points: threshold === null ? {} : { same_identity: { ...document.operating_points.red_tile, threshold } },
      outputs: [{ name: "vector", shape: [-1, 3] }, document.outputs[1]],
    });
  const { gallery: known, cases } = JSON.parse(golden("embedding.json").toString("utf8")) as Compared;
  const file = golden("gallery.json").toString("utf8");
  const read = (text: string) => readGallery(new Uint8Array(Buffer.from(text)), of(null));
  const near = (vector: number[], threshold: number | null, gallery: Gallery | null) =>
    KINDS.get("embedding")!.decode({ vector: Float32Array.from(vector) }, of(threshold), UNMOVED, gallery) as Embedding;

  it("gives Python's golden neighbours", async () => {
    const exact = { pictures: known.paths.map((path, i) => ({ path, identity: known.identities[i]!, thumbnail: "" })), dimensions: 3, vectors: Float32Array.from(known.vectors.flat()) };
    // The file holds them in half precision.
    for (const [gallery, digits] of [[exact, 6], [await read(file), 3]] as const) {
      for (const { vector, threshold, rows, distances, is_same } of cases) {
        const { neighbours } = near(vector, threshold, gallery);
        expect(neighbours.map(({ path, identity }) => [path, identity])).toEqual(rows.map((row) => [known.paths[row], known.identities[row]]));
        expect(neighbours.map(({ isSame }) => isSame)).toEqual(is_same);
        neighbours.forEach(({ distance }, rank) => expect(distance).toBeCloseTo(distances[rank]!, digits));
      }
    }
    expect(cases.length).toBeGreaterThan(2);
  });

  it("says nothing of neighbours without a gallery, and gives the vector", () => {
    expect(near([1, 0, 0], 0.5, null)).toEqual({ kind: "embedding", vector: Float32Array.from([1, 0, 0]), neighbours: [] });
  });

  it.each([
    ["another model's", "refusal.galleryOther", (text: string) => text.replace(/"model_sha256": *"\w{4}/, '"model_sha256": "0000')],
    ["of changed vectors", "refusal.gallery", (text: string) => text.replace(/"vectors": *"..../, '"vectors": "AAAA')],
    ["of cut vectors", "refusal.gallery", (text: string) => text.replace('"dimensions": 3', '"dimensions": 4')],
    ["of an unknown schema", "refusal.gallery", (text: string) => text.replace('"schema_version": 1', '"schema_version": 2')],
    ["without an identity", "refusal.gallery", (text: string) => text.replace('"identity": "iris"', '"identity": ""')],
    ["cut in the middle", "refusal.gallery", (text: string) => text.slice(0, text.length / 2)],
    ["null", "refusal.gallery", () => "null"],
  ])("refuses a gallery that is %s", async (_, key, change) => {
    expect(change(file)).not.toBe(file);
    await expect(read(change(file))).rejects.toMatchObject({ key, facts: { task: "flowers" } });
  });

  it("is refused where a point is not that of one identity", () => {
    const points = { same: document.operating_points.red_tile };
    expect(() => readBundle({ ...document, kind: "embedding", labels: [], metrics: null, outputs: [{ name: "vector" }, document.outputs[1]], operating_points: points })).toThrow(Refusal);
  });
});

it("geometry of a photo that was decoded smaller is that of the photo", () => {
  const photo = { width: 4000, height: 3000 };
  const plain: PreprocessSpec = { resizePx: 256, cropPx: 224, interpolation: "bilinear", grey: false, sidePx: null, borderMask: 0, whole: false, range: null, maxAspect: 20 };
  for (const spec of [plain, { ...plain, sidePx: 100 }, { ...plain, resizePx: 224, whole: true }]) {
    const small = geometryOf(photo, { width: 1000, height: 750 }, spec);
    const large = geometryOf(photo, photo, spec);
    for (const axis of [0, 1] as const) {
      expect(small.scale[axis]).toBeCloseTo(large.scale[axis], 9);
      expect(small.shift[axis]).toBeCloseTo(large.shift[axis], 6);
    }
  }
  // 341 x 256, of which the middle: pipelines.data.preprocess.Preprocess(256, 224).geometry((4000, 3000)).
  expect(geometryOf(photo, photo, plain)).toEqual({ scale: [341 / 4000, 256 / 3000], shift: [-58, -16] });
  // Of a long picture the middle: (20000, 1000).
  const long = { width: 20000, height: 1000 };
  expect(geometryOf(long, long, plain)).toEqual({ scale: [0.256, 0.256], shift: [-8000 * 0.256 - 400, -16] });
});

/** One answer of tests/golden/segmentation.json; tests/serving/test_segmentation.py holds Python to it. */
interface Seen {
  readonly labels: string[];
  readonly thresholds: Readonly<Record<string, number>>;
  readonly side_px: number;
  readonly mask: number[][][];
  readonly geometry: [[number, number, number], [number, number, number]];
  readonly indexed: number[][];
  readonly regions: Readonly<Record<string, { area_share: number; area_px: number; box_px: number[] | null }>>;
}

/** tests/golden/embedding.json; tests/serving/test_embedding.py holds Python to it. */
interface Compared {
  readonly gallery: { readonly identities: string[]; readonly paths: string[]; readonly vectors: number[][] };
  readonly cases: {
    readonly vector: number[];
    readonly threshold: number | null;
    readonly rows: number[];
    readonly distances: number[];
    readonly is_same: (boolean | null)[];
  }[];
}

/** One answer of tests/golden/detection.json; tests/serving/test_detection.py holds Python to it. */
interface Found {
  readonly labels: string[];
  readonly thresholds: Readonly<Record<string, number>>;
  readonly side_px: number;
  readonly size: [number, number];
  readonly geometry: number[][];
  readonly rows: number[][];
  readonly boxes: [string, boolean][];
  readonly corners: number[][];
  readonly counts: Readonly<Record<string, number>>;
}

/** One answer of tests/golden/classification.json; tests/serving/test_kinds.py holds Python to it. */
interface Case {
  readonly labels: string[];
  readonly temperature: number;
  readonly thresholds: Readonly<Record<string, number>>;
  readonly logits: number[];
  readonly label: string;
  readonly probabilities: number[];
  readonly positives: Readonly<Record<string, boolean>>;
}

/** tests/golden/out_of_distribution.json; tests/serving/test_out_of_distribution.py writes it. */
interface Golden {
  readonly bundles: {
    readonly abstention: Abstention;
    readonly cases: { readonly embedding: number[]; readonly ood_score: number; readonly is_ood: boolean }[];
  }[];
}

describe("bundle.json", () => {
  const document = {
    schema_version: 3,
    kind: "classification",
    task: "leaf", domain: "agriculture", title: "Leaves", labels: ["a", "b"], label_meanings: { a: "A." },
    preprocess: { resize_px: 256, crop_px: 224, interpolation: "bilinear" },
    input: { name: "image", shape: [-1, 224, 224, 3] },
    outputs: [{ name: "logits", shape: [-1, 2] }, { name: "embedding", shape: [-1, 1280] }],
    artefacts: [
      { name: "model_int8.pte", format: "pte", precision: "int8", sha256: "1".repeat(64), size_bytes: 6 },
      { name: "model_int8.onnx", format: "onnx", precision: "int8", sha256: "0".repeat(64), size_bytes: 5 },
    ],
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
    expect(bundle.preprocess).toEqual({
      resizePx: 256, cropPx: 224, interpolation: "bilinear", grey: false, sidePx: null, borderMask: 0, whole: false, range: null, maxAspect: 20,
    });
    expect(bundle.operatingPoints["a"]?.threshold).toBe(0.3);
    expect(bundle.figure).toEqual({ value: 0.9, n: 7 });
    expect(bundle.nFeatures).toBe(1280);
    expect(bundle.file.name).toBe("model_int8.onnx");
  });

  it("of schema 2 says the same as of schema 3", () => {
    const [two, three] = [2, 3].map((version) => JSON.parse(golden(`bundle_schema_${version}.json`).toString("utf8")));
    expect([two.schema_version, three.schema_version]).toEqual([2, 3]);
    expect(readBundle(two)).toEqual(readBundle(three));
    expect(readBundle(two).file.sha256).toBe(two.files.int8.sha256);
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

  it("brings its views and its interpolation along", () => {
    const preprocess = { ...document.preprocess, interpolation: "bicubic", grey: true, side_px: 64, border_mask: 0.1 };
    expect(readBundle({ ...document, preprocess }).preprocess).toMatchObject({
      interpolation: "bicubic", grey: true, sidePx: 64, borderMask: 0.1,
    });
    const silent = { resize_px: 256, crop_px: 224 };
    expect(readBundle({ ...document, preprocess: silent }).preprocess.interpolation).toBe("bilinear");
  });

  it.each([
    [{ ...document, schema_version: 1 }, "refusal.schema"],
    [{ ...document, schema_version: 4 }, "refusal.schema"],
    [{ ...document, schema_version: "3" }, "refusal.schema"],
    [{ ...document, schema_version: 2 }, "refusal.bundle"],
    [{ ...document, kind: "augury" }, "refusal.bundle"],
    [{ ...document, kind: undefined }, "refusal.bundle"],
    [{ ...document, outputs: [] }, "refusal.bundle"],
    [{ ...document, outputs: [...document.outputs].reverse() }, "refusal.bundle"],
    [{ ...document, outputs: ["logits", "embedding"] }, "refusal.bundle"],
    [null, "refusal.schema"],
    [[], "refusal.schema"],
    [{ ...document, labels: "a" }, "refusal.bundle"],
    [{ ...document, artefacts: [] }, "refusal.bundle"],
    [{ ...document, artefacts: [document.artefacts[0]] }, "refusal.bundle"],
    [{ ...document, temperature: "1" }, "refusal.bundle"],
    [{ ...document, preprocess: { ...document.preprocess, sharpen: true } }, "refusal.bundle"],
    [{ ...document, preprocess: { ...document.preprocess, interpolation: "lanczos" } }, "refusal.bundle"],
    [{ ...document, preprocess: { ...document.preprocess, interpolation: "toString" } }, "refusal.bundle"],
    [{ ...document, preprocess: { ...document.preprocess, crop_px: 300 } }, "refusal.bundle"],
    [{ ...document, preprocess: { ...document.preprocess, whole: true } }, "refusal.bundle"],
    [{ ...document, operating_points: { c: document.operating_points.a } }, "refusal.bundle"],
  ])("is refused where it is not known (%#)", (wrong, key) => {
    expect(() => readBundle(wrong)).toThrow(expect.objectContaining({ key }));
  });
});
