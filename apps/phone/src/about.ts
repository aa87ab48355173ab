// Which model this is, and what it must not be used for.

import type { Bundle } from "./bundle.ts";
import { h } from "./dom.ts";
import { KINDS } from "./kinds.ts";
import type { Loaded } from "./protocol.ts";
import type { Words } from "./tasks.ts";
import type { Texts } from "./texts.ts";

export function aboutModel(bundle: Bundle, said: Words, loaded: Loaded, texts: Texts): HTMLElement {
  const { cropPx, whole } = bundle.preprocess;
  const { isCalibrated, figure } = KINDS.get(bundle.kind)!;
  const rows: [string, string][] = [
    [texts.say("about.file"), texts.say("about.bytes", { megabytes: texts.megabytes(loaded.modelBytes), precision: bundle.precision })],
    [texts.say("about.hash"), `${bundle.file.sha256.slice(0, 16)}…`],
    [texts.say("about.input"), texts.say(whole ? "about.inputWhole" : "about.inputValue", { side: cropPx })],
    [texts.say("about.engine"), texts.say("about.engineValue", { version: loaded.runtimeVersion })],
  ];
  if (loaded.gallery) {
    const { nPictures, nIdentities } = loaded.gallery;
    const gaps = { pictures: texts.number(nPictures), identities: texts.number(nIdentities) };
    rows.push([texts.say("about.gallery"), texts.say("about.galleryValue", gaps)]);
  }
  if (isCalibrated) rows.splice(3, 0, [texts.say("about.temperature"), texts.number(bundle.temperature, 3)]);
  if (bundle.figure) {
    rows.unshift([texts.say(figure.text, { n: bundle.figure.n }), `${texts.number(bundle.figure.value * 100, 1)} %`]);
  }
  const threads = globalThis.crossOriginIsolated ? "about.isolated" : "about.notIsolated";
  const notFor = said.not_for.length > 0 ? said.not_for : bundle.notFor;
  return h(
    "details",
    { class: "box about" },
    h("summary", {}, texts.say("about.title")),
    h("dl", {}, ...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    h("p", { class: "fine" }, texts.say(threads)),
    h("h3", {}, texts.say("about.use")),
    h("p", {}, said.intended_use || bundle.intendedUse),
    h("h3", {}, texts.say("about.notFor")),
    h("ul", {}, ...notFor.map((line) => h("li", {}, line))),
  );
}
