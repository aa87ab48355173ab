// What the panels of all kinds have in common.

import type { Bundle } from "./bundle.ts";
import { type Child, h } from "./dom.ts";
import type { Said } from "./kinds.ts";
import type { Answer } from "./protocol.ts";
import { labelWords, type Words } from "./tasks.ts";
import type { Texts } from "./texts.ts";

/** What a panel knows of its task. */
export interface Shown {
  readonly bundle: Bundle;
  readonly said: Words;
  readonly texts: Texts;
  /** Draw the last answer again: the person has moved a control. */
  readonly redraw: () => void;
}

/** An answer in words. */
export interface Told {
  readonly headline: string;
  /** Above the headline. */
  readonly kicker: string;
  /** One sentence for a screen reader. */
  readonly spoken: string;
  /** The answer without what changes from frame to frame of the same thing. */
  readonly gist: string;
  readonly lines: readonly Child[];
}

/** The part of an answer that is its kind's own. It is updated in place. */
export interface KindPanel<S extends Said> {
  /** Under the headline. */
  readonly element: HTMLElement;
  /** Over the picture, as large as it is shown; null where there is nothing to draw. */
  readonly overlay: Element | null;
  show(answer: Answer, said: S): Told;
  /** There is no answer. */
  clear(): void;
}

/** A label as people call it. */
export const named = ({ bundle, said }: Shown, label: string): string => labelWords(said, bundle.labelNames, label);

/** A title and what stands under it; nothing where there is nothing to say. */
export const line = (title: string, body: string | undefined): Child =>
  body ? h("div", { class: "line" }, h("h3", {}, title), h("p", {}, body)) : null;
