// bundle.json, as a phone needs it: pipelines/serving/bundle.py. An unknown schema, or a key of the
// preprocessing that this page does not know, is refused and never guessed.

import type { Range } from "./deep_png.ts";
import { EMBEDDING, KINDS, type Said } from "./kinds.ts";
import type { Packed } from "./packed.ts";
import type { PreprocessSpec } from "./preprocess.ts";
import { Refusal } from "./refusal.ts";
import { type Interpolation, KERNELS } from "./resample.ts";

/** The schemas that this page reads; in 2 a bundle is a classification with one file a precision. */
export const SCHEMA_VERSIONS: readonly unknown[] = [2, 3];

export interface OperatingPoint {
  readonly threshold: number;
  readonly sensitivity: number;
  readonly specificity: number;
  readonly nPositive: number;
  readonly nNegative: number;
}

/** From which score on a box of a label counts. */
export interface BoxPoint {
  readonly threshold: number;
  readonly recall: number;
  readonly precision: number;
  readonly nBoxes: number;
}

export interface Abstention {
  readonly score: string;
  readonly threshold: number;
  readonly arrays: Readonly<Record<string, Packed>>;
}

export interface Bundle {
  readonly kind: Said["kind"];
  readonly task: string;
  readonly domain: string;
  readonly labels: readonly string[];
  readonly labelMeanings: Readonly<Record<string, string>>;
  /** What people call a label, where that is something else. */
  readonly labelNames: Readonly<Record<string, string>>;
  readonly preprocess: PreprocessSpec;
  readonly inputName: string;
  /** Length of the embedding; 0 where the model gives none. */
  readonly nFeatures: number;
  readonly precision: "int8" | "fp32";
  readonly file: { readonly name: string; readonly sha256: string; readonly sizeBytes: number };
  /** Of all model files of the bundle. */
  readonly hashes: readonly string[];
  readonly temperature: number;
  readonly operatingPoints: Readonly<Record<string, OperatingPoint>>;
  /** Of a detection, by label. */
  readonly boxPoints: Readonly<Record<string, BoxPoint>>;
  readonly abstention: Abstention | null;
  readonly dataSource: string;
  /** The kind's figure on the test pictures. */
  readonly figure: { readonly value: number; readonly n: number } | null;
  readonly auditVerdict: string | null;
  readonly intendedUse: string;
  readonly notFor: readonly string[];
}

const PREPROCESS_KEYS = new Set(["resize_px", "crop_px", "interpolation", "grey", "side_px", "border_mask", "whole", "range", "max_aspect"]);
/** Where the bundle says nothing: pipelines/data/pixel_range.py. */
const MAX_ASPECT = 20;

type Json = Record<string, unknown>;

/** The bundle in a parsed JSON document. Throws a Refusal. */
export function readBundle(document: unknown): Bundle {
  const version = isRecord(document) ? document["schema_version"] : undefined;
  if (!SCHEMA_VERSIONS.includes(version)) {
    throw new Refusal("refusal.schema", { expected: SCHEMA_VERSIONS.join(", "), got: JSON.stringify(version) ?? "nothing" });
  }
  try {
    return read(version === 2 ? ofSchema2(document as Json) : (document as Json));
  } catch (error) {
    if (error instanceof TypeError) throw new Refusal("refusal.bundle", { reason: error.message }, { cause: error });
    throw error;
  }
}

/** The same bundle as schema 3 writes it. */
function ofSchema2(json: Json): Json {
  const files = Object.entries(record(json, "files"));
  return {
    ...json,
    kind: "classification",
    outputs: [json["logits"], json["embedding"]],
    artefacts: files.map(([precision, file]) => (isRecord(file) ? { ...file, format: "onnx", precision } : file)),
  };
}

function read(json: Json): Bundle {
  const kind = text(json, "kind");
  const known = KINDS.get(kind);
  if (known === undefined) throw new TypeError(`kind: ${kind}`);
  const expected = known.outputs;
  const outputs = records(json, "outputs");
  if (outputs.map((output) => text(output, "name")).join() !== expected.join()) {
    throw new TypeError(`outputs: expected ${expected.join(", ")}`);
  }
  const precision = text(record(json, "served"), "precision");
  if (precision !== "int8" && precision !== "fp32") throw new TypeError(`served.precision: ${precision}`);
  const file = records(json, "artefacts").find((each) => each["format"] === "onnx" && each["precision"] === precision);
  if (file === undefined) throw new TypeError(`artefacts: no ONNX file of ${precision}`);
  const labels = texts(json, "labels");
  const embedding = outputs.find((output) => output["name"] === EMBEDDING);
  const metrics = isRecord(json["metrics"]) ? json["metrics"][precision] : null;
  const audit = json["audit"];
  return {
    kind: kind as Said["kind"], // the table's
    task: text(json, "task"),
    domain: text(json, "domain"),
    labels,
    labelMeanings: record(json, "label_meanings") as Record<string, string>,
    labelNames: json["label_names"] == null ? {} : (record(json, "label_names") as Record<string, string>),
    preprocess: readPreprocess(record(json, "preprocess")),
    inputName: text(record(json, "input"), "name"),
    nFeatures: embedding ? (numbers(embedding, "shape").at(-1) ?? 0) : 0,
    precision,
    file: { name: text(file, "name"), sha256: text(file, "sha256"), sizeBytes: number(file, "size_bytes") },
    hashes: records(json, "artefacts").map((each) => text(each, "sha256")),
    temperature: number(json, "temperature"),
    operatingPoints: readPoints(record(json, "operating_points"), known.points ?? labels),
    boxPoints: json["box_points"] == null ? {} : readBoxPoints(record(json, "box_points"), labels),
    abstention: json["abstention"] == null ? null : readAbstention(record(json, "abstention")),
    dataSource: text(record(json, "provenance"), "data_source"),
    figure: isRecord(metrics) ? { value: plain(metrics, known.figure.metric), n: nTested(json, metrics) } : null,
    auditVerdict: isRecord(audit) ? text(audit, "verdict") : null,
    intendedUse: text(json, "intended_use"),
    notFor: texts(json, "not_for"),
  };
}

function readPreprocess(json: Json): PreprocessSpec {
  const unknown = Object.keys(json).filter((key) => !PREPROCESS_KEYS.has(key));
  if (unknown.length > 0) throw new TypeError(`preprocess.${unknown[0]}: unknown`);
  const spec = {
    resizePx: number(json, "resize_px"),
    cropPx: number(json, "crop_px"),
    interpolation: readInterpolation(json["interpolation"]),
    grey: json["grey"] === true,
    sidePx: json["side_px"] == null ? null : number(json, "side_px"),
    borderMask: json["border_mask"] == null ? 0 : number(json, "border_mask"),
    whole: json["whole"] === true,
    range: readRange(json["range"]),
    maxAspect: json["max_aspect"] == null ? MAX_ASPECT : number(json, "max_aspect"),
  };
  if (!(spec.cropPx >= 1 && spec.cropPx <= spec.resizePx)) throw new TypeError("preprocess.crop_px: does not fit");
  if (spec.whole && (spec.cropPx !== spec.resizePx || spec.sidePx !== null || spec.borderMask !== 0)) {
    throw new TypeError("preprocess.whole: does not fit");
  }
  return spec;
}

function readInterpolation(name: unknown): Interpolation {
  if (name == null) return "bilinear";
  if (typeof name !== "string" || !Object.hasOwn(KERNELS, name)) throw new TypeError(`preprocess.interpolation: ${String(name)}`);
  return name as Interpolation;
}

function readRange(range: unknown): Range {
  if (range == null) return null;
  if (range === "full") return range;
  const [low, high] = numbers({ range }, "range");
  if (low === undefined || high === undefined || !(low < high)) throw new TypeError("preprocess.range: expected two numbers");
  return [low, high];
}

function readPoints(json: Json, labels: readonly string[]): Record<string, OperatingPoint> {
  const points: Record<string, OperatingPoint> = {};
  for (const label of Object.keys(json)) {
    if (!labels.includes(label)) throw new TypeError(`operating_points.${label}: no label`);
    const point = record(json, label);
    points[label] = {
      threshold: number(point, "threshold"),
      sensitivity: number(point, "sensitivity"),
      specificity: number(point, "specificity"),
      nPositive: number(point, "n_positive"),
      nNegative: number(point, "n_negative"),
    };
  }
  return points;
}

function readBoxPoints(json: Json, labels: readonly string[]): Record<string, BoxPoint> {
  const points: Record<string, BoxPoint> = {};
  for (const label of Object.keys(json)) {
    if (!labels.includes(label)) throw new TypeError(`box_points.${label}: no label`);
    const point = record(json, label);
    points[label] = {
      threshold: number(point, "threshold"),
      recall: number(point, "recall"),
      precision: number(point, "precision"),
      nBoxes: number(point, "n_boxes"),
    };
  }
  return points;
}

function readAbstention(json: Json): Abstention {
  const arrays: Record<string, Packed> = {};
  const packed = record(json, "arrays");
  for (const name of Object.keys(packed)) {
    const array = record(packed, name);
    const dtype = text(array, "dtype");
    if (dtype !== "float32" && dtype !== "float16" && dtype !== "int8") {
      throw new TypeError(`abstention.arrays.${name}.dtype: ${dtype}`);
    }
    const scale = array["scale"] === undefined ? 1 : number(array, "scale");
    arrays[name] = { shape: numbers(array, "shape"), dtype, scale, data: text(array, "data") };
  }
  return {
    score: text(json, "score"),
    threshold: number(json, "threshold"),
    arrays,
  };
}

function isRecord(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function record(json: Json, key: string): Json {
  const value = json[key];
  if (!isRecord(value)) throw new TypeError(`${key}: expected an object`);
  return value;
}

function records(json: Json, key: string): Json[] {
  const value = json[key];
  if (!Array.isArray(value) || !value.every(isRecord)) throw new TypeError(`${key}: expected objects`);
  return value;
}

function text(json: Json, key: string): string {
  const value = json[key];
  if (typeof value !== "string") throw new TypeError(`${key}: expected text`);
  return value;
}

function number(json: Json, key: string): number {
  const value = json[key];
  if (typeof value !== "number" || !Number.isFinite(value)) throw new TypeError(`${key}: expected a number`);
  return value;
}

/** Test pictures: as the metrics count them, else as the data were split. */
function nTested(json: Json, metrics: Json): number {
  return metrics["n"] == null ? number(record(record(json, "provenance"), "n_images"), "test") : plain(metrics, "n");
}

/** A figure that may stand alone or with its interval. */
function plain(json: Json, key: string): number {
  const value = json[key];
  return isRecord(value) ? number(value, "value") : number(json, key);
}

const texts = (json: Json, key: string): string[] => list(json, key, "string") as string[];
const numbers = (json: Json, key: string): number[] => list(json, key, "number") as number[];

function list(json: Json, key: string, type: "string" | "number"): unknown[] {
  const value = json[key];
  if (!Array.isArray(value) || value.some((item) => typeof item !== type)) {
    throw new TypeError(`${key}: expected a list of ${type}s`);
  }
  return value;
}
