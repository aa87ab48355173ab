// models/index.json: the tasks that the server has a model for, and their words in each language.

import { LANGUAGES, type Language, wordsOf } from "./texts.ts";

/** How alarming a label is, the gravest last: apps/tones.py. */
const TONES = ["plain", "ok", "warn", "alarm"] as const;
export type Tone = (typeof TONES)[number];

/** What there is to say about a task in one language; the texts of apps/texts and the card. */
export interface Words {
  readonly name: string;
  readonly tells: string;
  readonly photo: readonly string[];
  readonly reading: string;
  readonly labels: Readonly<Record<string, string>>;
  /** By label; a label without one is plain. */
  readonly tones: Readonly<Record<string, Tone>>;
  readonly meanings: Readonly<Record<string, string>>;
  readonly next_steps: Readonly<Record<string, string>>;
  readonly intended_use: string;
  readonly not_for: readonly string[];
}

export interface Task {
  readonly task: string;
  readonly domain: string;
  readonly title: string;
  readonly size_bytes: number;
  readonly is_sample: boolean;
  readonly words: Readonly<Partial<Record<Language, Partial<Words>>>>;
}

export const DOMAINS = ["medical", "agriculture", "safety", "reference"] as const;
export type Domain = (typeof DOMAINS)[number];

/** Whether a parsed document is an index at all. */
export function isIndex(document: unknown): document is { readonly tasks: readonly unknown[] } {
  return Array.isArray((document as { tasks?: unknown } | null)?.tasks);
}

/** The tasks of a parsed index; what is not a task is left out. */
export function readIndex(document: unknown): Task[] {
  if (!isIndex(document)) return [];
  return (document.tasks as Partial<Task>[]).filter(
    (row): row is Task =>
      typeof row?.task === "string" && typeof row.domain === "string" && typeof row.words === "object",
  );
}

/** A task's words: in the language, else in English, else from the slugs. */
export function words(task: Task, language: Language): Words {
  const empty = { photo: [], reading: "", labels: {}, tones: {}, meanings: {}, next_steps: {}, intended_use: "", not_for: [] };
  const bare = { name: wordsOf(task.task), tells: task.title, ...empty };
  return { ...bare, ...task.words[LANGUAGES[0]], ...task.words[language] };
}

/** A label in words: translated, else as people called it, else from its slug. */
export function labelWords(said: Words, names: Readonly<Record<string, string>>, label: string): string {
  const told = said.labels[label];
  const isTranslated = told !== undefined && told !== wordsOf(label);
  return isTranslated ? told : (names[label] ?? wordsOf(label));
}

/** How alarming a label is; what this page does not know is plain. */
export function toneOf(said: Words, label: string): Tone {
  return TONES.find((tone) => tone === said.tones[label]) ?? "plain";
}

/** The most alarming of labels, the first of equals; undefined of none. */
export function gravest(said: Words, labels: readonly string[]): string | undefined {
  const gravity = (label: string): number => TONES.indexOf(toneOf(said, label));
  return [...labels].sort((a, b) => gravity(b) - gravity(a))[0];
}

export function domainOf(task: Task): Domain {
  return DOMAINS.find((domain) => domain === task.domain) ?? "reference";
}
