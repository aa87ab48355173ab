// The nearest pictures of the gallery with their distances, and which are called the same.

import { fill, h } from "./dom.ts";
import { type Embedding, type Neighbour, SAME } from "./embedding.ts";
import { bytesOf } from "./packed.ts";
import { type KindPanel, line, type Shown, type Told } from "./panel.ts";
import type { Answer } from "./protocol.ts";

export class NeighboursPanel implements KindPanel<Embedding> {
  readonly element = h("ol", { class: "neighbours", hidden: true });
  readonly overlay = null;
  readonly #rows: Row[] = [];

  constructor(readonly shown: Shown) {
    this.element.setAttribute("aria-label", shown.texts.say("neighbours.list"));
  }

  clear(): void {
    this.element.hidden = true;
  }

  show({ isOod }: Answer, { neighbours }: Embedding): Told {
    const { texts, said: words, bundle } = this.shown;
    const [first] = neighbours;
    this.element.hidden = isOod || !first;
    if (!isOod) this.#list(neighbours);
    const reading = line(texts.say("answer.reading"), words.reading);
    if (!first) {
      const headline = texts.say("neighbours.noGallery");
      const how = h("p", {}, texts.say("neighbours.noGalleryHow", { task: bundle.task }));
      return { headline, kicker: "", spoken: headline, gist: headline, lines: [how, reading] };
    }
    const headline = texts.say("neighbours.title", { identity: first.identity });
    const kicker = this.#distance(first.distance);
    const none = first.isSame === false ? texts.say("neighbours.none") : "";
    return {
      headline,
      kicker,
      spoken: [headline, kicker, none].filter(Boolean).join(", "),
      gist: first.identity,
      lines: [none !== "" && h("p", { class: "close-call" }, none), this.#bound(), reading],
    };
  }

  /** The rows of the frame before are filled anew, so that nothing flickers. */
  #list(neighbours: readonly Neighbour[]): void {
    const { texts } = this.shown;
    while (this.#rows.length < neighbours.length) {
      const row = new Row();
      this.#rows.push(row);
      this.element.append(row.element);
    }
    this.#rows.forEach((row, place) => {
      const near = neighbours[place];
      row.element.hidden = near === undefined;
      if (!near) return;
      const same = near.isSame === null ? "" : texts.say(near.isSame ? "neighbours.same" : "neighbours.other");
      row.show(near, this.#distance(near.distance), same, texts.say("neighbours.alt", { identity: near.identity }));
    });
  }

  #distance(distance: number): string {
    return this.shown.texts.say("neighbours.distance", { value: this.shown.texts.number(distance, 3) });
  }

  /** Up to which distance pictures are called the same, and what that is worth. */
  #bound(): HTMLElement | false {
    const { texts, bundle } = this.shown;
    const point = bundle.operatingPoints[SAME];
    if (!point) return false;
    const gaps = {
      distance: texts.number(1 - point.threshold, 3),
      sensitivity: texts.percent(point.sensitivity),
      specificity: texts.percent(point.specificity),
    };
    return h("p", { class: "fine" }, texts.say("neighbours.why", gaps));
  }
}

/** One neighbour. */
class Row {
  readonly element = h("li");
  readonly #image = h("img", { width: 64, height: 64, hidden: true });
  readonly #name = h("b");
  readonly #distance = h("span");
  readonly #same = h("span", { class: "verdict" });
  #thumbnail = "";

  constructor() {
    fill(this.element, this.#image, h("span", { class: "neighbour" }, this.#name, this.#distance), this.#same);
  }

  show(near: Neighbour, distance: string, same: string, alt: string): void {
    Object.assign(this.element.dataset, { path: near.path, distance: String(near.distance), same: String(near.isSame) });
    this.#name.textContent = near.identity;
    this.#distance.textContent = distance;
    this.#same.textContent = same;
    this.element.classList.toggle("is-same", near.isSame === true);
    this.#image.alt = alt;
    if (this.#thumbnail === near.thumbnail) return;
    this.#thumbnail = near.thumbnail;
    URL.revokeObjectURL(this.#image.src);
    this.#image.hidden = near.thumbnail === "";
    if (near.thumbnail !== "") this.#image.src = pictureUrl(near.thumbnail);
  }
}

/** An address of a JPEG in base64; the page's policy lets no data: address be shown. */
function pictureUrl(data: string): string {
  return URL.createObjectURL(new Blob([bytesOf(data)], { type: "image/jpeg" }));
}
