// Two choices that are kept between visits; nothing else is.

type Choice = "language" | "theme";

export function recall(choice: Choice): string | null {
  try {
    return localStorage.getItem(`fieldlens.${choice}`);
  } catch {
    return null; // the browser keeps nothing
  }
}

export function remember(choice: Choice, value: string): void {
  try {
    localStorage.setItem(`fieldlens.${choice}`, value);
  } catch {
    // The browser keeps nothing; the choice holds for this visit.
  }
}
