// How things are written: names of files, numbers, times; and small pieces of the page.

/** Text in which nothing is unseen: names of files may hold anything. */
export function plain(text) {
  const unseen = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]/gu;
  return String(text).replace(unseen, (mark) => {
    const code = mark.codePointAt(0);
    if (code < 0x20) return String.fromCodePoint(0x2400 + code);
    return "\ufffd";
  });
}

/** What a photo is called in its folder, archive or data set. */
export function nameOf(key) {
  return plain(key.split(/[/\\]/).pop() || key);
}

const numbers = new Intl.NumberFormat("en");

export function number(value) {
  return numbers.format(value);
}

export function counted(value, one, many = `${one}s`) {
  return `${number(value)} ${value === 1 ? one : many}`;
}

export function percent(share) {
  const value = share * 100;
  if (value > 0 && value < 1) return "< 1 %";
  return `${Math.floor(value)} %`; // 100 % only when all are
}

export function seconds(value) {
  if (value < 0.0095) return `${(value * 1000).toFixed(1)} ms`;
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  return value < 90 ? `${value.toFixed(1)} s` : `${Math.round(value / 60)} min`;
}

/** A time that is guessed. */
export function about(value) {
  if (value < 60) return `about ${Math.max(1, Math.round(value))} s`;
  return value < 5400 ? `about ${Math.round(value / 60)} min` : `about ${Math.round(value / 3600)} h`;
}

export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  let left = value;
  while (left >= 1000 && at < units.length - 1) {
    left /= 1000;
    at += 1;
  }
  return `${left < 10 && at ? left.toFixed(1) : Math.round(left)} ${units[at]}`;
}

/** What a stage is called, given how many there are. */
export function stageName(stage, stages) {
  if (stage === stages - 1) return "Full tower";
  return stage === 0 ? "First stage" : `Stage ${stage + 1}`;
}

export function byId(id) {
  return document.getElementById(id);
}

/** An element. Text becomes text, never HTML. */
export function made(tag, properties = {}, ...children) {
  const { attributes = {}, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const drawing = document.createElementNS(space, "svg");
  drawing.setAttribute("class", "icon");
  drawing.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", `#i-${name}`);
  drawing.append(use);
  return drawing;
}

/** Say something to those who don't see the page. */
export function say(text) {
  byId("said").textContent = text;
}

export function shown(element, whether) {
  element.hidden = !whether;
}
