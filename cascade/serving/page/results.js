// Runs a search and shows what it finds: the first stage's look at once, then all stages'.

import { Refused, searched } from "./api.js";
import { NOTHING, addressOf } from "./address.js";
import { fill, fillWaiting, someOf } from "./tiles.js";
import { byId, counted, made, number, plain, say, seconds, shown, stageName } from "./words.js";

export const SOME = 24; // photos to begin with, and tiles that wait
const STEP = 2; // "show more" asks for so many times as many
const MOST = 1000;

/** In base64 what the API takes. */
function encoded(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("The picture can't be read any more: choose it again."));
    reader.readAsDataURL(file);
  });
}

function described(search) {
  const parts = [];
  if (search.q) parts.push(`“${plain(search.q)}”`);
  if (search.picture) parts.push("your picture");
  if (search.like.length) parts.push(search.like.length === 1 ? "this photo" : "these photos");
  const without = search.without.map((text) => `“${plain(text)}”`).join(", ");
  return parts.join(" and ") + (without ? ` without ${without}` : "");
}

/** The part of the page that shows photos. */
export class Results {
    /** `stages()` is how many there are; `open`, `similar`, `more`, `found` and `problem` are told. */
  constructor({ stages, open, similar, more, found, problem }) {
    this.stages = stages;
    this.told = { open, similar, found, problem };
    this.shown = []; // of each list its photos
    this.walked = -1; // the list of which a photo was opened
    this.last = null; // the events of the search that has ended
    this.failed = null; // why the last one didn't
    this.running = null;
    this.search = NOTHING;
    byId("show-more").onclick = () => more(Math.min(MOST, this.search.k * STEP));
  }

  /** The photos among which one is looked at: those of the list where it was opened, or of any that has it. */
  photosWith(id) {
    const lists = [this.shown.at(this.walked), ...this.shown.toReversed()];
    return lists.find((photos) => photos?.some((photo) => photo.id === id)) ?? [];
  }

  /** The list of which a photo was opened last, by default the one that counts. */
  get list() {
    const lists = [...byId("columns").querySelectorAll(".grid")];
    return lists.at(this.walked) ?? lists.at(-1);
  }

  /** Lists of tiles, one beside the other. */
  columns(...titles) {
    const columns = byId("columns");
    columns.className = titles.length > 1 ? "two" : "one";
    const old = [...columns.querySelectorAll("section")];
    const same = old.length === titles.length && old.every((each, at) => each.getAttribute("aria-label") === titles[at]);
    if (!same) {
      columns.replaceChildren(
        ...titles.map((title) =>
          made("section", { attributes: { "aria-label": title } }, ...(titles.length > 1 ? [made("h2", { textContent: title })] : []), made("ol", { className: "grid" })),
        ),
      );
    }
    return [...columns.querySelectorAll(".grid")];
  }

  /** Fill a list. `before(id)` is where a photo was in the first stage's. */
  fill(at, list, photos, before) {
    this.shown[at] = photos;
    fill(list, photos, {
      before,
      open: (photo) => {
        this.walked = at;
        this.told.open(photo);
      },
      similar: this.told.similar,
      address: (photo) => addressOf({ ...this.search, photo: photo.id }),
    });
  }

  busy(text) {
    byId("results").setAttribute("aria-busy", text !== null);
    shown(byId("looking"), text !== null);
    byId("looking-text").textContent = text ?? "";
  }

  clear() {
    this.running?.abort();
    this.running = null;
    this.last = null;
    this.failed = null;
    shown(byId("steps"), false);
    shown(byId("show-more"), false);
    shown(byId("message"), false);
    byId("summary").textContent = "";
  }

  /** Search, and show what comes. `again`: the same is looked for, so what is shown stays till then. */
  async run(search, again = false) {
    this.clear();
    const running = new AbortController();
    this.running = running;
    this.search = search;
    document.title = `${described(search)} – photo search`;
    byId("summary").textContent = described(search);
    this.busy("Looking…");
    const lists = this.lists(search);
    if (!again) {
      this.shown = [];
      this.walked = -1;
      for (const list of lists) fillWaiting(list, Math.min(search.k, SOME));
    }
    const request = { k: search.k, without: search.without, like: search.like, refined: search.refined };
    if (search.q) request.text = search.q;
    if (search.m !== null) request.m = search.m;
    try {
      if (search.picture) request.image = await encoded(search.picture);
      let first = null;
      for await (const event of searched(request, running.signal)) {
        if (event.event === "first") {
          first = event;
          this.showFirst(event, again && !search.compare);
        } else {
          this.showFinal(event, first);
        }
      }
    } catch (error) {
      if (error.name === "AbortError" || this.running !== running) return;
      this.fail(error);
    } finally {
      if (this.running === running) {
        this.running = null;
        this.busy(null);
      }
    }
  }

  lists(search) {
    return search.compare && this.stages() > 1 ? this.columns("First stage", "Cascade") : this.columns("Photos");
  }

  showFirst(event, hidden) {
    if (!hidden) this.fill(0, this.lists(this.search)[0], event.hits);
    this.steps(event);
    this.busy("A first look. The full tower is looking at the best…");
    say(`A first look: ${counted(event.hits.length, "photo")}.`);
  }

  showFinal(event, first) {
    this.last = { event, first };
    this.draw(this.search);
    this.steps(event);
    const more = event.hits.length === this.search.k && this.search.k < MOST;
    shown(byId("show-more"), more);
    if (!event.hits.length) this.message("No photos yet", "The collection is empty: index some photos, and search again.");
    else if (event.matches === false) this.message("Nothing in here matches well", "These photos come closest.");
    const doubt = event.matches === false ? "Nothing in here matches well: " : "";
    say(`${doubt}${counted(event.hits.length, "photo")} for ${described(this.search)}.`);
    this.told.found();
  }

  /** Show once more what was found, perhaps side by side. */
  draw(search) {
    this.search = search;
    if (!this.last) return;
    const { event, first } = this.last;
    const lists = first ? this.lists(search) : this.columns("Photos");
    this.shown = [];
    this.walked = -1;
    if (lists.length > 1) {
      const before = new Map(first.hits.map((hit, place) => [hit.id, place]));
      this.fill(0, lists[0], first.hits);
      this.fill(1, lists[1], event.hits, (id) => before.get(id) ?? -1);
    } else {
      this.fill(0, lists[0], event.hits);
    }
  }

  /** What each step took: as numbers, and as a bar of their shares. */
  steps(event) {
    const stages = this.stages();
    const parts = [["Query", event.embedding_seconds, "", "query"]];
    for (const step of event.steps) {
      const name = stageName(step.stage, stages);
      const now = step.encoded ? `, ${number(step.encoded)} of them new` : "";
      const text = `${number(step.images)} ranked${now}`;
      parts.push([name, step.encoding_seconds + step.ranking_seconds, text, step.stage ? "later" : "first"]);
    }
    const total = made("li", { className: "total" }, made("b", { textContent: seconds(event.seconds) }), " in all");
    byId("steps").replaceChildren(
      ...parts.map(([name, took, text, kind]) => {
        const item = made("li", { className: kind }, made("span", { className: "what", textContent: name }), " ", made("b", { textContent: seconds(took) }), made("span", { className: "detail", textContent: text }));
        item.style.setProperty("--share", Math.max(took / event.seconds, 0.01));
        return item;
      }),
      total,
    );
    shown(byId("steps"), true);
  }

  message(title, text, code = null) {
    const parts = [made("h2", { textContent: title }), made("p", { textContent: text })];
    if (code) parts.push(made("pre", {}, made("code", { textContent: code })));
    byId("message").replaceChildren(...parts);
    shown(byId("message"), true);
  }

  fail(error) {
    this.failed = error;
    this.shown = [];
    this.columns("Photos")[0].replaceChildren();
    if (error instanceof Refused && error.status !== 401) {
      this.message("Nothing was looked for", "Change the search, or remove what it has, and try again.");
    }
    this.told.problem(error);
  }

  /** What there is before anything is looked for. */
  async home(status) {
    this.clear();
    this.search = NOTHING;
    this.shown = [];
    this.walked = -1;
    document.title = "Photo search";
    const [list] = this.columns("Photos");
    if (!status) {
      list.replaceChildren();
      return;
    }
    if (!status.images) {
      list.replaceChildren();
      this.message("No photos yet", "Index some, and they show up here while that goes on:", `python -m cascade.index PHOTOS --into ${plain(status.collection) || "photos.cascade"}`);
      return;
    }
    this.count(status);
    fillWaiting(list, Math.min(SOME, status.images));
    const running = new AbortController();
    this.running = running;
    try {
      const photos = await someOf(status.images, SOME);
      if (this.running !== running) return;
      this.fill(0, list, photos);
      this.told.found();
    } catch (error) {
      if (this.running === running) this.fail(error);
    }
  }

  /** Say how many there are to begin with. */
  count(status) {
    byId("summary").textContent = status.images > SOME ? `Some of ${counted(status.images, "photo")}` : counted(status.images, "photo");
  }
}
