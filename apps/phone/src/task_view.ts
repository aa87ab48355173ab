// One task: a picture or the camera in, the answer out.

import { AnswerPanel } from "./answer_panel.ts";
import { aboutModel } from "./about.ts";
import { banners } from "./banners.ts";
import { type Bundle, readBundle } from "./bundle.ts";
import { CameraError, closeCamera, grab, mayUseCamera, nextFrame, openCamera } from "./camera.ts";
import { fill, h, icon } from "./dom.ts";
import type { Progress } from "./download.ts";
import type { Engine } from "./engine.ts";
import { Pace, Steady } from "./live.ts";
import type { Answer, Loaded, Updated } from "./protocol.ts";
import { Refusal } from "./refusal.ts";
import { type Task, type Words, words } from "./tasks.ts";
import type { TextKey, Texts } from "./texts.ts";

export class TaskView {
  readonly element = h("div", { class: "task" });
  readonly #said: Words;
  readonly #stage = h("div", { class: "stage", "data-state": "empty" });
  readonly #image = h("img", { class: "shot", alt: "", hidden: true });
  readonly #video = h("video", { class: "shot", muted: true, playsinline: true, hidden: true });
  readonly #held = h("canvas", { class: "shot", hidden: true });
  readonly #frame = h("div", { class: "frame", "aria-hidden": "true", hidden: true });
  /** What the answer draws over the picture. */
  readonly #overlay = h("div", {});
  readonly #caption = h("p", { class: "fine", hidden: true });
  readonly #buttons = h("div", { class: "buttons" });
  readonly #trouble = h("p", { class: "trouble", role: "alert", hidden: true });
  readonly #loading = h("div", { class: "loading" });
  /** Of newer models, and of what could not be kept. */
  readonly #news = h("div", { class: "loading news" });
  readonly #spoken = h("p", { class: "hidden", role: "status", "aria-live": "polite" });
  readonly #answerBox = h("div", {});
  readonly #about = h("div", {});
  readonly #banners = h("div", { class: "banners" });
  readonly #file: HTMLInputElement;

  #bundle: Bundle | null = null;
  #loaded: Loaded | null = null;
  #panel: AnswerPanel | null = null;
  #stream: MediaStream | null = null;
  #turn = 0;
  #url: string | null = null;
  #isGone = false;

  constructor(
    readonly task: Task,
    readonly engine: Engine,
    readonly texts: Texts,
    readonly base: string,
    readonly onKept: () => void,
  ) {
    this.#said = words(task, texts.language);
    this.#file = h("input", {
      type: "file",
      id: "photo",
      class: "hidden",
      accept: "image/*",
      "aria-label": texts.say("input.photo"),
      onchange: () => this.#picked(),
    });
    this.#video.muted = true;
    this.#build();
    void this.#load();
  }

  /** Stop the camera and let go of the picture; the view is not used again. */
  leave(): void {
    this.#isGone = true;
    this.#turn += 1;
    this.#stopCamera();
    if (this.#url) URL.revokeObjectURL(this.#url);
  }

  #build(): void {
    const { texts } = this;
    fill(this.#banners, ...banners(this.task, null, texts));
    const invitation = h("div", { class: "hints" }, icon(this.task.domain === "medical" ? "scan" : "camera"), h("p", { class: "hints-drop" }, texts.say("input.drop")));
    this.#stage.append(invitation, this.#image, this.#held, this.#video, this.#frame, this.#overlay);
    this.#stage.addEventListener("dragover", (event) => event.preventDefault());
    this.#stage.addEventListener("drop", (event) => {
      event.preventDefault();
      const file = event.dataTransfer?.files[0];
      if (file) void this.#answerFile(file);
    });
    this.#caption.textContent = texts.say("input.frame");
    const photo = this.#said.photo;
    const hints =
      photo.length > 0 &&
      h(
        "details",
        { class: "box", open: true },
        h("summary", {}, texts.say("input.whatTitle")),
        h("ul", {}, ...photo.map((line) => h("li", {}, line))),
      );
    fill(
      this.element,
      h("h1", { tabindex: "-1" }, this.#said.name),
      h("p", { class: "lead" }, this.#said.tells),
      this.#banners,
      h(
        "div",
        { class: "columns" },
        h("div", { class: "column" }, this.#stage, this.#caption, this.#buttons, this.#file, this.#trouble),
        h("div", { class: "column" }, this.#loading, this.#news, this.#answerBox, this.#spoken, hints, this.#about),
      ),
      h("p", { class: "privacy" }, icon("lock"), texts.say("app.privacy")),
    );
    this.#showButtons();
  }

  #showButtons(): void {
    const { texts } = this;
    const isLive = this.#stream !== null;
    const hasPicture = this.#stage.dataset["state"] !== "empty";
    fill(
      this.#buttons,
      isLive
        ? h("button", { type: "button", class: "button is-main", onclick: () => this.#hold() }, icon("hold"), texts.say("input.hold"))
        : h("button", { type: "button", class: "button is-main", onclick: () => this.#file.click() }, icon("camera"), texts.say(hasPicture ? "input.photoAgain" : "input.photo")),
      isLive
        ? h("button", { type: "button", class: "button", onclick: () => this.#endLive() }, icon("stop"), texts.say("input.stop"))
        : h("button", { type: "button", class: "button", disabled: !mayUseCamera(), onclick: () => void this.#startLive() }, icon("live"), texts.say("input.live")),
    );
    if (!mayUseCamera()) this.#buttons.append(h("p", { class: "fine" }, texts.say("camera.insecure")));
  }

  async #load(): Promise<void> {
    const { texts } = this;
    const { element, progress } = this.#waiting("load.model");
    fill(this.#loading, ...element);
    this.#loading.hidden = false;
    try {
      const { loaded, bundleJson } = await this.engine.load(this.base, this.task.task, progress);
      if (this.#isGone) return;
      this.#bundle = readBundle(bundleJson);
      this.#loaded = loaded;
      this.#panel = new AnswerPanel(this.#bundle, this.#said, texts);
      this.#loading.hidden = true;
      fill(this.#banners, ...banners(this.task, this.#bundle, texts));
      fill(this.#answerBox, this.#panel.element);
      fill(this.#overlay, this.#panel.overlay);
      fill(this.#about, aboutModel(this.#bundle, this.#said, loaded, texts));
      this.element.dataset["ready"] = "true";
      this.#placeFrame();
      this.onKept();
      if (loaded.isFresh) this.#showNews({ isNew: false, isGalleryAlone: false, keeping: loaded.keeping });
      else void this.#update();
    } catch (error) {
      if (this.#isGone) return;
      fill(this.#loading, ...this.#failed(`${texts.say("load.failed")} ${this.#inWords(error)}`, () => void this.#load()));
    }
  }

  /** Look for a newer model. The one that is ready answers meanwhile, and after it if that fails. */
  async #update(): Promise<void> {
    const { texts } = this;
    const { element, progress } = this.#waiting("load.update");
    fill(this.#news);
    try {
      const updated = await this.engine.update(this.base, this.task.task, (got, total) => {
        if (!this.#news.hasChildNodes()) fill(this.#news, ...element);
        progress(got, total);
      });
      if (this.#isGone) return;
      this.#showNews(updated);
      this.onKept();
    } catch (error) {
      if (this.#isGone) return;
      fill(this.#news);
      if (!navigator.onLine) return; // the bar on top says so
      fill(this.#news, ...this.#failed(`${texts.say("load.notUpdated")} ${this.#inWords(error)}`, () => void this.#update()));
    }
  }

  #showNews({ isNew, isGalleryAlone, keeping }: Updated): void {
    const { texts } = this;
    const isUnkept = keeping === "full" || keeping === "refused";
    fill(this.#news);
    if (isUnkept) this.#news.append(...this.#failed(texts.say(`keep.${keeping}`), () => void this.#update()));
    if (!isNew) return;
    const use = h("button", { type: "button", class: "button", onclick: () => this.#useNewer() }, texts.say(isGalleryAlone ? "load.useNewerGallery" : "load.useNewer"));
    this.#news.append(h("p", { class: "loading-title" }, texts.say(isGalleryAlone ? "load.newerGallery" : "load.newer")), use);
  }

  #useNewer(): void {
    fill(this.#news);
    this.#endLive();
    void this.#load();
  }

  /** What a download shows, and what moves it on. */
  #waiting(title: "load.model" | "load.update"): { element: HTMLElement[]; progress: Progress } {
    const { texts } = this;
    const bar = h("progress", { max: 1, value: 0, "aria-label": texts.say(title) });
    const line = h("p", { class: "fine" }, texts.say("load.start"));
    const progress = (got: number, total: number): void => {
      bar.value = got / total;
      const gaps = { loaded: texts.megabytes(got), total: texts.megabytes(total) };
      line.textContent = got < total ? texts.say("load.progress", gaps) : texts.say("load.start");
    };
    return { element: [h("p", { class: "loading-title" }, texts.say(title)), bar, line], progress };
  }

  #failed(words: string, retry: () => void): HTMLElement[] {
    const button = h("button", { type: "button", class: "button", onclick: retry }, this.texts.say("refusal.retry"));
    return [h("p", { class: "trouble", role: "alert" }, words), button];
  }

  #picked(): void {
    const file = this.#file.files?.[0];
    this.#file.value = "";
    if (file) void this.#answerFile(file);
  }

  /** The answer for a photo. A newer photo overtakes it. */
  async #answerFile(file: Blob): Promise<void> {
    const turn = ++this.#turn;
    this.#stopCamera();
    this.#complain(null);
    this.#panel?.wait("answer.working");
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = URL.createObjectURL(file);
    try {
      // Ask first, show then: what the model refuses is not shown as if it had been looked at.
      const { answer, preview } = await this.engine.answer(file);
      if (turn !== this.#turn) return preview?.close();
      if (preview) {
        this.#holdStill(preview, preview.width, preview.height);
        preview.close();
        this.#show("held");
      } else {
        this.#image.src = this.#url;
        this.#image.alt = this.texts.say("input.preview");
        await this.#image.decode().catch(() => undefined);
        this.#show("photo");
      }
      this.#speak(answer);
    } catch (error) {
      if (turn !== this.#turn) return;
      this.#show("empty");
      this.#panel?.wait("answer.waiting");
      this.#complain(this.#inWords(error));
    }
  }

  async #startLive(): Promise<void> {
    const turn = ++this.#turn;
    this.#complain(null);
    try {
      const stream = await openCamera(this.#video);
      if (turn !== this.#turn) {
        closeCamera(stream, this.#video);
        return;
      }
      this.#stream = stream;
    } catch (error) {
      if (turn === this.#turn) this.#complain(this.#inWords(error));
      return;
    }
    this.#panel?.wait("answer.working"); // what was drawn over a photo is not true of the camera
    this.#show("live");
    await this.#follow(turn);
  }

  /** Answer frames until the turn is over; a frame is taken only when the model is free. */
  async #follow(turn: number): Promise<void> {
    const pace = new Pace();
    const steady = new Steady();
    try {
      while (turn === this.#turn) {
        await nextFrame(this.#video);
        if (turn !== this.#turn) return;
        if (document.hidden || this.#video.videoWidth === 0) continue;
        const { answer } = await this.engine.answer(await grab(this.#video));
        if (turn !== this.#turn) return;
        const now = performance.now();
        this.#placeFrame();
        const told = this.#give(answer, pace.add(now));
        if (told && steady.add(told.gist, now)) this.#spoken.textContent = told.spoken;
      }
    } catch (error) {
      if (turn !== this.#turn) return;
      this.#endLive();
      this.#complain(this.#inWords(error));
    }
  }

  /** Keep the frame that is on screen, answer it, and stop the camera. */
  #hold(): void {
    this.#turn += 1;
    const turn = this.#turn;
    this.#holdStill(this.#video, this.#video.videoWidth, this.#video.videoHeight);
    this.#stopCamera();
    this.#show("held");
    void (async () => {
      try {
        const { answer } = await this.engine.answer(await createImageBitmap(this.#held));
        if (turn !== this.#turn) return;
        this.#speak(answer);
      } catch (error) {
        if (turn === this.#turn) this.#complain(this.#inWords(error));
      }
    })();
  }

  #holdStill(picture: CanvasImageSource, width: number, height: number): void {
    this.#held.width = width;
    this.#held.height = height;
    this.#held.getContext("2d")?.drawImage(picture, 0, 0);
    this.#held.setAttribute("role", "img");
    this.#held.setAttribute("aria-label", this.texts.say("input.preview"));
  }

  #endLive(): void {
    this.#turn += 1;
    this.#stopCamera();
    this.#show("empty");
    this.#panel?.wait("answer.waiting");
  }

  #stopCamera(): void {
    if (this.#stream) closeCamera(this.#stream, this.#video);
    this.#stream = null;
  }

  #show(state: "empty" | "photo" | "live" | "held"): void {
    this.#stage.dataset["state"] = state;
    this.#image.hidden = state !== "photo";
    this.#video.hidden = state !== "live";
    this.#held.hidden = state !== "held";
    if (state === "live") this.#video.setAttribute("aria-label", this.texts.say("input.previewLive"));
    this.#placeFrame();
    this.#showButtons();
  }

  /** Draw the square that the model sees. The picture is shown whole, in a square stage. */
  #placeFrame(): void {
    const state = this.#stage.dataset["state"];
    const [width, height] =
      state === "photo"
        ? [this.#image.naturalWidth, this.#image.naturalHeight]
        : state === "live"
          ? [this.#video.videoWidth, this.#video.videoHeight]
          : [this.#held.width, this.#held.height];
    const isWhole = this.#bundle?.preprocess.whole ?? true;
    this.#frame.hidden = state === "empty" || isWhole || !width || !height;
    this.#caption.hidden = this.#frame.hidden;
    if (this.#frame.hidden || !this.#bundle) return;
    const { resizePx, cropPx } = this.#bundle.preprocess;
    const share = (cropPx / resizePx) * (Math.min(width, height) / Math.max(width, height));
    this.#frame.style.width = this.#frame.style.height = `${(share * 100).toFixed(2)}%`;
  }

  #give(answer: Answer, rate: number | null): ReturnType<AnswerPanel["show"]> | null {
    return this.#panel && this.#loaded && this.#panel.show(answer, this.#loaded, rate);
  }

  /** Show the answer to a picture that stays, and read it out. */
  #speak(answer: Answer): void {
    this.#spoken.textContent = this.#give(answer, null)?.spoken ?? "";
  }

  #complain(words: string | null): void {
    this.#trouble.hidden = words === null;
    this.#trouble.textContent = words ?? "";
  }

  #inWords(error: unknown): string {
    if (error instanceof Refusal) return this.texts.say(error.key, error.facts);
    if (error instanceof CameraError) return this.texts.say(error.key as TextKey);
    return this.texts.say("refusal.runtime", { reason: String(error) });
  }
}
