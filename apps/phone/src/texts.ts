// The words of the page: one JSON a language, with the same keys (tests/texts.test.ts). The words of
// a task (names, labels, next steps) come with the list of tasks, from the same files as the apps'.

import en from "./locales/en.json";
import id from "./locales/id.json";

export type TextKey = keyof typeof en;
export type Gaps = Readonly<Record<string, string | number>>;

export const LANGUAGES = ["en", "id"] as const;
export type Language = (typeof LANGUAGES)[number];

const TREES: Readonly<Record<Language, Readonly<Record<TextKey, string>>>> = { en, id };

/** The language for a browser's wishes; English where none of them is ours. */
export function chooseLanguage(kept: string | null, wishes: readonly string[]): Language {
  for (const wish of kept === null ? wishes : [kept, ...wishes]) {
    const two = wish.split("-")[0]!.toLowerCase();
    const found = LANGUAGES.find((language) => language === two);
    if (found) return found;
  }
  return "en";
}

export class Texts {
  constructor(readonly language: Language) {}

  /** The text of a key, its gaps filled. */
  say(key: TextKey, gaps: Gaps = {}): string {
    return TREES[this.language][key].replace(/\{(\w+)\}/g, (whole, name: string) =>
      name in gaps ? String(gaps[name]) : whole,
    );
  }

  nameOf(language: Language): string {
    return TREES[language]["language.name"];
  }

  number(value: number, digits = 0): string {
    return new Intl.NumberFormat(this.language, {
      minimumFractionDigits: digits,
      maximumFractionDigits: digits,
    }).format(value);
  }

  /** Never 100 % and never 0 % for what is not certain. */
  percent(share: number): string {
    const format = new Intl.NumberFormat(this.language, { style: "percent" });
    if (share > 0 && share < 0.005) return `< ${format.format(0.01)}`;
    if (share < 1 && share >= 0.995) return `> ${format.format(0.99)}`;
    return format.format(share);
  }

  megabytes(bytes: number): string {
    return this.number(bytes / 1e6, 1);
  }
}

/** A label in words where no language has any: `late_blight` is "Late blight". */
export function wordsOf(slug: string): string {
  const spaced = slug.replaceAll("_", " ");
  return spaced.charAt(0).toUpperCase() + spaced.slice(1);
}
