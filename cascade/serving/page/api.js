// Asks the server. Whoever wants to know that it is away, or wants a token, listens to `server`.

export const server = new EventTarget();
let away = false;

const TRIES = 6;
const LONGEST_WAIT = 5;

export class Refused extends Error {
  constructor(status, reason) {
    super(reason);
    this.status = status;
  }
}

export class Away extends Error {}

function tell(name) {
  server.dispatchEvent(new Event(name));
}

function isAway(now) {
  if (now !== away) {
    away = now;
    tell(now ? "away" : "back");
  }
}

async function sent(path, options) {
  try {
    const answer = await fetch(path, { credentials: "same-origin", ...options });
    isAway(false);
    return answer;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    isAway(true);
    throw new Away("The server doesn't answer.");
  }
}

/** Why a request was refused, in the server's own words. */
export async function reasonOf(answer) {
  try {
    return (await answer.json()).error ?? `The server answers ${answer.status}.`;
  } catch {
    return `The server answers ${answer.status}.`;
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("", "AbortError"));
    });
  });
}

/** An answer that isn't an error. 503 means "not now": it is asked again a few times. */
async function answered(path, options = {}) {
  for (let left = TRIES; ; left -= 1) {
    const answer = await sent(path, options);
    if (answer.ok) return answer;
    if (answer.status === 401) tell("unknown");
    const wait = Number(answer.headers.get("Retry-After") ?? LONGEST_WAIT);
    if (answer.status !== 503 || left <= 1 || wait > LONGEST_WAIT) {
      throw new Refused(answer.status, await reasonOf(answer));
    }
    await pause(wait, options.signal);
  }
}

export async function get(path) {
  return (await answered(path)).json();
}

export async function send(method, path, content = undefined) {
  const options = { method };
  if (content instanceof Blob) {
    options.body = content;
    options.headers = { "Content-Type": "application/octet-stream" };
  } else if (content !== undefined) {
    options.body = JSON.stringify(content);
    options.headers = { "Content-Type": "application/json" };
  }
  const answer = await answered(path, options);
  return answer.status === 204 ? null : answer.json();
}

export async function signIn(token) {
  await answered("/session", { method: "POST", headers: { Authorization: `Bearer ${token}` } });
}

/** The events of a search, each as soon as the server says it. */
export async function* searched(request, signal) {
  const answer = await answered("/search/stream", {
    method: "POST",
    body: JSON.stringify(request),
    headers: { "Content-Type": "application/json" },
    signal,
  });
  const decoder = new TextDecoder();
  const reader = answer.body.getReader();
  let rest = "";
  let ended = false;
  while (!ended) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      isAway(true);
      throw new Away("The server ended before the search did.");
    }
    ended = part.done;
    const lines = (rest + decoder.decode(part.value, { stream: !ended })).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const event = JSON.parse(line);
      if (event.event === "error") throw new Refused(503, event.error);
      yield event;
    }
  }
}
