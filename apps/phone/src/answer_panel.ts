// What the model says about one picture: the frame around what each kind shows. Updated in place, so
// that a live camera does not flicker.

import type { Bundle } from "./bundle.ts";
import { fill, h } from "./dom.ts";
import type { Said } from "./kinds.ts";
import type { KindPanel, Told } from "./panel.ts";
import { PANELS } from "./panels.ts";
import type { Answer, Loaded } from "./protocol.ts";
import type { Words } from "./tasks.ts";
import type { Texts } from "./texts.ts";

type Given = readonly [answer: Answer, loaded: Loaded, ratePerSecond: number | null];

export class AnswerPanel {
  readonly element = h("section", { class: "answer", "aria-labelledby": "answer-title" });
  readonly #headline = h("p", { class: "headline" });
  readonly #kicker = h("p", { class: "kicker" });
  readonly #lines = h("div", { class: "lines" });
  readonly #speed = h("p", { class: "speed" });
  readonly #kind: KindPanel<Said>;
  #given: Given | null = null;
  #n = 0;

  constructor(
    readonly bundle: Bundle,
    said: Words,
    readonly texts: Texts,
  ) {
    const redraw = (): void => void (this.#given && this.#draw(...this.#given));
    // A bundle's answers are of its own kind.
    this.#kind = PANELS[bundle.kind]({ bundle, said, texts, redraw }) as KindPanel<Said>;
    fill(
      this.element,
      h("h2", { id: "answer-title", class: "hidden" }, texts.say("answer.title")),
      this.#kicker,
      this.#headline,
      this.#kind.element,
      this.#lines,
      this.#speed,
    );
    this.wait("answer.waiting");
  }

  /** What is drawn over the picture, as large as it is shown. */
  get overlay(): Element | null {
    return this.#kind.overlay;
  }

  /** Say that there is no answer yet. */
  wait(key: "answer.waiting" | "answer.working"): void {
    this.#given = null;
    this.element.dataset["state"] = key === "answer.waiting" ? "empty" : "working";
    this.#headline.textContent = this.texts.say(key);
    this.#kicker.textContent = "";
    this.#kind.clear();
    fill(this.#lines);
    this.#speed.textContent = "";
  }

  /** Show an answer; what it says in words. */
  show(...given: Given): Pick<Told, "spoken" | "gist"> {
    this.#given = given;
    this.#n += 1;
    this.element.dataset["answers"] = String(this.#n);
    const told = this.#draw(...given);
    return given[0].isOod ? { spoken: this.texts.say("answer.ood"), gist: "" } : told;
  }

  #draw(answer: Answer, loaded: Loaded, ratePerSecond: number | null): Told {
    const { texts } = this;
    const told = this.#kind.show(answer, answer.said);
    const data = this.element.dataset;
    data["state"] = answer.isOod ? "ood" : "answer";
    data["label"] = told.gist;
    data["oodScore"] = String(answer.oodScore ?? "");
    this.#kicker.textContent = answer.isOod ? "" : told.kicker;
    this.#headline.textContent = answer.isOod ? texts.say("answer.ood") : told.headline;
    fill(this.#lines, this.#outside(answer), ...(answer.isOod ? [h("p", {}, texts.say("answer.oodWhy"))] : told.lines));
    this.#showSpeed(answer, loaded, ratePerSecond);
    return told;
  }

  #outside(answer: Answer): HTMLElement | false {
    const { range } = this.bundle.preprocess;
    const gaps = { percent: this.texts.percent(answer.outside), range: range === "full" ? "0–65535" : (range ?? []).join("–") };
    return answer.outside > 0 && h("p", { class: "close-call" }, this.texts.say("answer.outside", gaps));
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
