// The page: the address says what is looked for, and everything else follows it.

import { AUTO, NOTHING, isEmpty, pictureIsLost, read, sameHits, sameQuery, write } from "./address.js";
import { Away, send, server, signIn } from "./api.js";
import { Collection } from "./collection.js";
import { Query } from "./query.js";
import { Results, SOME } from "./results.js";
import { focusOn, onArrows } from "./tiles.js";
import { Viewer } from "./viewer.js";
import { byId, shown } from "./words.js";

let search = null; // what is shown

const collection = new Collection({ seen, problem, signOut });
const query = new Query({
  submit: (parts) => go({ ...search, photo: null, ...parts }, { asked: true }),
  change: (parts) => go({ ...search, photo: null, ...parts }),
  problem,
  limit: () => collection.status?.longest_body ?? Infinity,
});
const results = new Results({
  stages: () => collection.stages,
  open: (photo) => go({ ...search, photo: photo.id }, { opened: true }),
  similar,
  more: (k) => go({ ...search, k }, { replace: true }),
  found,
  problem,
});
const viewer = new Viewer({
  close: closeViewer,
  go: (photo) => go({ ...search, photo: photo.id }, { replace: true, opened: history.state?.opened }),
  similar,
});

function similar(photo) {
  const { k, compare, refined, m } = search;
  go({ ...NOTHING, like: [photo.id], k, compare, refined, m });
  scrollTo(0, 0);
}

/** Look for something else, or at another photo. `asked`: it is looked for anew, whatever is shown. */
function go(next, { replace = false, opened = false, asked = false } = {}) {
  next = calibrated(next);
  const stays = sameHits(next, search) && next.photo === search.photo;
  write(next, { replace: replace || stays, opened });
  apply(next, asked);
}

/** A search that the collection is calibrated for: as many candidates as it needs for so many hits only. */
function calibrated(next) {
  const most = collection.status?.calibrated;
  if (next.m !== AUTO || !most || next.k <= most) return next;
  return search?.m === AUTO ? { ...next, m: null } : { ...next, k: most };
}

/** Show a search; what is shown already isn't asked for again. */
function apply(next, asked = false) {
  const before = search;
  search = next;
  query.show(next);
  if (asked || results.failed || !before || !sameHits(before, next)) look(before);
  else {
    if (before.compare !== next.compare) results.draw(next);
    showPhoto(!results.running);
  }
}

/** Ask the server for what is looked for. */
function look(before) {
  shown(byId("problem"), false);
  viewer.close();
  if (isEmpty(search)) results.home(collection.status);
  else results.run(search, Boolean(before) && !results.failed && sameQuery(before, search));
}

/** Open the photo that the address names, or none. `settled`: no others are to come. */
function showPhoto(settled) {
  if (search.photo === null) {
    const seen = viewer.photos[viewer.at]?.id;
    const wasOpen = viewer.dialog.open;
    viewer.close();
    if (wasOpen) focusOn(results.list, seen);
    return;
  }
  const here = viewer.show(results.photosWith(search.photo), search.photo, collection.stages);
  if (!here && settled) go({ ...search, photo: null }, { replace: true }); // not shown here
}

function closeViewer() {
  if (history.state?.opened) history.back();
  else go({ ...search, photo: null }, { replace: true });
}

/** All that was asked for is there. */
function found() {
  if (search.picture) query.showPreview();
  if (search.photo !== null) showPhoto(true);
  collection.plan(2500); // what was encoded for this is stored by then
}

/** A status was seen. */
function seen(status, before) {
  query.fit(status);
  if (!isEmpty(search)) return;
  if (!before || (before.images < SOME && status.images > before.images)) results.home(status);
  else if (status.images) results.count(status);
}

function problem(error) {
  if (error.status === 401 || error instanceof Away) return; // this is said elsewhere
  byId("problem").textContent = error.message;
  shown(byId("problem"), true);
}

// -- the server

server.addEventListener("away", () => {
  byId("away").textContent = "The server doesn't answer. If it has ended, start it again: this page goes on by itself.";
  shown(byId("away"), true);
});
server.addEventListener("back", () => {
  shown(byId("away"), false);
  if (results.failed instanceof Away) again();
});
server.addEventListener("unknown", () => {
  const dialog = byId("sign-in");
  if (dialog.open) return;
  viewer.close();
  collection.sheet.close();
  dialog.showModal();
});
byId("sign-in").addEventListener("cancel", (event) => event.preventDefault());
byId("sign-in-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const said = byId("sign-in-problem");
  said.textContent = "";
  try {
    await signIn(byId("token").value.trim());
  } catch (error) {
    said.textContent = error.status === 401 || error instanceof TypeError ? "This isn't the token." : error.message;
    byId("token").select();
    return;
  }
  byId("token").value = "";
  byId("sign-in").close();
  again();
});

async function signOut() {
  await send("DELETE", "/session");
  location.assign("/");
}

/** Ask once more for all that is shown. */
async function again() {
  await collection.look();
  apply(search, true);
}

// -- the whole page

addEventListener("popstate", () => {
  const next = read();
  const lost = pictureIsLost();
  apply(next);
  if (lost) problem(new Error("The picture of this search isn't kept any more: choose it again."));
});

byId("home").addEventListener("click", (event) => {
  if (event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  go({ ...NOTHING, compare: search.compare });
  scrollTo(0, 0);
});

addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, select, textarea, dialog");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    byId("q").focus();
    byId("q").select();
  }
});
byId("q").addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" && focusOn(results.list)) event.preventDefault();
  if (event.key === "Escape" && !byId("q").value) byId("q").blur();
});
onArrows(byId("columns"), () => byId("q").focus());

const lost = pictureIsLost();
apply(read());
if (lost) problem(new Error("The picture of this search isn't kept over a reload: choose it again."));
collection.look();
