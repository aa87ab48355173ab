// All tasks, by domain.

import { h, icon } from "./dom.ts";
import { DOMAINS, domainOf, type Task, words } from "./tasks.ts";
import type { Texts } from "./texts.ts";

export interface HomeFacts {
  readonly tasks: readonly Task[];
  readonly kept: ReadonlySet<string>;
  readonly canKeep: boolean;
  /** Ask the browser to install the page; null where it does not offer that. */
  readonly install: (() => void) | null;
}

export function homeView(facts: HomeFacts, texts: Texts): HTMLElement {
  const sections = DOMAINS.map((domain) => {
    const tasks = facts.tasks.filter((task) => domainOf(task) === domain);
    if (tasks.length === 0) return null;
    const id = `domain-${domain}`;
    return h(
      "section",
      { class: `domain is-${domain}`, "aria-labelledby": id },
      h("h2", { id }, texts.say(`domain.${domain}`)),
      h("ul", { class: "cards" }, ...tasks.map((task) => h("li", {}, card(task, facts, texts)))),
    );
  });
  return h(
    "div",
    { class: "home" },
    h("h1", { tabindex: "-1" }, texts.say("home.title")),
    h("p", { class: "lead" }, texts.say("app.tagline")),
    facts.tasks.length === 0 && h("p", { class: "trouble" }, texts.say("home.none")),
    ...sections,
    facts.install &&
      h(
        "div",
        { class: "install box" },
        h("p", {}, texts.say("home.installHint")),
        h("button", { type: "button", class: "button", onclick: facts.install }, texts.say("home.install")),
      ),
    h("p", { class: "privacy" }, icon("lock"), texts.say("app.privacy")),
    !facts.canKeep && h("p", { class: "fine" }, texts.say("net.notKept")),
    h("p", { class: "fine" }, h("a", { href: "licences.txt" }, texts.say("home.licences"))),
  );
}

function card(task: Task, facts: HomeFacts, texts: Texts): HTMLElement {
  const said = words(task, texts.language);
  const isKept = facts.kept.has(task.task);
  return h(
    "a",
    { class: "card", href: `#/${task.task}`, "data-task": task.task },
    h("span", { class: "card-icon" }, icon(domainOf(task))),
    h(
      "span",
      { class: "card-text" },
      h("span", { class: "card-name" }, said.name),
      h("span", { class: "card-tells" }, said.tells),
      h(
        "span",
        { class: "tags" },
        isKept
          ? h("span", { class: "tag is-kept" }, icon("check"), texts.say("home.onPhone"))
          : h("span", { class: "tag" }, texts.say("home.download", { megabytes: texts.megabytes(task.size_bytes) })),
        task.is_sample && h("span", { class: "tag is-sample" }, texts.say("home.sample")),
      ),
    ),
    icon("next"),
  );
}
