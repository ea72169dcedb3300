// One photo, large, with what is known of it.

import { reasonOf } from "./api.js";
import { thumbnail } from "./tiles.js";
import { byId, made, nameOf, percent, plain, say, shown, stageName } from "./words.js";

const LARGE = 1024;
const SWIPE = 50; // pixels

/** The dialog that shows a photo of a list of them. */
export class Viewer {
  constructor({ close, go, similar }) {
    this.dialog = byId("viewer");
    this.photos = [];
    this.at = -1;
    this.go = go;
    byId("close-viewer").onclick = close;
    byId("previous").onclick = () => this.step(-1);
    byId("next").onclick = () => this.step(1);
    byId("viewer-similar").onclick = () => similar(this.photos[this.at]);
    byId("copy-path").onclick = () => this.copy();
    this.dialog.addEventListener("cancel", (event) => {
      event.preventDefault(); // the address is what closes it
      close();
    });
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) close();
    });
    this.dialog.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -this.photos.length, End: this.photos.length };
      if (event.key in steps) {
        event.preventDefault();
        this.step(steps[event.key]);
      }
    });
    this.swipes(this.dialog.querySelector("figure"));
  }

  swipes(figure) {
    let from = null;
    figure.addEventListener("touchstart", (event) => {
      from = event.touches.length === 1 ? event.touches[0] : null;
    }, { passive: true });
    figure.addEventListener("touchend", (event) => {
      if (!from) return;
      const [x, y] = [event.changedTouches[0].clientX - from.clientX, event.changedTouches[0].clientY - from.clientY];
      if (Math.abs(x) > SWIPE && Math.abs(x) > 2 * Math.abs(y)) this.step(x > 0 ? -1 : 1);
    }, { passive: true });
  }

  step(by) {
    const next = Math.max(0, Math.min(this.photos.length - 1, this.at + by));
    if (next !== this.at) this.go(this.photos[next]);
  }

  /** Show one of these photos. */
  show(photos, id, stages) {
    this.photos = photos;
    this.at = photos.findIndex((photo) => photo.id === id);
    const photo = photos[this.at];
    if (!photo) return false;
    const name = nameOf(photo.key);
    byId("viewer-name").replaceChildren(made("bdi", { textContent: name }));
    byId("viewer-facts").replaceChildren(...this.facts(photo, stages));
    byId("viewer-open").href = photo.image;
    const save = new URL(photo.image, location.origin);
    save.searchParams.set("download", "true");
    byId("viewer-save").href = save.pathname + save.search;
    byId("previous").disabled = this.at === 0;
    byId("next").disabled = this.at === photos.length - 1;
    byId("copy-path").textContent = "Copy the path";
    shown(byId("copy-path"), Boolean(navigator.clipboard));
    this.load(photo, name);
    if (!this.dialog.open) this.dialog.showModal();
    else say(`${this.at + 1} of ${photos.length}: ${name}`);
    return true;
  }

  facts(photo, stages) {
    const facts = [["Path", made("bdi", { textContent: plain(photo.key) })]];
    if (typeof photo.score === "number") {
      facts.push(["Place", `${this.at + 1} of ${this.photos.length}`]);
      facts.push(["Similarity", photo.score.toFixed(4)]);
      facts.push(["Ranked by", stageName(photo.stage, stages).toLowerCase()]);
    }
    if (typeof photo.probability === "number") {
      facts.push(["In the full tower's top", `${percent(photo.probability)} likely`]);
    }
    return facts.map(([term, value]) => made("div", {}, made("dt", { textContent: term }), made("dd", {}, value)));
  }

  /** A small picture at once, then the upright large one, then the file itself if browsers know its kind. */
  async load(photo, name) {
    const image = byId("viewer-image");
    const problem = byId("viewer-problem");
    shown(problem, false);
    shown(image, true);
    image.alt = name;
    image.src = thumbnail(photo, 256);
    const still = () => this.photos[this.at] === photo && this.dialog.open;
    for (const place of [thumbnail(photo, LARGE), photo.image]) {
      const better = new Image();
      better.src = place;
      try {
        await better.decode();
        if (!still()) return;
        image.src = place;
      } catch {
        if (!still()) return;
        if (place !== photo.image) return this.explain(place, problem, image, still);
      }
    }
  }

  async explain(place, problem, image, still) {
    let reason = "The server doesn't answer.";
    try {
      reason = await reasonOf(await fetch(place));
    } catch {
      // it stays with that
    }
    if (!still()) return;
    problem.textContent = `This photo can't be shown: ${reason}.`;
    shown(problem, true);
    shown(image, false);
  }

  async copy() {
    try {
      await navigator.clipboard.writeText(this.photos[this.at].key);
      byId("copy-path").textContent = "Copied";
    } catch {
      byId("copy-path").textContent = "The browser doesn't allow it";
    }
  }

  close() {
    if (!this.dialog.open) return;
    this.dialog.close();
    byId("viewer-image").removeAttribute("src");
  }
}
