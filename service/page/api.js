// The service as the page asks it.

const TRIES = 4;

/** What the service refuses, with its own message. */
export class Trouble extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** JSON of an answer; waits where the service is busy. Throws `Trouble`. */
async function ask(path, options = {}, tries = TRIES) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble(0, "The service cannot be reached; is it running?");
  }
  if (response.ok) return response.json();
  if (response.status === 503 && tries > 1) {
    const seconds = Number(response.headers.get("Retry-After")) || 1;
    await new Promise((wake) => setTimeout(wake, 1000 * seconds));
    return ask(path, options, tries - 1);
  }
  const problem = await response.json().catch(() => ({}));
  throw new Trouble(response.status, problem.detail || `The service answers ${response.status}.`);
}

const post = (path, body, signal) =>
  ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });

export const schema = () => ask("/v1/schema");

export const tags = (picture) => post("/v1/tag", { picture });

export const query = (wish, signal) => post("/v1/query", wish, signal);

export function draw(count, seed, where, signal) {
  const words = new URLSearchParams({ count, seed });
  where.forEach((one) => words.append("where", one));
  return ask(`/v1/images?${words}`, { signal });
}

/** The id of a picture file, encoded. */
export async function send(file) {
  const form = new FormData();
  form.append("upload", file);
  return (await ask("/v1/pictures", { method: "POST", body: form })).picture;
}

export const pictureOf = (id) => `/v1/pictures/${id}`;

/** Address of a picture with the places that the model looks at under a state. */
export function attentionOf(id, state) {
  const words = new URLSearchParams();
  for (const name of ["present", "absent", "like"])
    state[name].forEach((value) => words.append(name, value));
  return `/v1/attention/${id}?${words}`;
}
