// A grid of thumbnails: what a tile shows, how the arrow keys go through them, how they move.

import { get, reasonOf } from "./api.js";
import { icon, made, nameOf, percent } from "./words.js";

const QUIET = matchMedia("(prefers-reduced-motion: reduce)");
const TRIES = 5;

/** The place of a thumbnail whose longer edge has so many pixels. */
export function thumbnail(photo, size) {
  const url = new URL(photo.thumbnail, location.origin);
  url.searchParams.set("size", size);
  return url.pathname + url.search;
}

/** What is wrong with a thumbnail that doesn't come; where the server is only busy, it is tried again. */
async function explain(image, frame, photo, tries = 0) {
  let answer;
  try {
    answer = await fetch(thumbnail(photo, 256));
  } catch {
    answer = null; // the server is away: the page says so elsewhere
  }
  if ((answer?.ok || answer?.status === 503) && tries < TRIES) {
    setTimeout(() => {
      image.onerror = () => explain(image, frame, photo, tries + 1);
      image.src = thumbnail(photo, 256);
    }, 1000);
    return;
  }
  const reason = answer ? await reasonOf(answer) : "It can't be loaded.";
  image.remove();
  frame.append(made("span", { className: "broken", textContent: reason }));
}

/** How a photo stands in another list: where it came from. */
function moved(place, before) {
  if (before === undefined) return null;
  if (before === -1) return ["new", "not among the first stage's"];
  if (before === place) return null;
  const steps = Math.abs(before - place);
  const where = before > place ? "up" : "down";
  return [where, `${where} ${steps} from place ${before + 1}`];
}

function tileOf(photo, place, options) {
  const name = nameOf(photo.key);
  const image = made("img", {
    alt: "",
    loading: place < 12 ? "eager" : "lazy",
    decoding: "async",
    width: 256,
    height: 256,
    draggable: false,
  });
  const frame = made("span", { className: "frame" }, image);
  image.onerror = () => explain(image, frame, photo);
  image.srcset = `${thumbnail(photo, 256)} 1x, ${thumbnail(photo, 512)} 2x`;
  image.src = thumbnail(photo, 256);
  const said = [`${place + 1}: ${name}`];
  const facts = made("span", { className: "facts" });
  const change = moved(place, options.before?.(photo.id));
  if (change) {
    const [kind, text] = change;
    const marks = { new: "new", up: "▲", down: "▼" };
    const steps = kind === "new" ? "" : ` ${text.split(" ")[1]}`;
    facts.append(made("span", { className: `change ${kind}`, textContent: marks[kind] + steps, title: text }));
    said.push(text);
  }
  if (typeof photo.probability === "number") {
    const text = percent(photo.probability);
    facts.append(made("span", { className: "chance", textContent: text, title: `${text} likely to be in the full tower's top` }));
    said.push(`${text} likely`);
  } else if (typeof photo.score === "number") {
    facts.append(made("span", { textContent: photo.score.toFixed(3), title: "cosine similarity" }));
    said.push(`score ${photo.score.toFixed(3)}`);
  }
  const link = made(
    "a",
    {
      className: "open",
      href: options.address(photo),
      tabIndex: -1,
      draggable: false,
      attributes: { "aria-label": said.join(", ") },
      onclick: (event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey) return;
        event.preventDefault();
        options.open(photo);
      },
    },
    frame,
    made("span", { className: "caption" }, made("bdi", { className: "name", textContent: name, title: name }), facts),
  );
  const similar = made(
    "button",
    {
      className: "similar",
      type: "button",
      tabIndex: -1,
      title: "More like this",
      attributes: { "aria-label": `More like ${name}` },
      onclick: () => options.similar(photo),
    },
    icon("similar"),
  );
  const tile = made("li", { className: "tile" }, link, similar);
  tile.dataset.id = photo.id;
  return tile;
}

/** Fill a list with photos. Those that are there already move to their new places. */
export function fill(list, photos, options) {
  const before = new Map([...list.children].map((tile) => [tile.dataset.id, tile]));
  const places = new Map([...before].map(([id, tile]) => [id, tile.getBoundingClientRect()]));
  const current = list.querySelector("a[tabindex='0']")?.closest("li")?.dataset.id;
  const focused = list.contains(document.activeElement) ? document.activeElement.closest("li")?.dataset.id : null;
  const tiles = photos.map((photo, place) => {
    const tile = tileOf(photo, place, options);
    const old = before.get(String(photo.id))?.querySelector("img");
    if (old && old.getAttribute("src") === tile.querySelector("img")?.getAttribute("src")) {
      tile.querySelector("img").replaceWith(old); // it is loaded: no flicker
    }
    return tile;
  });
  list.replaceChildren(...tiles);
  choose(list, tiles.find((tile) => tile.dataset.id === current) ?? tiles[0], false);
  if (focused !== null) {
    const tile = tiles.find((each) => each.dataset.id === focused) ?? tiles[0];
    tile?.querySelector("a").focus({ preventScroll: true });
  }
  if (!QUIET.matches && places.size) move(tiles, places);
}

function move(tiles, places) {
  for (const tile of tiles) {
    const from = places.get(tile.dataset.id);
    const to = tile.getBoundingClientRect();
    if (to.top > innerHeight * 2) break;
    if (!from) {
      if (tile.animate) tile.animate([{ opacity: 0 }, { opacity: 1 }], { duration: 250 });
    } else if (from.left !== to.left || from.top !== to.top) {
      const step = `translate(${from.left - to.left}px, ${from.top - to.top}px)`;
      tile.animate([{ transform: step }, { transform: "none" }], { duration: 300, easing: "cubic-bezier(.2,.8,.2,1)" });
    }
  }
}

/** Tiles that are still to come. */
export function fillWaiting(list, count) {
  const tiles = Array.from({ length: count }, () =>
    made("li", { className: "tile waiting" }, made("span", { className: "frame" })),
  );
  list.replaceChildren(...tiles);
}

/** Make a tile the one that the Tab key reaches. */
function choose(list, tile, focus = true) {
  for (const each of list.querySelectorAll("[tabindex='0']")) each.tabIndex = -1;
  if (!tile) return;
  for (const each of tile.querySelectorAll("a, button")) each.tabIndex = 0;
  if (focus) tile.querySelector("a").focus();
}

/** Focus the tile of a photo, or the first one. */
export function focusOn(list, id = null) {
  const tiles = [...(list?.children ?? [])].filter((tile) => tile.dataset.id);
  const tile = tiles.find((each) => each.dataset.id === String(id)) ?? tiles[0];
  if (tile) choose(list, tile);
  return Boolean(tile);
}

/** The arrow keys go from tile to tile, in this list and in those beside it. */
export function onArrows(columns, leave) {
  columns.addEventListener("keydown", (event) => {
    const tile = event.target.closest?.(".tile");
    if (!tile || event.ctrlKey || event.metaKey || event.altKey) return;
    const list = tile.parentElement;
    const lists = [...columns.querySelectorAll(".grid")];
    const tiles = [...list.children];
    const at = tiles.indexOf(tile);
    const wide = tiles.filter((each) => each.offsetTop === tiles[0].offsetTop).length;
    const beside = (step) => {
      const other = lists[lists.indexOf(list) + step];
      return other?.children[Math.min(at, other.children.length - 1)];
    };
    const steps = {
      ArrowRight: () => ((at + 1) % wide || lists.length === 1 ? tiles[at + 1] : (beside(1) ?? tiles[at + 1])),
      ArrowLeft: () => (at % wide || lists.length === 1 ? tiles[at - 1] : (beside(-1) ?? tiles[at - 1])),
      ArrowDown: () => tiles[at + wide] ?? (at < tiles.length - (tiles.length % wide || wide) ? tiles.at(-1) : undefined),
      ArrowUp: () => tiles[at - wide],
      Home: () => tiles[0],
      End: () => tiles.at(-1),
    };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const next = steps[event.key]();
    if (next) choose(next.parentElement, next);
    else if (event.key === "ArrowUp") leave();
  });
  columns.addEventListener("focusin", (event) => {
    const tile = event.target.closest?.(".tile");
    if (tile && tile.querySelector("a")?.tabIndex === -1) choose(tile.parentElement, tile, false);
  });
}

/** Photos from all over the collection, to begin with. */
export async function someOf(images, limit) {
  const step = Math.max(1, Math.floor(images / limit));
  const start = Math.floor(Math.random() * step);
  return (await get(`/images?start=${start}&step=${step}&limit=${limit}`)).images;
}
