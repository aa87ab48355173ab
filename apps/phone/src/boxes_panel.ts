// How many of each label there are, from which certainty on they count, and boxes over the picture.

import { fill, h, svg } from "./dom.ts";
import { type Box, type Boxes, counted } from "./detection.ts";
import { type KindPanel, line, named, type Shown, type Told } from "./panel.ts";
import type { Answer } from "./protocol.ts";
import { gravest, toneOf } from "./tasks.ts";

/** Of the certainty, in per cent: ends of the scale, a step, and where it starts to be moved from. */
const SCALE = { min: 5, max: 95, step: 5, value: 40 } as const;
/** Up to so many boxes bear their names: more would hide the picture. */
const MOST_NAMES = 6;
/** Height of a name, as a share of the picture's longer side. */
const NAME_SHARE = 0.034;

export class BoxesPanel implements KindPanel<Boxes> {
  readonly element = h("div", { class: "kind", hidden: true });
  readonly overlay = svg("svg", { class: "shot overlay", "aria-hidden": "true" });
  readonly #counts = new Map<string, HTMLElement>();
  readonly #drawn: { readonly rect: SVGRectElement; readonly name: SVGTextElement }[] = [];
  readonly #slider: HTMLInputElement;
  readonly #value = h("output", { class: "control-value", for: "certainty" });
  readonly #chosen: HTMLButtonElement;
  /** From which score on a box counts; null is as each label's threshold says. */
  #least: number | null = null;

  constructor(readonly shown: Shown) {
    const { bundle, said, texts } = shown;
    const rows = bundle.labels.map((label) => {
      const count = h("span", { class: "count-n" });
      this.#counts.set(label, count);
      const swatch = h("span", { class: `swatch is-${toneOf(said, label)}`, "aria-hidden": "true" });
      return h("li", { "data-label": label }, swatch, h("span", {}, named(shown, label)), count);
    });
    this.#slider = h("input", { type: "range", id: "certainty", ...SCALE, oninput: () => this.#move(Number(this.#slider.value) / 100) });
    this.#chosen = h("button", { type: "button", class: "more", onclick: () => this.#move(null) }, texts.say("boxes.chosen"));
    fill(
      this.element,
      h("ul", { class: "counts", "aria-label": texts.say("boxes.counts") }, ...rows),
      h("div", { class: "control" }, h("label", { for: "certainty" }, texts.say("boxes.certainty")), this.#value, this.#slider, this.#chosen),
    );
    this.#sayLeast();
  }

  clear(): void {
    this.element.hidden = true;
    this.#draw([], [1, 1]);
  }

  show(answer: Answer, said: Boxes): Told {
    const { bundle, texts, said: words } = this.shown;
    const boxes = answer.isOod ? [] : counted(said, bundle, this.#least);
    this.element.hidden = answer.isOod;
    this.#draw(boxes, answer.size);
    const counts = bundle.labels.map((label) => boxes.filter((box) => box.label === label).length);
    bundle.labels.forEach((label, place) => {
      const count = this.#counts.get(label)!;
      count.textContent = texts.number(counts[place]!);
      count.parentElement!.classList.toggle("is-none", counts[place] === 0);
    });
    const found = bundle.labels.filter((_, place) => counts[place]! > 0);
    const told = found.map((label) => `${named(this.shown, label)} ${counts[bundle.labels.indexOf(label)]}`).join(", ");
    const headline = boxes.length > 0 ? texts.say("boxes.found", { n: boxes.length }) : texts.say("boxes.none");
    return {
      headline,
      kicker: "",
      spoken: told || headline,
      gist: told || headline,
      lines: [line(texts.say("answer.next"), words.next_steps[gravest(words, found) ?? ""]), line(texts.say("answer.reading"), words.reading)],
    };
  }

  #move(least: number | null): void {
    this.#least = least;
    this.#sayLeast();
    this.shown.redraw();
  }

  #sayLeast(): void {
    const { texts } = this.shown;
    const words = this.#least === null ? texts.say("boxes.asChosen") : texts.percent(this.#least);
    this.#value.textContent = words;
    this.#slider.setAttribute("aria-valuetext", words);
    this.#chosen.disabled = this.#least === null;
  }

  /** The elements of the frame before are moved, so that nothing flickers. */
  #draw(boxes: readonly Box[], [width, height]: Answer["size"]): void {
    this.overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
    while (this.#drawn.length < boxes.length) {
      const [rect, name] = [svg("rect"), svg("text")];
      this.overlay.append(rect, name);
      this.#drawn.push({ rect, name });
    }
    const letters = NAME_SHARE * Math.max(width, height);
    this.#drawn.forEach(({ rect, name }, place) => {
      const box = boxes[place];
      rect.toggleAttribute("hidden", box === undefined);
      name.toggleAttribute("hidden", box === undefined || boxes.length > MOST_NAMES);
      if (box === undefined) return;
      const tone = `is-${toneOf(this.shown.said, box.label)}`;
      set(rect, { x: box.x0, y: box.y0, width: box.x1 - box.x0, height: box.y1 - box.y0, class: tone, "data-label": box.label });
      set(name, { x: box.x0, y: box.y0 > 1.5 * letters ? box.y0 - 0.4 * letters : box.y0 + letters, "font-size": letters, class: tone });
      name.textContent = named(this.shown, box.label);
    });
  }
}

function set(element: Element, attributes: Readonly<Record<string, string | number>>): void {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
}
