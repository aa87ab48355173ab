// Labels with their probabilities, and alarms where a label has an operating point.

import { fill, h, icon } from "./dom.ts";
import { argmax, type Classes } from "./kinds.ts";
import { type KindPanel, line, named, type Shown, type Told } from "./panel.ts";
import type { Answer } from "./protocol.ts";

/** Bars that are shown at once; the others are behind a button. */
const BARS_SHOWN = 5;
/** A second label this close to the first is named. */
const CLOSE_CALL = 0.15;

export class ClassesPanel implements KindPanel<Classes> {
  readonly element = h("div", { class: "kind" });
  readonly overlay = null;
  readonly #alarms = h("div", { class: "alarms" });
  readonly #bars = h("ol", { class: "bars" });
  readonly #barsTitle = h("summary");
  readonly #barsBox: HTMLDetailsElement;
  readonly #more: HTMLButtonElement;
  readonly #rows = new Map<string, { row: HTMLLIElement; bar: HTMLElement; percent: HTMLElement }>();
  #isExpanded = false;
  #wasOod: boolean | null = null;

  constructor(readonly shown: Shown) {
    const { bundle, texts } = shown;
    this.#barsBox = h("details", { class: "bars-box" }, this.#barsTitle, this.#bars);
    this.#more = h("button", { type: "button", class: "more", onclick: () => this.#expand() });
    for (const label of bundle.labels) {
      const bar = h("span", { class: "bar-fill" });
      const percent = h("span", { class: "bar-percent" });
      const name = h("span", { class: "bar-label" }, named(shown, label));
      const track = h("span", { class: "bar-track", "aria-hidden": "true" }, bar);
      const row = h("li", { "data-label": label }, name, percent, track);
      this.#rows.set(label, { row, bar, percent });
    }
    if (bundle.labels.length > BARS_SHOWN) this.#barsBox.append(this.#more);
    this.#more.textContent = texts.say("answer.all", { n: bundle.labels.length });
    fill(this.element, this.#alarms, this.#barsBox);
  }

  clear(): void {
    this.#barsBox.hidden = true;
    this.#wasOod = null;
    fill(this.#alarms);
  }

  show({ isOod }: Answer, said: Classes): Told {
    const { shown } = this;
    const { texts } = shown;
    const percent = texts.percent(said.probabilities[argmax(said.probabilities)]!);
    this.#barsBox.hidden = false;
    if (this.#wasOod !== isOod) {
      this.#barsBox.open = !isOod;
      this.#barsTitle.textContent = texts.say(isOod ? "answer.oodBars" : "answer.bars");
      this.#wasOod = isOod;
    }
    this.#showBars(said);
    this.#showAlarms(isOod, said);
    return {
      headline: named(shown, said.label),
      kicker: texts.say("answer.probability", { percent }),
      spoken: texts.say("answer.spoken", { label: named(shown, said.label), percent }),
      gist: said.label,
      lines: this.#lines(said),
    };
  }

  #showBars(said: Classes): void {
    const order = [...this.shown.bundle.labels.keys()].sort((a, b) => said.probabilities[b]! - said.probabilities[a]!);
    order.forEach((place, rank) => {
      const label = this.shown.bundle.labels[place]!;
      const probability = said.probabilities[place]!;
      const { row, bar, percent } = this.#rows.get(label)!;
      row.dataset["probability"] = String(probability);
      row.classList.toggle("is-best", rank === 0);
      row.hidden = rank >= BARS_SHOWN && !this.#isExpanded;
      bar.style.transform = `scaleX(${probability.toFixed(4)})`;
      percent.textContent = this.shown.texts.percent(probability);
      if (this.#bars.children[rank] !== row) this.#bars.insertBefore(row, this.#bars.children[rank] ?? null);
    });
    this.#more.hidden = this.#isExpanded;
  }

  #expand(): void {
    this.#isExpanded = true;
    this.#more.hidden = true;
    for (const { row } of this.#rows.values()) row.hidden = false;
  }

  #showAlarms(isOod: boolean, said: Classes): void {
    const points = isOod ? [] : Object.entries(this.shown.bundle.operatingPoints);
    const sorted = points.sort(([a], [b]) => Number(said.positives[b]) - Number(said.positives[a]));
    fill(
      this.#alarms,
      ...sorted.map(([label, point]) => {
        const isOn = said.positives[label] === true;
        const key = isOn ? "point.on" : "point.off";
        return h(
          "div",
          { class: isOn ? "alarm is-on" : "alarm", "data-point": label, "data-on": String(isOn) },
          icon(isOn ? "alarm" : "check"),
          h(
            "div",
            {},
            h("p", { class: "alarm-title" }, this.shown.texts.say(key, { label: named(this.shown, label) })),
            h(
              "p",
              { class: "fine" },
              this.shown.texts.say("point.why", {
                threshold: this.shown.texts.percent(point.threshold),
                positives: point.nPositive,
                negatives: point.nNegative,
                sensitivity: this.shown.texts.percent(point.sensitivity),
                specificity: this.shown.texts.percent(point.specificity),
              }),
            ),
          ),
        );
      }),
    );
  }

  #lines(said: Classes): Told["lines"] {
    const { shown } = this;
    const { bundle, texts, said: words } = shown;
    const second = [...said.probabilities].sort((a, b) => b - a)[1] ?? 0;
    const isClose = Math.max(...said.probabilities) - second < CLOSE_CALL;
    const secondLabel = bundle.labels[said.probabilities.indexOf(second)] ?? "";
    const close = { second: named(shown, secondLabel), percent: texts.percent(second) };
    return [
      isClose && h("p", { class: "close-call" }, texts.say("answer.close", close)),
      line(texts.say("answer.next"), words.next_steps[said.label]),
      line(texts.say("answer.meaning"), words.meanings[said.label] ?? bundle.labelMeanings[said.label]),
      line(texts.say("answer.reading"), words.reading),
    ];
  }
}
