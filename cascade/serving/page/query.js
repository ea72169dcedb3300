// What is looked for, as the person sees and changes it: words, chips, options, a picture.

import { AUTO } from "./address.js";
import { Refused } from "./api.js";
import { byId, bytes, icon, made, plain, shown } from "./words.js";

/** The controls of a search. */
export class Query {
  /** `submit(parts)` and `change(parts)` are told what of the search is to be other. */
  constructor({ submit, change, problem, limit }) {
    this.change = change;
    this.problem = problem;
    this.limit = limit;
    this.search = null;
    this.preview = null;
    byId("search").addEventListener("submit", (event) => {
      event.preventDefault();
      submit({ q: byId("q").value.trim(), ...this.without() });
    });
    byId("add-without").onclick = () => this.addWithout();
    byId("without").addEventListener("keydown", (event) => {
      if (event.key === "Enter") {
        event.preventDefault();
        this.addWithout();
      }
    });
    byId("options").addEventListener("submit", (event) => event.preventDefault());
    byId("compare").onclick = () => change({ compare: !this.search.compare });
    byId("k").onchange = () => change({ k: Number(byId("k").value) });
    byId("refined").onchange = () => change({ refined: byId("refined").checked });
    byId("m").onchange = () => {
      if (byId("m").reportValidity()) change({ m: byId("m").value ? Number(byId("m").value) : null });
    };
    byId("auto").onchange = () => change({ m: byId("auto").checked ? AUTO : null });
    byId("choose").onclick = () => byId("picture").click();
    byId("picture").onchange = () => {
      this.take(byId("picture").files);
      byId("picture").value = ""; // the same file may be chosen again
    };
    this.drops();
    document.addEventListener("paste", (event) => {
      if (event.clipboardData.files.length) this.take(event.clipboardData.files);
    });
    document.addEventListener("click", (event) => {
      const options = byId("more-options");
      if (options.open && !options.contains(event.target)) options.open = false;
    });
    byId("more-options").addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      byId("more-options").open = false;
      byId("more-options").querySelector("summary").focus();
    });
  }

  /** What was typed as not wanted, also if "Add" wasn't pressed. */
  without() {
    const text = byId("without").value.trim();
    byId("without").value = "";
    return text && this.search.without.length < 8 && !this.search.without.includes(text)
      ? { without: [...this.search.without, text] }
      : {};
  }

  addWithout() {
    const parts = this.without();
    if (parts.without) this.change({ q: byId("q").value.trim(), ...parts });
  }

  drops() {
    let depth = 0;
    const over = (change) => {
      depth = Math.max(0, depth + change);
      shown(byId("drop"), depth > 0);
    };
    const ofFiles = (event) => event.dataTransfer?.types.includes("Files");
    document.addEventListener("dragenter", (event) => ofFiles(event) && over(1));
    document.addEventListener("dragleave", (event) => ofFiles(event) && over(-1));
    document.addEventListener("dragover", (event) => ofFiles(event) && event.preventDefault());
    document.addEventListener("drop", (event) => {
      if (!ofFiles(event)) return;
      event.preventDefault();
      over(-depth);
      this.take(event.dataTransfer.files);
    });
  }

  take(files) {
    const [file] = files;
    const most = Math.floor((this.limit() * 3) / 4) - 8192; // as base64, with words beside it
    if (!file) return;
    if (file.size > most) {
      this.problem(new Refused(413, `${plain(file.name)} has ${bytes(file.size)}: a picture to search with has at most ${bytes(most)}`));
    } else {
      this.change({ picture: file, like: [] });
    }
  }

  /** Show a search. */
  show(search) {
    if (search.q !== this.search?.q) byId("q").value = search.q; // else it may be being changed
    this.search = search;
    byId("compare").setAttribute("aria-pressed", search.compare);
    const k = byId("k");
    if (![...k.options].some((option) => Number(option.value) === search.k)) k.add(new Option(search.k));
    k.value = search.k;
    byId("auto").checked = search.m === AUTO;
    byId("m").disabled = search.m === AUTO;
    byId("m").value = search.m === AUTO ? "" : (search.m ?? "");
    byId("refined").checked = search.refined;
    const chips = [
      ...(search.picture ? [this.pictureChip(search.picture)] : []),
      ...search.like.map((id) => this.likeChip(id)),
      ...search.without.map((text) => this.chip(`without ${plain(text)}`, null, { without: search.without.filter((each) => each !== text) })),
    ];
    byId("chips").replaceChildren(...chips);
    shown(byId("chips"), chips.length > 0);
  }

  /** Show the picture that was sent: the server has looked at it, and it is one. */
  showPreview() {
    const image = byId("chips").querySelector("img[data-preview]");
    if (image && this.preview) image.src = this.preview;
  }

  pictureChip(file) {
    if (this.preview) URL.revokeObjectURL(this.preview);
    this.preview = URL.createObjectURL(file);
    const image = made("img", { alt: "", width: 28, height: 28, onerror: () => image.remove() });
    image.dataset.preview = "";
    return this.chip(`like ${plain(file.name || "the pasted picture")}`, image, { picture: null });
  }

  likeChip(id) {
    const image = made("img", { alt: "", width: 28, height: 28, src: `/images/${id}/thumbnail?size=64`, onerror: () => image.remove() });
    return this.chip(`like photo ${id}`, image, { like: this.search.like.filter((each) => each !== id) });
  }

  chip(text, image, parts) {
    const remove = made("button", { type: "button", attributes: { "aria-label": `Remove: ${text}` }, onclick: () => this.change(parts) }, icon("close"));
    return made("li", { className: "chip" }, ...(image ? [image] : []), made("bdi", { textContent: text }), remove);
  }

  /** Take over what the collection is: how many stages it has, and its own m. */
  fit(status) {
    shown(byId("compare"), status.stages.length > 1);
    shown(byId("of-stages"), status.stages.length > 1);
    shown(byId("of-calibrated"), Boolean(status.calibrated) || this.search?.m === AUTO);
    byId("m").placeholder = String(status.m.at(-1) ?? "");
  }
}
