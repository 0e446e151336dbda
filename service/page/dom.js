// Elements without markup: texts of the catalogue are only ever text.

/** An element with properties (`on…` listens, `data`, `aria-…`) and children, null left out. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && !name.startsWith("aria")) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

export const percent = (share) => `${Math.round(100 * share)} %`;

export const counted = (number) => number.toLocaleString("en");

/** `casual-shoes` as a person writes it. */
export const worded = (name) => name.replace(/[-_]+/g, " ");
