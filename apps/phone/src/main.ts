// The page: its header, its language and colours, and which view is shown (#/ or #/<task>).

import "./style.css";
import { fill, h, icon } from "./dom.ts";
import { Engine } from "./engine.ts";
import { homeView } from "./home_view.ts";
import { Refusal } from "./refusal.ts";
import { canKeep, fetchIndex, keptIndex, keptTasks } from "./store.ts";
import { TaskView } from "./task_view.ts";
import { readIndex, type Task, words } from "./tasks.ts";
import { chooseLanguage, LANGUAGES, type Language, Texts } from "./texts.ts";
import { watchForUpdates } from "./updates.ts";

const THEMES = ["auto", "light", "dark"] as const;
type Theme = (typeof THEMES)[number];
/** What the system wants, where the person chose nothing. */
const DARK = matchMedia("(prefers-color-scheme: dark)");

/** Two choices that are kept between visits; nothing else is. */
type Choice = "language" | "theme";

function recall(choice: Choice): string | null {
  try {
    return localStorage.getItem(`fieldlens.${choice}`);
  } catch {
    return null; // the browser keeps nothing
  }
}

function remember(choice: Choice, value: string): void {
  try {
    localStorage.setItem(`fieldlens.${choice}`, value);
  } catch {
    // The browser keeps nothing; the choice holds for this visit.
  }
}

interface InstallEvent extends Event {
  prompt(): Promise<unknown>;
}

class Page {
  readonly #base = new URL(".", location.href).href;
  readonly #engine = new Engine();
  readonly #header = h("header", { class: "top" });
  readonly #main = h("main", { id: "content" });
  readonly #notice = h("div", { class: "notice-bar", role: "status" });
  #texts = new Texts(chooseLanguage(recall("language"), navigator.languages));
  #theme: Theme = THEMES.find((theme) => theme === recall("theme")) ?? "auto";
  #tasks: readonly Task[] | null = null;
  #kept: ReadonlySet<string> = new Set();
  #view: TaskView | null = null;
  #install: InstallEvent | null = null;
  #applyUpdate: (() => void) | null = null;

  async start(): Promise<void> {
    const skip = h("a", { class: "skip", href: "#content" }, this.#texts.say("app.skip"));
    skip.addEventListener("click", (event) => {
      event.preventDefault(); // the address after # is the view's
      this.#main.querySelector<HTMLElement>("h1")?.focus();
    });
    fill(document.body, skip, this.#header, this.#notice, this.#main, ...document.body.querySelectorAll("svg#sheet"));
    addEventListener("hashchange", () => this.#show(true));
    DARK.addEventListener("change", () => this.#applyTheme());
    addEventListener("online", () => this.#showHeader());
    addEventListener("offline", () => this.#showHeader());
    addEventListener("beforeinstallprompt", (event) => {
      event.preventDefault();
      this.#install = event as InstallEvent;
      if (!this.#view) this.#show(false);
    });
    addEventListener("appinstalled", () => {
      this.#install = null;
      if (!this.#view) this.#show(false);
    });
    this.#applyTheme();
    this.#showHeader();
    void watchForUpdates((apply) => {
      this.#applyUpdate = apply;
      this.#showNotice();
    });
    await this.#loadTasks();
  }

  /** The list that is on the phone at once, and the server's as soon as it is there. */
  async #loadTasks(): Promise<void> {
    const kept = await keptIndex(this.#base);
    if (kept) await this.#useTasks(kept);
    try {
      const fresh = await fetchIndex(this.#base);
      if (JSON.stringify(fresh) !== JSON.stringify(kept)) await this.#useTasks(fresh);
    } catch (error) {
      if (kept) return; // it will do
      const refusal = error instanceof Refusal ? error : new Refusal("refusal.runtime", { reason: String(error) });
      const reason = this.#texts.say(refusal.key, refusal.facts);
      fill(
        this.#main,
        h("h1", { tabindex: "-1" }, this.#texts.say("home.title")),
        h("p", { class: "trouble", role: "alert" }, `${this.#texts.say("home.failed")} ${reason}`),
        h("button", { type: "button", class: "button", onclick: () => void this.#loadTasks() }, this.#texts.say("refusal.retry")),
      );
    }
  }

  async #useTasks(index: unknown): Promise<void> {
    this.#tasks = readIndex(index);
    this.#kept = await keptTasks(this.#base);
    if (!this.#view) this.#show(false);
  }

  #show(isMove: boolean): void {
    if (!this.#tasks) return;
    this.#view?.leave();
    this.#view = null;
    const slug = decodeURIComponent(location.hash.replace(/^#\/?/, ""));
    const task = this.#tasks.find((candidate) => candidate.task === slug);
    if (task) {
      const view = new TaskView(task, this.#engine, this.#texts, this.#base, () => void this.#learnKept());
      this.#view = view;
      fill(this.#main, view.element);
      document.title = `${words(task, this.#texts.language).name} · Fieldlens`;
    } else {
      const install = this.#install;
      const facts = {
        tasks: this.#tasks,
        kept: this.#kept,
        canKeep: canKeep(),
        install: install ? () => void install.prompt() : null,
      };
      fill(
        this.#main,
        slug !== "" && h("p", { class: "trouble", role: "alert" }, this.#texts.say("error.unknownTask")),
        homeView(facts, this.#texts),
      );
      document.title = "Fieldlens";
    }
    this.#showHeader();
    if (isMove) {
      scrollTo(0, 0);
      this.#main.querySelector<HTMLElement>("h1")?.focus({ preventScroll: true });
    }
  }

  async #learnKept(): Promise<void> {
    this.#kept = await keptTasks(this.#base);
    this.#showHeader();
  }

  #showHeader(): void {
    const texts = this.#texts;
    const isOnline = navigator.onLine;
    const isKept = navigator.serviceWorker?.controller != null && this.#kept.size > 0;
    const key = !isOnline ? "net.offline" : isKept ? "net.kept" : "net.online";
    fill(
      this.#header,
      h("a", { class: "brand", href: "#/" }, icon(this.#view ? "back" : "lens"), h("span", {}, "Fieldlens"), this.#view ? h("span", { class: "hidden" }, `: ${texts.say("app.home")}`) : null),
      h("span", { class: isOnline ? "net" : "net is-offline", "data-net": key }, texts.say(key)),
      this.#choice("app.language", LANGUAGES, texts.language, (language) => texts.nameOf(language), (language) => this.#setLanguage(language)),
      this.#choice("app.theme", THEMES, this.#theme, (theme) => texts.say(`theme.${theme}`), (theme) => {
        this.#theme = theme;
        remember("theme", theme);
        this.#applyTheme();
      }),
    );
  }

  #choice<T extends string>(
    key: "app.language" | "app.theme",
    values: readonly T[],
    chosen: T,
    name: (value: T) => string,
    choose: (value: T) => void,
  ): HTMLElement {
    const select = h(
      "select",
      { "aria-label": this.#texts.say(key), onchange: () => choose(select.value as T) },
      ...values.map((value) => h("option", { value, selected: value === chosen }, name(value))),
    );
    return h("span", { class: "choice" }, icon(key === "app.theme" ? "theme" : "language"), select);
  }

  #setLanguage(language: Language): void {
    remember("language", language);
    this.#texts = new Texts(language);
    document.documentElement.lang = language;
    this.#showNotice();
    this.#show(false);
    this.#header.querySelector<HTMLSelectElement>("select")?.focus();
  }

  #applyTheme(): void {
    document.documentElement.lang = this.#texts.language;
    document.documentElement.dataset["theme"] = this.#theme === "auto" ? (DARK.matches ? "dark" : "light") : this.#theme;
  }

  #showNotice(): void {
    const apply = this.#applyUpdate;
    fill(
      this.#notice,
      apply && h("span", {}, this.#texts.say("net.update"), " "),
      apply && h("button", { type: "button", class: "more", onclick: apply }, this.#texts.say("net.updateButton")),
    );
  }
}

void new Page().start();
