// The server's interface: JSON in and out, thinking as a stream of lines, every failure an ApiError.

import { send } from "./transport.js";

const UNREACHABLE = "The server cannot be reached. Is it still running? Then try again.";

export class ApiError extends Error {
  /** `column`: the cell at fault; `retryAfter`: seconds; null where the server named none. */
  constructor(message, { status = 0, column = null, retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.column = column;
    this.retryAfter = retryAfter;
  }

  /** Whether as much again would take as long, and too long. */
  get tookTooLong() {
    return this.status === 503 && this.retryAfter === null;
  }
}

export const isAbort = (error) => error.name === "AbortError";

/** Lets one request run at a time: starting another, or stopping, aborts the one before. */
export class Latest {
  #controller = null;

  start() {
    this.stop();
    this.#controller = new AbortController();
    return this.#controller.signal;
  }

  stop() {
    this.#controller?.abort();
    this.#controller = null;
  }
}

/** Wait; rejects with an AbortError when the signal aborts. */
export function sleep(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, 1000 * seconds);
    signal?.addEventListener("abort", stop);
  });
}

export async function getJson(path, parameters = {}, signal = undefined) {
  const query = new URLSearchParams(parameters).toString();
  return readJson(await request(query ? `${path}?${query}` : path, { signal }));
}

export async function postJson(path, body, signal) {
  return readJson(await post(path, body, signal));
}

/**
 * The ACT steps of one puzzle, as they are computed, attempt by attempt.
 *
 * Throws ApiError where the server refuses, gives up, or the stream breaks off.
 */
export async function* think(body, signal) {
  const response = await post("/api/think", body, signal);
  let last = { attempt: 1, step: 0 };
  for await (const line of lines(response.body)) {
    const record = parse(line);
    if (record.error) throw new ApiError(record.error);
    last = record;
    yield record;
    if (record.last) return;
  }
  const place = `step ${last.step}${last.attempt > 1 ? ` of attempt ${last.attempt}` : ""}`;
  throw new ApiError(`The connection broke off after ${place}. Press Think to try again.`);
}

const post = (path, body, signal) =>
  request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });

async function request(path, options) {
  let response;
  try {
    response = await send(path, options);
  } catch (error) {
    throw isAbort(error) ? error : new ApiError(UNREACHABLE);
  }
  if (!response.ok) throw await failure(response);
  return response;
}

async function failure(response) {
  let body = {};
  try {
    body = await response.json();
  } catch (error) {
    if (isAbort(error)) throw error;
  }
  const seconds = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  const message =
    typeof body.error === "string" ? body.error : `The server answered ${response.status}.`;
  return new ApiError(message, {
    status: response.status,
    column: Number.isInteger(body.column) ? body.column : null,
    retryAfter: Number.isFinite(seconds) ? seconds : null,
  });
}

async function readJson(response) {
  try {
    return await response.json();
  } catch (error) {
    throw isAbort(error) ? error : new ApiError("The server's answer broke off. Try again.");
  }
}

async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      yield* parts.filter(Boolean);
    }
  } catch (error) {
    if (isAbort(error)) throw error; // a connection that breaks ends the lines
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parse(line) {
  try {
    return JSON.parse(line);
  } catch {
    throw new ApiError("The server sent a line that is not JSON. Press Think to try again.");
  }
}
