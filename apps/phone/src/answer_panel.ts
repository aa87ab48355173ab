// What the model says about one picture. Updated in place, so that a live camera does not flicker.

import type { Bundle } from "./bundle.ts";
import { fill, h, icon } from "./dom.ts";
import type { Answer, Loaded } from "./protocol.ts";
import { argmax } from "./kinds.ts";
import { labelWords, type Words } from "./tasks.ts";
import type { Texts } from "./texts.ts";

/** Bars that are shown at once; the others are behind a button. */
const BARS_SHOWN = 5;
/** A second label this close to the first is named. */
const CLOSE_CALL = 0.15;

export class AnswerPanel {
  readonly element = h("section", { class: "answer", "aria-labelledby": "answer-title" });
  readonly #headline = h("p", { class: "headline" });
  readonly #kicker = h("p", { class: "kicker" });
  readonly #lines = h("div", { class: "lines" });
  readonly #alarms = h("div", { class: "alarms" });
  readonly #bars = h("ol", { class: "bars" });
  readonly #barsTitle = h("summary");
  readonly #barsBox: HTMLDetailsElement;
  readonly #more: HTMLButtonElement;
  readonly #speed = h("p", { class: "speed" });
  readonly #rows = new Map<string, { row: HTMLLIElement; bar: HTMLElement; percent: HTMLElement }>();
  #isExpanded = false;
  #n = 0;
  #wasOod: boolean | null = null;

  constructor(
    readonly bundle: Bundle,
    readonly said: Words,
    readonly texts: Texts,
  ) {
    this.#barsBox = h("details", { class: "bars-box" }, this.#barsTitle, this.#bars);
    this.#more = h("button", { type: "button", class: "more", onclick: () => this.#expand() });
    for (const label of bundle.labels) {
      const bar = h("span", { class: "bar-fill" });
      const percent = h("span", { class: "bar-percent" });
      const name = h("span", { class: "bar-label" }, this.#named(label));
      const track = h("span", { class: "bar-track", "aria-hidden": "true" }, bar);
      const row = h("li", { "data-label": label }, name, percent, track);
      this.#rows.set(label, { row, bar, percent });
    }
    if (bundle.labels.length > BARS_SHOWN) this.#barsBox.append(this.#more);
    this.#more.textContent = texts.say("answer.all", { n: bundle.labels.length });
    fill(
      this.element,
      h("h2", { id: "answer-title", class: "hidden" }, texts.say("answer.title")),
      this.#kicker,
      this.#headline,
      this.#alarms,
      this.#barsBox,
      this.#lines,
      this.#speed,
    );
    this.wait("answer.waiting");
  }

  /** Say that there is no answer yet. */
  wait(key: "answer.waiting" | "answer.working"): void {
    this.element.dataset["state"] = key === "answer.waiting" ? "empty" : "working";
    this.#headline.textContent = this.texts.say(key);
    this.#kicker.textContent = "";
    this.#barsBox.hidden = true;
    this.#wasOod = null;
    fill(this.#alarms);
    fill(this.#lines);
    this.#speed.textContent = "";
  }

  /** One sentence for a screen reader. */
  spoken(answer: Answer): string {
    if (answer.isOod) return this.texts.say("answer.ood");
    const percent = this.texts.percent(Math.max(...answer.probabilities));
    return this.texts.say("answer.spoken", { label: this.#named(answer.label), percent });
  }

  show(answer: Answer, loaded: Loaded, ratePerSecond: number | null): void {
    const { texts } = this;
    const best = answer.probabilities[argmax(answer.probabilities)]!;
    this.#n += 1;
    const data = this.element.dataset;
    data["state"] = answer.isOod ? "ood" : "answer";
    data["label"] = answer.label;
    data["answers"] = String(this.#n);
    data["oodScore"] = String(answer.oodScore ?? "");
    this.#barsBox.hidden = false;
    if (answer.isOod) {
      this.#kicker.textContent = "";
      this.#headline.textContent = texts.say("answer.ood");
    } else {
      this.#kicker.textContent = texts.say("answer.probability", { percent: texts.percent(best) });
      this.#headline.textContent = this.#named(answer.label);
    }
    if (this.#wasOod !== answer.isOod) {
      this.#barsBox.open = !answer.isOod;
      this.#barsTitle.textContent = texts.say(answer.isOod ? "answer.oodBars" : "answer.bars");
      this.#wasOod = answer.isOod;
    }
    this.#showBars(answer);
    this.#showAlarms(answer);
    this.#showLines(answer);
    this.#showSpeed(answer, loaded, ratePerSecond);
  }

  #named(label: string): string {
    return labelWords(this.said, this.bundle.labelNames, label);
  }

  #showBars(answer: Answer): void {
    const order = [...this.bundle.labels.keys()].sort((a, b) => answer.probabilities[b]! - answer.probabilities[a]!);
    order.forEach((place, rank) => {
      const label = this.bundle.labels[place]!;
      const probability = answer.probabilities[place]!;
      const { row, bar, percent } = this.#rows.get(label)!;
      row.dataset["probability"] = String(probability);
      row.classList.toggle("is-best", rank === 0);
      row.hidden = rank >= BARS_SHOWN && !this.#isExpanded;
      bar.style.transform = `scaleX(${probability.toFixed(4)})`;
      percent.textContent = this.texts.percent(probability);
      if (this.#bars.children[rank] !== row) this.#bars.insertBefore(row, this.#bars.children[rank] ?? null);
    });
    this.#more.hidden = this.#isExpanded;
  }

  #expand(): void {
    this.#isExpanded = true;
    this.#more.hidden = true;
    for (const { row } of this.#rows.values()) row.hidden = false;
  }

  #showAlarms(answer: Answer): void {
    const points = answer.isOod ? [] : Object.entries(this.bundle.operatingPoints);
    const sorted = points.sort(([a], [b]) => Number(answer.positives[b]) - Number(answer.positives[a]));
    fill(
      this.#alarms,
      ...sorted.map(([label, point]) => {
        const isOn = answer.positives[label] === true;
        const key = isOn ? "point.on" : "point.off";
        return h(
          "div",
          { class: isOn ? "alarm is-on" : "alarm", "data-point": label, "data-on": String(isOn) },
          icon(isOn ? "alarm" : "check"),
          h(
            "div",
            {},
            h("p", { class: "alarm-title" }, this.texts.say(key, { label: this.#named(label) })),
            h(
              "p",
              { class: "fine" },
              this.texts.say("point.why", {
                threshold: this.texts.percent(point.threshold),
                positives: point.nPositive,
                negatives: point.nNegative,
                sensitivity: this.texts.percent(point.sensitivity),
                specificity: this.texts.percent(point.specificity),
              }),
            ),
          ),
        );
      }),
    );
  }

  #showLines(answer: Answer): void {
    const { texts, said } = this;
    const { range } = this.bundle.preprocess;
    const outside =
      answer.outside > 0 &&
      h("p", { class: "close-call" }, texts.say("answer.outside", { percent: texts.percent(answer.outside), range: range === "full" ? "0–65535" : (range ?? []).join("–") }));
    if (answer.isOod) {
      fill(this.#lines, outside, h("p", {}, texts.say("answer.oodWhy")));
      return;
    }
    const second = [...answer.probabilities].sort((a, b) => b - a)[1] ?? 0;
    const isClose = Math.max(...answer.probabilities) - second < CLOSE_CALL;
    const secondLabel = this.bundle.labels[answer.probabilities.indexOf(second)] ?? "";
    const meaning = said.meanings[answer.label] ?? this.bundle.labelMeanings[answer.label];
    const line = (title: string, body: string | undefined): HTMLElement | null =>
      body ? h("div", { class: "line" }, h("h3", {}, title), h("p", {}, body)) : null;
    fill(
      this.#lines,
      outside,
      isClose &&
        h(
          "p",
          { class: "close-call" },
          texts.say("answer.close", { second: this.#named(secondLabel), percent: texts.percent(second) }),
        ),
      line(texts.say("answer.next"), said.next_steps[answer.label]),
      line(texts.say("answer.meaning"), meaning),
      line(texts.say("answer.reading"), said.reading),
    );
  }

  #showSpeed(answer: Answer, loaded: Loaded, ratePerSecond: number | null): void {
    const { texts } = this;
    const ms = answer.decodeMs + answer.preprocessMs + answer.modelMs;
    const whole =
      ratePerSecond === null
        ? texts.say("speed.still", { ms: texts.number(ms) })
        : texts.say("speed.live", { ms: texts.number(ms), rate: texts.number(ratePerSecond, 1) });
    const parts = texts.say("speed.parts", {
      decode: texts.number(answer.decodeMs),
      preprocess: texts.number(answer.preprocessMs),
      model: texts.number(answer.modelMs),
    });
    const threads =
      loaded.nThreads === 1 ? texts.say("speed.thread") : texts.say("speed.threads", { n: loaded.nThreads });
    this.#speed.textContent = `${whole} (${parts}) · ${threads} · ${texts.say("speed.simd")}`;
  }
}
