import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { chooseLanguage, LANGUAGES, Texts, wordsOf } from "../src/texts.ts";
import { labelWords, readIndex, words } from "../src/tasks.ts";

const folder = new URL("../src/locales/", import.meta.url);
const trees = Object.fromEntries(
  LANGUAGES.map((language) => [language, JSON.parse(readFileSync(new URL(`${language}.json`, folder), "utf8"))]),
) as Record<string, Record<string, string>>;
const gaps = (text: string): string[] => (text.match(/\{\w+\}/g) ?? []).sort();

describe("languages", () => {
  it("are those of the folder", () => {
    expect(readdirSync(folder).sort()).toEqual(LANGUAGES.map((language) => `${language}.json`).sort());
  });

  it.each(LANGUAGES)("%s has every key, filled, with the same gaps", (language) => {
    expect(Object.keys(trees[language]!).sort()).toEqual(Object.keys(trees["en"]!).sort());
    for (const [key, text] of Object.entries(trees[language]!)) {
      expect(text.trim(), key).not.toBe("");
      expect(gaps(text), key).toEqual(gaps(trees["en"]![key]!));
    }
  });

  it("use every key", () => {
    const sources = readdirSync(new URL("../src/", import.meta.url)).filter((name) => name.endsWith(".ts"));
    const code = sources.map((name) => readFileSync(new URL(`../src/${name}`, import.meta.url), "utf8")).join("\n");
    const isBuilt = (key: string): boolean => /^(domain|theme|keep)\./.test(key);
    const unused = Object.keys(trees["en"]!).filter((key) => !isBuilt(key) && !code.includes(`"${key}"`));
    expect(unused).toEqual([]);
  });

  it.each([
    [null, ["id-ID", "en"], "id"],
    [null, ["fr", "de"], "en"],
    ["en", ["id"], "en"],
    ["xx", ["id"], "id"],
    [null, [], "en"],
  ])("are chosen (%#)", (kept, wishes, expected) => {
    expect(chooseLanguage(kept, wishes as string[])).toBe(expected);
  });
});

describe("texts", () => {
  it("fill their gaps", () => {
    expect(new Texts("en").say("load.progress", { loaded: 1, total: 2 })).toBe("1 of 2 MB");
  });

  it("never call a probability certain", () => {
    const texts = new Texts("en");
    expect([0.9999, 0.995, 0.99, 0.004, 1, 0].map((p) => texts.percent(p))).toEqual([
      "> 99%", "> 99%", "99%", "< 1%", "100%", "0%",
    ]);
  });

  it("write numbers as their language does", () => {
    expect(new Texts("id").megabytes(2_525_064)).toBe("2,5");
  });
});

describe("tasks", () => {
  const task = { task: "tomato_leaf", domain: "agriculture", title: "T", size_bytes: 1, is_sample: true };

  it("fall back to English, then to their slugs", () => {
    const both = { ...task, words: { en: { name: "Tomato leaf", labels: { late_blight: "Late blight" } }, id: { name: "Daun tomat" } } };
    expect(words(both, "id").name).toBe("Daun tomat");
    expect(labelWords(words(both, "id"), {}, "late_blight")).toBe("Late blight");
    expect(words({ ...task, words: {} }, "id").name).toBe("Tomato leaf");
    const names = { late_blight: "Blight II", "3mm_crack": "3 mm crack" };
    expect(labelWords(words({ ...task, words: {} }, "id"), names, "3mm_crack")).toBe("3 mm crack");
    // The server fills a label that nobody has translated from its slug.
    expect(labelWords(words(both, "id"), names, "late_blight")).toBe("Blight II");
    const translated = { ...task, words: { id: { labels: { late_blight: "Hawar daun" } } } };
    expect(labelWords(words(translated, "id"), names, "late_blight")).toBe("Hawar daun");
    expect(wordsOf("no_finding")).toBe("No finding");
  });

  it("are read from the index, and what is none is left out", () => {
    expect(readIndex({ tasks: [{ ...task, words: {} }, null, 3, { task: 5 }] })).toHaveLength(1);
    expect(readIndex(null)).toEqual([]);
    expect(readIndex({ tasks: "x" })).toEqual([]);
  });
});
