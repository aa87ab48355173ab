// Why something cannot be answered, as a key of the texts; the words are in src/locales.

export type RefusalKey =
  | "refusal.empty"
  | "refusal.tooLarge"
  | "refusal.tooManyPixels"
  | "refusal.notAnImage"
  | "refusal.heic"
  | "refusal.otherFormat"
  | "refusal.aspect"
  | "refusal.scans"
  | "refusal.damaged"
  | "refusal.frames"
  | "refusal.deep"
  | "refusal.schema"
  | "refusal.bundle"
  | "refusal.hash"
  | "refusal.gallery"
  | "refusal.galleryOther"
  | "refusal.network"
  | "refusal.status"
  | "refusal.stalled"
  | "refusal.cut"
  | "refusal.notJson"
  | "refusal.runtime";

/** Something that the user can act on; anything else is a bug. */
export class Refusal extends Error {
  constructor(
    readonly key: RefusalKey,
    readonly facts: Record<string, string | number> = {},
    options?: ErrorOptions,
  ) {
    super(`${key} ${JSON.stringify(facts)}`, options);
    this.name = "Refusal";
  }
}
