// The page: what is looked for comes from the address, and every change goes there.

import * as api from "./api.js";
import { byId, counted, worded } from "./dom.js";
import { card } from "./hits.js";
import * as states from "./state.js";
import { makeFilters, makeValues } from "./values.js";

let state = states.read(location.search);
let schema = null;
let tags = null; // of `tags.picture`
let showValues = null;
let showFilters = null;
let asking = null; // AbortController of the search that goes on
let sent = null; // the file that was sent last, should the service forget it
let lostOnce = false;

/** Change the state by a function, write it to the address, search. */
function change(how, { replace = false } = {}) {
  const before = states.write(state);
  how(state);
  const now = states.write(state);
  if (now !== before) history[replace ? "replaceState" : "pushState"](null, "", now);
  refresh();
}

/** Show the state, and what is found for it. */
async function refresh() {
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  show();
  byId("results").setAttribute("aria-busy", "true");
  try {
    if (state.picture && tags?.picture !== state.picture) {
      const found = await api.tags(state.picture);
      if (signal.aborted) return;
      tags = found;
      show();
    }
    await (state.picture ? search(signal) : browse(signal));
    trouble(null);
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) return;
    if (error.status === 404 && state.picture && (await sendAgain())) return;
    trouble(error);
  } finally {
    if (!signal.aborted) byId("results").removeAttribute("aria-busy");
  }
}

async function search(signal) {
  const { picture, present, absent, like, where, keep, one, count } = state;
  const wish = { picture, present, absent, like, where, top_k: count };
  const found = await api.query({ ...wish, keep, one_per_item: one && schema.items }, signal);
  if (signal.aborted) return;
  const words = [
    ...present.map(worded), ...absent.map((name) => `not ${worded(name)}`),
    ...like.map((name) => `the same ${worded(name)}`),
  ];
  byId("title").textContent = words.length ? `Like it: ${words.join(", ")}` : "Like it";
  const passed = found.searched === found.gallery ? "images" : "images that pass";
  tell(found.hits.length, `The best ${found.hits.length} of ${counted(found.searched)} ${passed}`);
  const cards = found.hits.map((hit) => card(hit, state, choose, lost));
  byId("hits").replaceChildren(...cards);
  byId("more").hidden = found.hits.length < count || !states.hasMore(state);
  byId("more").textContent = "Show more";
}

async function browse(signal) {
  const found = await api.draw(24, state.seed, state.where, signal);
  if (signal.aborted) return;
  byId("title").textContent = "The gallery";
  const some = `${counted(found.images.length)} of ${counted(found.passed)} images, drawn at random`;
  tell(found.images.length, `${some}; click one to search with it`);
  byId("hits").replaceChildren(...found.images.map((image) => card(image, state, choose, lost)));
  byId("more").hidden = found.passed <= found.images.length;
  byId("more").textContent = "Draw others";
}

function tell(count, words) {
  byId("told").textContent = count ? words : "Nothing passes; take a filter away.";
}

function trouble(error) {
  const place = byId("trouble");
  place.hidden = !error;
  place.textContent = error ? error.message : "";
  if (error && !(error instanceof api.Trouble)) console.error(error);
}

/** Show what is asked for, before it is answered. */
function show() {
  const picture = byId("picture");
  byId("drop").classList.toggle("filled", Boolean(state.picture));
  picture.hidden = !state.picture;
  if (state.picture) {
    const source = api.pictureOf(state.picture);
    if (!picture.src.endsWith(source)) picture.src = source;
    picture.alt = "The picture that is searched with";
  } else {
    picture.removeAttribute("src");
  }
  byId("clear").hidden = !state.picture;
  byId("invite").hidden = Boolean(state.picture);
  byId("keep").value = state.keep ?? schema.keep;
  byId("choose").textContent = state.picture ? "Another" : "Choose a picture";
  byId("dial").hidden = byId("values-fold").hidden = !state.picture;
  byId("keep").disabled = !(state.present.length + state.absent.length);
  byId("one-label").hidden = !schema.items || !state.picture;
  byId("one").checked = state.one;
  showValues(state, tags?.picture === state.picture ? tags : null);
  showFilters(state);
}

function choose(picture) {
  change((s) => Object.assign(s, { picture, count: states.PAGE }));
  byId("results").focus({ preventScroll: true });
  scrollTo({ top: 0 });
}

/** A thumbnail is gone: the index has changed since it was named. */
function lost() {
  if (lostOnce) return;
  lostOnce = true;
  setTimeout(() => (lostOnce = false), 5000);
  refresh();
}

async function take(file) {
  if (!file) return;
  byId("drop").classList.add("busy");
  try {
    const picture = await api.send(file);
    sent = { picture, file };
    choose(picture);
  } catch (error) {
    trouble(error);
  } finally {
    byId("drop").classList.remove("busy");
    byId("file").value = "";
  }
}

async function sendAgain() {
  if (sent?.picture !== state.picture) return false;
  const { file } = sent;
  sent = null;
  await take(file);
  return true;
}

function listen() {
  byId("file").addEventListener("change", (event) => take(event.target.files[0]));
  byId("clear").addEventListener("click", () => {
    change((s) => Object.assign(s, states.read("")));
    byId("file").focus();
  });
  byId("more").addEventListener("click", () =>
    change((s) => (s.picture ? (s.count += states.PAGE) : (s.seed += 1)), { replace: true }));
  byId("one").addEventListener("change", (event) => change((s) => (s.one = event.target.checked)));
  byId("keep").addEventListener("input", (event) =>
    change((s) => (s.keep = Number(event.target.value)), { replace: true }));
  byId("share").addEventListener("click", async (event) => {
    const button = event.target;
    try {
      await navigator.clipboard.writeText(location.href);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copy it from the address bar";
    }
    setTimeout(() => (button.textContent = "Copy link"), 2000);
  });
  addEventListener("popstate", () => {
    const now = states.read(location.search);
    if (states.write(now) === states.write(state)) return; // a link within the page: keep the focus
    state = now;
    refresh();
  });
  addEventListener("paste", (event) => take([...(event.clipboardData?.files ?? [])][0]));
  let over = 0;
  const hover = (by) => {
    over = Math.max(0, over + by);
    byId("drop").classList.toggle("over", over > 0);
  };
  addEventListener("dragenter", () => hover(1));
  addEventListener("dragleave", () => hover(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    hover(-9);
    take(event.dataTransfer.files[0]);
  });
}

async function start() {
  try {
    schema = await api.schema();
  } catch (error) {
    trouble(error);
    return;
  }
  byId("gallery").textContent = `${schema.dataset}, ${counted(schema.images)} images`;
  showValues = makeValues(schema, change);
  showFilters = makeFilters(schema, change);
  const narrow = matchMedia("(max-width: 56rem)").matches; // hits come below the panel there
  byId("values-fold").open = !narrow;
  byId("filters-fold").open = !narrow && !state.picture;
  listen();
  await refresh();
}

start();
