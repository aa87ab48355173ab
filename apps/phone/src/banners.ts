// What must be known before an answer is read.

import type { Bundle } from "./bundle.ts";
import { h, icon } from "./dom.ts";
import type { Task } from "./tasks.ts";
import type { TextKey, Texts } from "./texts.ts";

/** The banners of a task; more of them once its bundle is there. */
export function banners(task: Task, bundle: Bundle | null, texts: Texts): HTMLElement[] {
  const shown: HTMLElement[] = [];
  const add = (kind: string, title: TextKey, body: TextKey): void => {
    const line = h("p", {}, h("strong", {}, texts.say(title)), " ", texts.say(body));
    shown.push(h("div", { class: `banner is-${kind}`, "data-banner": kind }, icon("notice"), line));
  };
  if (task.domain === "medical" || bundle?.domain === "medical") {
    add("medical", "banner.medicalTitle", "banner.medical");
  }
  if (bundle ? bundle.dataSource === "sample" : task.is_sample) {
    add("sample", "banner.sampleTitle", "banner.sample");
  }
  if (bundle?.auditVerdict === "shortcut") add("audit", "banner.shortcutTitle", "banner.shortcut");
  if (bundle?.auditVerdict === "suspicious") add("audit", "banner.suspiciousTitle", "banner.suspicious");
  return shown;
}
