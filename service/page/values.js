// The engine's reading of a picture, as chips to want and to refuse; and the filters.

import { byId, counted, h, percent, worded } from "./dom.js";
import * as states from "./state.js";

const FEW = 4; // values of an attribute that are shown before all are asked for

/** Draws the chips of all attributes; `changed` is called when one was clicked. Returns what shows
 * a state and a reading. */
export function makeValues(schema, changed) {
  const groups = schema.attributes.map((attribute) => group(attribute, changed));
  byId("values").replaceChildren(...groups.map((own) => own.element));
  return (state, tags) => {
    groups.forEach((own, number) => own.show(state, tags ? tags.attributes[number] : null));
    const count = state.present.length + state.absent.length + state.like.length;
    byId("wishes").textContent = count ? `${count} chosen` : "";
  };
}

function group(attribute, changed) {
  const siblings = attribute.values.map((value) => value.name);
  const chips = attribute.values.map((value) => {
    const chance = h("span", { className: "chance" });
    const sign = h("span", { className: "sign", "aria-hidden": "true" });
    const told = h("span", { className: "hidden" });
    const element = h(
      "button",
      {
        type: "button",
        className: "chip",
        onclick: () => changed((s) => states.turn(s, value.name, siblings, attribute.multi)),
      },
      sign, h("span", {}, worded(value.value)), chance, told,
    );
    return { ...value, element, chance, sign, told };
  });
  const name = attribute.name;
  const alike = h(
    "button",
    {
      type: "button",
      className: "alike",
      title: `Compare by ${worded(name)} only`,
      onclick: () => changed((s) => states.toggle(s, "like", name)),
    },
    "compare", h("span", { className: "hidden" }, ` by ${worded(name)}`),
  );
  const list = h("div", { className: "chips" });
  let all = false;
  const rest = h("button", { type: "button", className: "rest", onclick: () => open(!all) });
  const open = (now) => {
    all = now;
    element.classList.toggle("all", all);
    rest.setAttribute("aria-expanded", all);
    rest.textContent = all ? "fewer" : `all ${chips.length}`;
  };
  const heading = h("h3", { id: `of-${name}` }, worded(name));
  const element = h(
    "div",
    { className: "attribute", role: "group", "aria-labelledby": `of-${name}` },
    h("div", { className: "head" }, heading, alike), list, chips.length > FEW ? rest : null,
  );
  list.append(...chips.map((chip) => chip.element));
  open(false);
  let reading = null;
  return {
    element,
    show(state, tags) {
      const chances = tags ? tags.values.map((value) => value.chance) : null;
      const weight = (n) => (chances ? chances[n] : chips[n].images);
      if (reading !== tags || !list.dataset.sorted) {
        // Sorted only for another picture: chips do not move under the finger.
        reading = tags;
        list.dataset.sorted = "1";
        const order = chips.map((_, n) => n).sort((a, b) => weight(b) - weight(a));
        const focused = document.activeElement;
        order.forEach((n, place) => {
          list.append(chips[n].element);
          chips[n].place = place;
        });
        if (list.contains(focused)) focused.focus();
      }
      alike.setAttribute("aria-pressed", state.like.includes(name));
      chips.forEach((chip, n) => {
        const wanted = state.present.includes(chip.name);
        const refused = state.absent.includes(chip.name);
        chip.element.classList.toggle("wanted", wanted);
        chip.element.classList.toggle("refused", refused);
        chip.element.classList.toggle("few", chip.place < FEW || wanted || refused);
        chip.sign.textContent = wanted ? "+" : refused ? "−" : "";
        chip.told.textContent = wanted ? ", wanted" : refused ? ", refused" : "";
        chip.chance.textContent = chances ? percent(chances[n]) : "";
        chip.element.style.setProperty("--chance", chances ? chances[n] : 0);
      });
    },
  };
}

/** Draws the filters; `changed` as in `makeValues`. Returns what shows a state. */
export function makeFilters(schema, changed) {
  const boxes = [];
  const bounds = [];
  const lists = [
    ...schema.attributes.map(({ name, values }) => ({
      name,
      options: values.map(({ value, images }) => ({ value, images })),
    })),
    ...schema.columns
      .filter((column) => column.texts.length)
      .map(({ name, texts }) => ({
        name,
        options: texts.map(({ text, images }) => ({ value: text, images })),
      })),
  ];
  const folds = lists.map(({ name, options }) => {
    const there = options.filter((one) => one.images).sort((a, b) => b.images - a.images);
    const rows = there.map(({ value, images }) => {
      const word = `${name}=${value}`;
      const box = h("input", {
        type: "checkbox",
        onchange: () => changed((s) => states.toggle(s, "where", word)),
      });
      boxes.push({ box, word });
      const label = h("span", {}, worded(value));
      return h("label", { className: "check" }, box, label,
        h("span", { className: "number" }, counted(images)));
    });
    return fold(name, h("div", { className: "checks" }, ...rows));
  });
  const ranges = schema.columns.filter((column) => column.numeric).map((column) => {
    const input = (sign, label, limit) => {
      const start = `${column.name}${sign}`;
      const field = h("input", {
        type: "number", step: "any", placeholder: limit, inputMode: "decimal",
        onchange: () => changed((s) => states.bound(s, start, field.value)),
      });
      bounds.push({ field, start });
      return h("label", {}, h("span", {}, label), field);
    };
    return fold(column.name, h("div", { className: "range" },
      input(">=", "from", column.least), input("<=", "to", column.most)));
  });
  byId("filters").replaceChildren(...folds, ...ranges);
  return (state) => {
    boxes.forEach(({ box, word }) => (box.checked = state.where.includes(word)));
    bounds.forEach(({ field, start }) => {
      const own = state.where.find((one) => one.startsWith(start));
      if (document.activeElement !== field) field.value = own ? own.slice(start.length) : "";
    });
    byId("filtered").textContent = state.where.length ? `${state.where.length} set` : "";
    for (const element of byId("filters").children)
      if (element.querySelector("input:checked")) element.open = true;
  };
}

const fold = (name, content) =>
  h("details", { className: "filter" }, h("summary", {}, worded(name)), content);
