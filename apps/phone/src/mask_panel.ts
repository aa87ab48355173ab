// How much of the picture shows each label, and a mask over the picture as strongly as wanted.

import { fill, h } from "./dom.ts";
import { type KindPanel, line, named, type Shown, type Told } from "./panel.ts";
import type { Answer } from "./protocol.ts";
import { enlarged, indexed, type Mask, thresholdsOf } from "./segmentation.ts";

/** Of the mask, in per cent: ends of the scale, a step, and its start. */
const SCALE = { min: 0, max: 100, step: 5, value: 40 } as const;
/** A mask is drawn with about so many pixels a side. */
const DRAWN_PX = 512;
/** The drawing over the picture has at most this longer side. */
const MOST_PX = 1024;
/** Width of the outline, in px of the mask as it is drawn. */
const LINE_PX = 2;
const WHITE = [255, 255, 255] as const;
/** Of the labels in turn: Okabe and Ito's, as pipelines/serving/segmentation.py. */
const COLOURS = [
  [0, 158, 115], [213, 94, 0], [0, 114, 178], [204, 121, 167], [230, 159, 0], [86, 180, 233], [240, 228, 66],
] as const;

export class MaskPanel implements KindPanel<Mask> {
  readonly element = h("div", { class: "kind", hidden: true });
  readonly overlay = h("canvas", { class: "shot overlay", "aria-hidden": "true", hidden: true });
  readonly #shares = new Map<string, HTMLElement>();
  readonly #slider: HTMLInputElement;
  readonly #value = h("output", { class: "control-value", for: "opacity" });
  readonly #mask = document.createElement("canvas");
  #drawn: Answer | null = null;
  #opacity = SCALE.value / 100;

  constructor(readonly shown: Shown) {
    const { bundle, texts } = shown;
    const rows = bundle.labels.map((label, place) => {
      const share = h("span", { class: "count-n" });
      this.#shares.set(label, share);
      const swatch = h("span", { class: "swatch", "aria-hidden": "true" });
      swatch.style.background = `rgb(${colourOf(place).join(" ")})`;
      return h("li", { "data-label": label }, swatch, h("span", {}, named(shown, label)), share);
    });
    this.#slider = h("input", { type: "range", id: "opacity", ...SCALE, oninput: () => this.#fade(Number(this.#slider.value) / 100) });
    fill(
      this.element,
      h("ul", { class: "counts", "aria-label": texts.say("masks.areas") }, ...rows),
      h("div", { class: "control" }, h("label", { for: "opacity" }, texts.say("masks.opacity")), this.#value, this.#slider),
    );
    this.#sayOpacity();
  }

  clear(): void {
    this.element.hidden = true;
    this.overlay.hidden = true;
    this.#drawn = null;
  }

  show(answer: Answer, said: Mask): Told {
    const { shown } = this;
    const { texts, said: words, bundle } = shown;
    this.element.hidden = this.overlay.hidden = answer.isOod;
    if (!answer.isOod && this.#drawn !== answer) this.#draw(answer, said);
    this.#drawn = answer;
    for (const { label, areaShare, boxPx } of said.regions) {
      const share = this.#shares.get(label)!;
      share.textContent = boxPx === null ? texts.say("masks.nothing") : texts.percent(areaShare);
      share.parentElement!.classList.toggle("is-none", boxPx === null);
    }
    const seen = said.regions.filter(({ boxPx }) => boxPx !== null);
    const [first] = [...seen].sort((a, b) => b.areaShare - a.areaShare);
    const told = seen.map(({ label, areaShare }) => `${named(shown, label)} ${texts.percent(areaShare)}`).join(", ");
    return {
      headline: first ? named(shown, first.label) : texts.say("boxes.none"),
      kicker: first ? texts.say("masks.share", { percent: texts.percent(first.areaShare) }) : "",
      spoken: told || texts.say("boxes.none"),
      gist: seen.map(({ label }) => named(shown, label)).join(", ") || texts.say("boxes.none"),
      lines: [
        h("p", { class: "fine" }, texts.say(bundle.preprocess.whole ? "masks.seenWhole" : "masks.seen")),
        line(texts.say("answer.next"), first && words.next_steps[first.label]),
        line(texts.say("answer.meaning"), first && (words.meanings[first.label] ?? bundle.labelMeanings[first.label])),
        line(texts.say("answer.reading"), words.reading),
      ],
    };
  }

  #fade(opacity: number): void {
    this.#opacity = opacity;
    this.#sayOpacity();
    this.#drawn = null; // the same answer in another strength
    this.shown.redraw();
  }

  #sayOpacity(): void {
    this.#value.textContent = this.shown.texts.percent(this.#opacity);
    this.#slider.setAttribute("aria-valuetext", this.#value.textContent);
  }

  /** The mask where the model looked: as large as the picture is shown, and no larger than needed. */
  #draw({ size: [width, height], geometry: { scale, shift } }: Answer, said: Mask): void {
    const { cropPx } = this.shown.bundle.preprocess;
    const px = Math.max(cropPx, Math.min(DRAWN_PX, 4 * cropPx));
    const maps = enlarged(said.probabilities, said.regions.length, cropPx, px);
    const shown = indexed(maps, thresholdsOf(this.shown.bundle));
    this.#mask.width = this.#mask.height = px;
    this.#mask.getContext("2d")!.putImageData(coloured(shown, px, this.#opacity), 0, 0);
    const small = Math.min(1, MOST_PX / Math.max(width, height));
    const [wide, high] = [Math.max(1, Math.round(width * small)), Math.max(1, Math.round(height * small))];
    this.overlay.width = wide;
    this.overlay.height = high;
    const [x, y] = [wide / width, high / height];
    this.overlay.getContext("2d")!.drawImage(
      this.#mask,
      (-shift[0] / scale[0]) * x, (-shift[1] / scale[1]) * y, (cropPx / scale[0]) * x, (cropPx / scale[1]) * y,
    );
  }
}

/** The mask in the labels' colours; its outline stays, however weak it is. */
function coloured(shown: Uint8Array, px: number, opacity: number): ImageData {
  const image = new ImageData(px, px);
  const isOther = (x: number, y: number, index: number): boolean => x >= 0 && y >= 0 && x < px && y < px && shown[y * px + x] !== index;
  const alpha = Math.round(opacity * 255);
  shown.forEach((index, i) => {
    if (index === 0) return;
    const [x, y] = [i % px, Math.trunc(i / px)];
    const isEdge = isOther(x - LINE_PX, y, index) || isOther(x + LINE_PX, y, index) || isOther(x, y - LINE_PX, index) || isOther(x, y + LINE_PX, index);
    const colour = isEdge ? WHITE : colourOf(index - 1);
    for (let channel = 0; channel < 3; channel++) image.data[i * 4 + channel] = colour[channel]!;
    image.data[i * 4 + 3] = isEdge ? 255 : alpha;
  });
  return image;
}

function colourOf(place: number): readonly [number, number, number] {
  return COLOURS[place % COLOURS.length]!;
}
