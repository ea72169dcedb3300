// The search that the address bar holds, so that a link or the back button gives it again.

/**
 * A search. `picture` is a file of the person who searches; it stays in this tab, in no address.
 * `photo` is the id of the one that is looked at.
 */
export const NOTHING = Object.freeze({
  q: "",
  without: [],
  like: [],
  picture: null,
  k: 24,
  m: null,
  refined: false,
  compare: false,
  photo: null,
});

/** As many candidates as each search needs, in place of a number of them. */
export const AUTO = "auto";

const pictures = new Map(); // by the name that history keeps for them

function whole(text, least, most, otherwise) {
  const value = /^\d{1,18}$/.test(text ?? "") ? Number(text) : NaN;
  return value >= least && value <= most ? value : otherwise;
}

/** The search of the address as it is now. */
export function read() {
  const given = new URLSearchParams(location.search);
  const ids = given.getAll("like").map((text) => whole(text, 0, Number.MAX_SAFE_INTEGER, null));
  return {
    ...NOTHING,
    q: (given.get("q") ?? "").trim().slice(0, 1000),
    without: given.getAll("without").filter((text) => text.trim()).slice(0, 8),
    like: ids.filter((id) => id !== null).slice(0, 8),
    picture: pictures.get(history.state?.picture) ?? null,
    k: whole(given.get("k"), 1, 1000, NOTHING.k),
    m: given.get("m") === AUTO ? AUTO : whole(given.get("m"), 1, 1000, null),
    refined: given.get("refined") === "1",
    compare: given.get("compare") === "1",
    photo: whole(given.get("photo"), 0, Number.MAX_SAFE_INTEGER, null),
  };
}

/** Whether the address was left with a picture that this tab no longer has. */
export function pictureIsLost() {
  return Boolean(history.state?.picture) && !pictures.has(history.state.picture);
}

export function addressOf(search) {
  const parts = new URLSearchParams();
  if (search.q) parts.set("q", search.q);
  for (const text of search.without) parts.append("without", text);
  for (const id of search.like) parts.append("like", id);
  if (search.k !== NOTHING.k) parts.set("k", search.k);
  if (search.m !== null) parts.set("m", search.m);
  if (search.refined) parts.set("refined", "1");
  if (search.compare) parts.set("compare", "1");
  if (search.photo !== null) parts.set("photo", search.photo);
  const text = parts.toString();
  return text ? `/?${text}` : "/";
}

/** Write a search into the address; `replace`: without a step for the back button. */
export function write(search, { replace = false, opened = false } = {}) {
  let name = null;
  if (search.picture) {
    name = [...pictures].find(([, file]) => file === search.picture)?.[0];
    name ??= `${Date.now()} ${Math.random()}`;
    pictures.set(name, search.picture);
  }
  const state = { picture: name, opened };
  if (replace) history.replaceState(state, "", addressOf(search));
  else history.pushState(state, "", addressOf(search));
}

export function isEmpty(search) {
  return !search.q && !search.like.length && !search.picture;
}

/** Whether the same is looked for. */
export function sameQuery(one, other) {
  const of = ({ q, without, like }) => JSON.stringify([q, without, like]);
  return of(one) === of(other) && one.picture === other.picture;
}

/** Whether two searches bring the same photos; what is looked at, and how, doesn't count. */
export function sameHits(one, other) {
  const of = ({ k, m, refined }) => JSON.stringify([k, m, refined]);
  return sameQuery(one, other) && of(one) === of(other);
}
