// Hits and gallery images as a grid.

import { attentionOf } from "./api.js";
import { h, percent, worded } from "./dom.js";

const HOVER = 250; // ms before the attention map is asked for

/** A card of a hit, or of a gallery image without rank. `choose` makes it the picture; `lost` is
 * called if its thumbnail is gone. */
export function card(hit, state, choose, lost) {
  const words = describe(hit);
  const image = h("img", {
    src: `${hit.url}?side=320`,
    alt: words,
    width: 320, height: 320, loading: hit.rank > 8 ? "lazy" : "eager", decoding: "async",
    onerror: lost,
  });
  const name = hit.rank ? `Search with hit ${hit.rank}: ${words}` : `Search with this: ${words}`;
  const use = h("button", {
    type: "button", className: "shot", "aria-label": name, onclick: () => choose(hit.picture),
  }, image);
  const looked = state.present.length + state.absent.length + state.like.length > 0 && hit.rank;
  return h("li", { className: "card" },
    h("div", { className: "frame" }, use, looked ? eye(hit, state, image, use) : null),
    h("div", { className: "about" },
      hit.rank ? h("p", { className: "score" },
        h("span", { className: "rank" }, `${hit.rank}`),
        h("span", { className: "meter", "aria-hidden": "true" }, bar(hit.score)),
        h("span", {}, percent(hit.score))) : null,
      payload(hit),
      hit.requested && hit.requested.length ? marks(hit.requested) : null,
      known(hit)));
}

function describe(hit) {
  const guessed = Object.entries(hit.predicted || {}).map(([name, own]) => [name, [own.value]]);
  const values = Object.values({ ...Object.fromEntries(guessed), ...hit.known }).flat();
  return values.map(worded).join(", ") || hit.path;
}

function bar(share) {
  const own = h("span");
  own.style.setProperty("--chance", share);
  return own;
}

/** Each value that was asked for: whether this garment is as was asked, by label or as seen. */
function marks(requested) {
  return h("ul", { className: "marks" }, requested.map((one) => {
    const sure = one.verdict === "present" || one.verdict === "absent";
    const fits = one.wanted === (one.verdict === "present" || one.verdict === "predicted");
    const chance = one.wanted ? one.probability : 1 - one.probability;
    const name = worded(one.value.split(":").pop());
    const text = one.wanted ? name : `not ${name}`;
    return h("li", { className: fits ? "fits" : "fails" },
      h("span", { "aria-hidden": "true" }, fits ? "✓" : "✗"),
      h("span", { className: "hidden" }, fits ? "as asked: " : "not as asked: "),
      ` ${text}`,
      h("span", { className: "how" }, sure ? "known" : percent(chance)));
  }));
}

/** The first columns of the catalogue, the name as a headline. */
function payload(hit) {
  const columns = Object.entries(hit.payload || {});
  if (!columns.length) return null;
  const at = Math.max(0, columns.findIndex(([name]) => /^(name|title)$/i.test(name)));
  const [[, headline]] = columns.splice(at, 1);
  return h("div", { className: "payload" },
    h("p", { className: "headline", title: headline }, headline),
    columns.length ? h("dl", {}, columns.slice(0, 4).map(([name, text]) =>
      h("div", {}, h("dt", {}, worded(name)), h("dd", {}, text)))) : null);
}

function known(hit) {
  const values = Object.values(hit.known).flat();
  return values.length ? h("p", { className: "known" }, values.map(worded).join(" · ")) : null;
}

/** Shows where the model looked, while the picture is hovered or the button is pressed. */
function eye(hit, state, image, use) {
  const plain = image.src;
  let waiting = null;
  let pressed = false;
  const show = (on) => {
    clearTimeout(waiting);
    const source = on ? attentionOf(hit.picture, state) : plain;
    if (!image.src.endsWith(source)) image.src = source;
  };
  const button = h("button", {
    type: "button", className: "eye", "aria-pressed": "false",
    title: "Where the model looked",
    "aria-label": `Show where the model looked in hit ${hit.rank}`,
    onclick: () => {
      pressed = !pressed;
      button.setAttribute("aria-pressed", pressed);
      show(pressed);
    },
  }, "◉");
  use.addEventListener("pointerenter", (event) => {
    if (event.pointerType === "mouse") waiting = setTimeout(() => show(true), HOVER);
  });
  use.addEventListener("pointerleave", () => show(pressed));
  return button;
}
