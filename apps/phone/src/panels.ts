// What each kind of task shows of an answer, in the frame of answer_panel.ts: one table, so that a new
// kind is a new line.

import { BoxesPanel } from "./boxes_panel.ts";
import { ClassesPanel } from "./classes_panel.ts";
import type { Said } from "./kinds.ts";
import { MaskPanel } from "./mask_panel.ts";
import { NeighboursPanel } from "./neighbours_panel.ts";
import type { KindPanel, Shown } from "./panel.ts";

type Panels = { readonly [K in Said["kind"]]: (shown: Shown) => KindPanel<Extract<Said, { kind: K }>> };

export const PANELS: Panels = {
  classification: (shown) => new ClassesPanel(shown),
  detection: (shown) => new BoxesPanel(shown),
  segmentation: (shown) => new MaskPanel(shown),
  embedding: (shown) => new NeighboursPanel(shown),
};
