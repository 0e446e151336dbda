// What is looked for: all of it is in the address, so that a search can be sent to a colleague.

const LISTS = { present: "want", absent: "not", like: "like", where: "where" };

export const PAGE = 12; // hits at first, and with every "show more"
const MOST = 192;

/** The state that an address tells. */
export function read(search) {
  const words = new URLSearchParams(search);
  const number = (name) => (words.has(name) ? Number(words.get(name)) : null);
  const keep = number("keep");
  const state = {
    picture: /^[0-9a-f]{64}$/.test(words.get("picture") || "") ? words.get("picture") : null,
    keep: keep !== null && keep >= 0 && keep <= 1 ? keep : null,
    one: words.get("one") === "1",
    count: Math.min(Math.max(number("count") || PAGE, PAGE), MOST),
    seed: Math.max(0, Math.trunc(number("seed") || 0)),
  };
  for (const [name, word] of Object.entries(LISTS)) state[name] = words.getAll(word);
  return state;
}

/** The address of a state, what is usual left out. */
export function write(state) {
  const words = new URLSearchParams();
  if (state.picture) words.set("picture", state.picture);
  for (const [name, word] of Object.entries(LISTS))
    state[name].forEach((value) => words.append(word, value));
  if (state.keep !== null) words.set("keep", state.keep);
  if (state.one) words.set("one", "1");
  if (state.count !== PAGE) words.set("count", state.count);
  if (state.seed) words.set("seed", state.seed);
  const text = words.toString();
  return text ? `?${text}` : "/";
}

export const hasMore = (state) => state.count < MOST;

const without = (list, one) => list.filter((other) => other !== one);

/** Wanted, then refused, then neither; a garment has one value of an attribute that is not `multi`,
 * so to want another takes the place of the first. */
export function turn(state, name, siblings, multi) {
  if (state.present.includes(name)) {
    state.present = without(state.present, name);
    state.absent = [...state.absent, name];
  } else if (state.absent.includes(name)) {
    state.absent = without(state.absent, name);
  } else {
    if (!multi) state.present = state.present.filter((other) => !siblings.includes(other));
    state.present = [...state.present, name];
  }
}

/** In a list, or no more. */
export function toggle(state, list, one) {
  const there = state[list].includes(one);
  state[list] = there ? without(state[list], one) : [...state[list], one];
}

/** One bound of a column of numbers, `price>=`, set or taken away. */
export function bound(state, start, value) {
  state.where = state.where.filter((one) => !one.startsWith(start));
  if (value !== "") state.where = [...state.where, start + value];
}
