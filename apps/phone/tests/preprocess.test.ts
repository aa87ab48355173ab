import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { luma, type PreprocessSpec, preprocess, roundHalfToEven, rowsOf, sizeWithSide } from "../src/preprocess.ts";
import { KERNELS, weightsAlong } from "../src/resample.ts";
import { golden, readNpy, readPng } from "./files.ts";

const PLAIN: PreprocessSpec = {
  resizePx: 48, cropPx: 32, interpolation: "bilinear", grey: false, sidePx: null, borderMask: 0, whole: false, range: null, maxAspect: 20,
};

describe("golden pixels", () => {
  const rows = rowsOf(readPng(golden("preprocess_input.png")));

  it.each<[string, Partial<PreprocessSpec>]>([
    ["", {}],
    ["_bicubic", { interpolation: "bicubic" }],
    ["_view", { grey: true, sidePx: 20, borderMask: 0.1 }],
  ])("are Python's to the last bit (preprocess_48_32%s)", (name, changes) => {
    expect(preprocess(rows, { ...PLAIN, ...changes })).toEqual(readNpy(golden(`preprocess_48_32${name}.npy`)));
  });

  it("differ from those of another size", () => {
    expect(preprocess(rows, { ...PLAIN, resizePx: 49 })).not.toEqual(readNpy(golden("preprocess_48_32.npy")));
  });
});

// tests/apps/test_phone_units.py writes random pictures and what Python makes of them.
const CASES = process.env["FIELDLENS_PREPROCESS_CASES"] ?? "";
describe.skipIf(!existsSync(CASES))("pictures of every size", () => {
  const names = existsSync(CASES) ? readdirSync(CASES).filter((name) => name.endsWith(".json")) : [];
  it.each(names)("%s are Python's to the last bit", (name) => {
    const { width, height, spec, rgb, expected } = JSON.parse(readFileSync(join(CASES, name), "utf8"));
    const picture = { width, height, rgb: new Uint8Array(Buffer.from(rgb, "base64")) };
    expect(Buffer.from(preprocess(rowsOf(picture), spec)).toString("base64")).toBe(expected);
  });
});

it.each([
  [0.5, 0], [1.5, 2], [2.5, 2], [3.5, 4], [2.49, 2], [2.51, 3], [7, 7],
])("%f rounds to %i as in Python", (value, expected) => {
  expect(roundHalfToEven(value)).toBe(expected);
});

it("the shorter side is exact and the longer one never shorter", () => {
  expect(sizeWithSide(4000, 3000, 256)).toEqual([341, 256]);
  expect(sizeWithSide(3000, 4000, 256)).toEqual([256, 341]);
  expect(sizeWithSide(1, 1000, 16)).toEqual([16, 16000]);
});

it.each(Object.entries(KERNELS))("%s weights of a pixel add up to one", (_name, kernel) => {
  for (const [inPx, outPx] of [[4000, 256], [100, 256], [7, 7], [1, 5], [5, 1]] as const) {
    const { values, stride } = weightsAlong(kernel, inPx, outPx, 0, outPx);
    for (let i = 0; i < outPx; i++) {
      const sum = values.subarray(i * stride, (i + 1) * stride).reduce((a, b) => a + b, 0);
      expect(Math.abs(sum - 2 ** 22)).toBeLessThanOrEqual(stride);
    }
  }
});

it("luma is Pillow's", () => {
  expect([luma(255, 0, 0), luma(0, 255, 0), luma(0, 0, 255), luma(255, 255, 255)]).toEqual([76, 150, 29, 255]);
});
