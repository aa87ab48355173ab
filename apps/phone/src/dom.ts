// Elements without markup strings: what a model's file says can never become markup.

export type Child = Node | string | null | undefined | false;
type Attributes = Readonly<Record<string, string | boolean | number | ((event: Event) => void)>>;

/** An element; attributes that start with `on` are listeners. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false) element.setAttribute(name, String(value));
  }
  fill(element, ...children);
  return element;
}

/** Replace what an element holds. */
export function fill(element: Element, ...children: readonly Child[]): void {
  element.replaceChildren(...children.filter((child): child is Node | string => Boolean(child)));
}

const SVG = "http://www.w3.org/2000/svg";

/** An element of a drawing. */
export function svg<K extends keyof SVGElementTagNameMap>(tag: K, attributes: Readonly<Record<string, string | number>> = {}): SVGElementTagNameMap[K] {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return element;
}

/** A picture of the sheet in index.html; decoration, so hidden from screen readers. */
export function icon(name: string): SVGSVGElement {
  const drawing = svg("svg", { class: "icon", "aria-hidden": "true", focusable: "false" });
  drawing.append(svg("use", { href: `#icon-${name}` }));
  return drawing;
}
