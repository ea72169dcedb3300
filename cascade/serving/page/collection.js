// What the collection holds and what goes on in it: asked for again and again while it is seen.

import { Away, get, send, server } from "./api.js";
import { about, byId, bytes, counted, made, nameOf, number, percent, plain, say, shown, stageName } from "./words.js";

const SOON = 1500; // milliseconds until the next look, while something goes on
const LATER = 10000;
const AWAY = 2000;
const GROWING = 30000; // for how long a collection that has grown is taken to be growing
const SKIPPED = 100;

/** The button that says how large the collection is, and the sheet behind it. */
export class Collection {
  /** `seen(status, before)` is told of each status. */
  constructor({ seen, problem, signOut }) {
    this.status = null;
    this.seen = seen;
    this.problem = problem;
    this.timer = null;
    this.history = []; // of [milliseconds, images, encoded by the last stage]
    this.sheet = byId("collection");
    byId("collection-button").onclick = () => {
      this.sheet.showModal();
      this.look();
    };
    byId("close-collection").onclick = () => this.sheet.close();
    this.sheet.addEventListener("click", (event) => {
      if (event.target === this.sheet) this.sheet.close();
    });
    byId("start-refining").onclick = () => this.refine("POST", { share: Number(byId("refining-share").value) });
    byId("stop-refining").onclick = () => this.refine("DELETE");
    byId("add-files").onclick = () => byId("files").click();
    byId("files").onchange = () => this.add([...byId("files").files]);
    byId("skipped").addEventListener("toggle", () => byId("skipped").open && this.showSkipped(0));
    byId("more-skipped").onclick = () => this.showSkipped(byId("skipped-files").children.length);
    byId("sign-out").onclick = signOut;
    document.addEventListener("visibilitychange", () => this.look());
    server.addEventListener("away", () => this.plan(AWAY));
  }

  get stages() {
    return this.status?.stages.length ?? 2;
  }

  plan(milliseconds) {
    clearTimeout(this.timer);
    this.timer = document.hidden ? null : setTimeout(() => this.look(), milliseconds);
  }

  /** Ask now, and plan when to ask again. */
  async look() {
    clearTimeout(this.timer);
    if (document.hidden && this.status) return;
    let next = LATER;
    try {
      const status = await get("/status");
      const before = this.status;
      this.status = status;
      this.note(status);
      this.show(status);
      this.seen(status, before);
      if (this.isBusy(status)) next = SOON;
    } catch (error) {
      if (error instanceof Away) next = AWAY;
      else if (error.status === 401) return; // it goes on after signing in
      else if (!this.status) this.problem(error);
    }
    this.plan(next);
  }

  note(status) {
    const now = Date.now();
    this.history.push([now, status.images, status.stages.at(-1).encoded]);
    while (this.history.length > 2 && this.history[0][0] < now - GROWING) this.history.shift();
  }

  /** How many a second, lately, of one of the columns of the history. */
  rate(column) {
    const [from, to] = [this.history[0], this.history.at(-1)];
    return to[0] > from[0] ? ((to[column] - from[column]) * 1000) / (to[0] - from[0]) : 0;
  }

  isBusy(status) {
    return status.waiting > 0 || status.refining?.state === "working" || this.rate(1) > 0 || this.rate(2) > 0 || (!status.images && !document.hidden);
  }

  show(status) {
    const several = status.stages.length > 1;
    const last = status.stages.at(-1);
    const name = plain(status.collection) || "Photos";
    byId("name").textContent = name.replace(/\.cascade$/, "");
    const growing = this.rate(1) > 0 ? ` · ${this.rate(1) < 1 ? "growing" : `${number(Math.round(this.rate(1)))}/s`}` : "";
    byId("pill").textContent = `${counted(status.images, "photo")}${growing}${several && status.images ? ` · full tower ${percent(last.share)}` : ""}`;
    shown(byId("pill-share"), several && status.images > 0);
    byId("pill-share").value = last.share;
    byId("collection-button").classList.toggle("working", status.refining?.state === "working");

    shown(byId("sign-out"), status.token);
    byId("collection-name").textContent = name;
    byId("collection-images").textContent = `${counted(status.images, "photo")} can be searched${growing ? `, ${number(Math.round(this.rate(1) * 60))} more a minute lately` : ""}.`;
    this.showStages(status.stages);
    this.showRefining(status, several);
    this.showAdding(status);
    const skipped = Object.entries(status.skipped);
    const count = skipped.reduce((sum, [, of]) => sum + of, 0);
    shown(byId("skipped"), count > 0);
    byId("skipped-summary").textContent = `${counted(count, "skipped file")}`;
    byId("reasons").replaceChildren(...skipped.map(([reason, of]) => made("li", { textContent: `${number(of)} × ${plain(reason)}` })));
    const m = status.m.length ? `${number(status.m.at(-1))} candidates for the full tower · ` : "";
    byId("collection-facts").textContent = `${bytes(status.nbytes)} on disk, ${status.precision} · ${m}${status.waiting ? `${counted(status.waiting, "embedding")} being stored` : "everything is stored"}`;
  }

  showStages(stages) {
    const rows = stages.map((stage, at) => {
      const name = stageName(at, stages.length);
      const bar = made("progress", { max: 1, value: stage.share, attributes: { "aria-label": `${name}: share of the photos that it has encoded` } });
      const text = `${number(stage.encoded)} encoded, ${percent(stage.share)}`;
      return made("div", { className: "stage", title: plain(stage.name) }, made("span", { textContent: name }), bar, made("span", { className: "small", textContent: text }));
    });
    byId("stages").replaceChildren(...rows);
  }

  showRefining(status, several) {
    shown(byId("refining"), several);
    if (!several) return;
    const { refining } = status;
    const working = refining?.state === "working";
    shown(byId("start-refining"), !working);
    shown(byId("refining-share"), !working);
    shown(byId("stop-refining"), working);
    let text = "";
    if (working) {
      const rate = this.rate(2);
      const left = (refining.share ?? 1) * status.images - status.stages.at(-1).encoded;
      text = `Working: ${number(refining.encoded)} encoded since it was started`;
      if (rate > 0 && left > 0) text += `, ${about(left / rate)} to go`;
    } else if (refining) {
      text = `${plain(refining.state).replace(/^./, (mark) => mark.toUpperCase())}: ${number(refining.encoded)} encoded since it was started`;
    }
    const place = byId("refining-state");
    if (place.textContent !== text) place.textContent = text;
  }

  showAdding(status) {
    shown(byId("add-files"), status.uploads);
    byId("adding-how").replaceChildren(
      ...(status.uploads
        ? ["Files of this device are copied into the collection."]
        : ["On the computer of the collection, also while this page is open: ", made("code", { textContent: `python -m cascade.index PHOTOS --into ${plain(status.collection) || "photos.cascade"}` })]),
    );
  }

  async refine(method, request) {
    byId("refining-state").textContent = method === "POST" ? "Starting…" : "Stopping after this batch…";
    try {
      await send(method, "/refining", request);
    } catch (error) {
      byId("refining-state").textContent = error.message;
      return;
    }
    await this.look();
    say(byId("refining-state").textContent);
  }

  /** Send files one after the other; what isn't taken is named, with the reason. */
  async add(files) {
    const state = byId("adding-state");
    const problems = byId("adding-problems");
    problems.replaceChildren();
    byId("add-files").disabled = true;
    let added = 0;
    let known = 0;
    for (const [at, file] of files.entries()) {
      state.textContent = `Sending ${at + 1} of ${files.length}…`;
      try {
        if (file.size > this.status.longest_body) throw new Error(`it has ${bytes(file.size)}, at most ${bytes(this.status.longest_body)} are taken`);
        const answer = await send("POST", "/images", file);
        if (answer.new) added += 1;
        else known += 1;
      } catch (error) {
        problems.append(made("li", {}, made("b", { textContent: plain(file.name) }), `: ${error.message}`));
        if (error instanceof Away) break;
      }
    }
    state.textContent = `${counted(added, "photo")} added${known ? `, ${number(known)} were there already` : ""}.`;
    byId("add-files").disabled = false;
    byId("files").value = "";
    await this.look();
  }

  async showSkipped(start) {
    const list = byId("skipped-files");
    try {
      const { skipped, count } = await get(`/skipped?start=${start}&limit=${SKIPPED}`);
      if (!start) list.replaceChildren();
      list.append(...skipped.map(({ key, reason }) => made("li", {}, made("b", {}, made("bdi", { textContent: nameOf(key), title: plain(key) })), `: ${plain(reason)}`)));
      shown(byId("more-skipped"), list.children.length < count);
    } catch (error) {
      list.replaceChildren(made("li", { textContent: error.message }));
    }
  }
}
