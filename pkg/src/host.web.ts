/** Workers in a browser. */

import type { Connect } from "./client.js";
import { asksForHelpers, Crew, type Helper } from "./crew.js";
import { WickError, type Failure } from "./errors.js";
import { part, type Host } from "./model.js";
import { invalid } from "./options.js";
import { importing, isForeign, ownScript } from "./origin.js";
import type { HelperStart, HelpersReply, HelpersRequest, Reply, Sign } from "./protocol.js";
import { resolve, runtime } from "./runtime.web.js";

type Own = Parameters<Host["worker"]>[0];

const worker = (own: Own): Connect => {
  // Scopes without workers are themselves no page's thread.
  if (own === undefined && typeof Worker === "undefined") return local;
  return async (onReply, onCrash) => {
    const { worker, address, end } = startWorker(own);
    const crew = new Crew((start) => hire(own, start));
    let started = false;
    const watched = new AbortController();
    worker.onmessage = async ({ data }: MessageEvent<Reply | Sign | HelpersRequest>) => {
      if (asksForHelpers(data)) worker.postMessage({ joined: await crew.start(data) } satisfies HelpersReply);
      else if ("started" in data) started = true;
      else if ("lock" in data) watch(data.lock, watched.signal, () => onCrash(new Error("it ended without a word")));
      else onReply(data);
    };
    worker.onerror = (event) => {
      const { message } = event;
      if (started) return onCrash(new Error(message || "an error without a message"));
      // The console has it, too: this is for who sees only the rejected promise.
      onCrash(unstarted(address, message));
    };
    worker.onmessageerror = () => onCrash(new Error("a reply could not be read"));
    return {
      post: (request) => worker.postMessage(request),
      close() {
        watched.abort();
        end();
        crew.end();
      },
    };
  };
};

/** Starts a helper, by the engine's own script. */
function hire(own: Own, start: HelperStart): Helper {
  const { worker, end } = startWorker(own);
  const joined = new Promise<boolean>((resolve) => {
    worker.onmessage = (event: MessageEvent<boolean>) => resolve(event.data);
    worker.onerror = (event) => {
      event.preventDefault();
      resolve(false);
    };
  });
  worker.postMessage(start);
  return { joined, end };
}

interface Started {
  worker: Worker;
  /** Of its script, where it is known. */
  address?: string | undefined;
  end(): void;
}

/** By default the package's own worker; else one of a script's address, or of a function that makes it. */
function startWorker(own: Own): Started {
  const address = typeof own === "function" ? undefined : (own ?? ownScript());
  const started = (worker: Worker, script?: string): Started => ({
    worker,
    address,
    end() {
      worker.terminate();
      // The address of a script that was made for it.
      if (script) URL.revokeObjectURL(script);
    },
  });
  if (typeof own === "function") return started(made(own));
  let script: string | undefined;
  try {
    if (address !== undefined && isForeign(address)) {
      script = importing(address);
      return started(new Worker(script, { type: "module" }), script);
    }
    if (own !== undefined) return started(new Worker(own, { type: "module" }));
    // Written so that bundlers see a worker to build.
    return started(new Worker(new URL("./worker.js", import.meta.url), { type: "module" }));
  } catch (cause) {
    if (script) URL.revokeObjectURL(script);
    // A policy may forbid it, or a page have no origin; no browser calls it an error of the script.
    throw new WickError(unstarted(address, String(cause)), cause);
  }
}

/** What a caller's function makes; of what it throws the caller knows more than we. */
function made(own: () => Worker): Worker {
  const worker: unknown = own();
  if (typeof (worker as Worker | undefined)?.postMessage === "function") return worker as Worker;
  throw invalid("worker", "the function gives no Worker");
}

/** Calls back when a worker that holds a lock is gone: nothing else tells of one that closed itself or was ended by the browser. */
function watch(lock: string, signal: AbortSignal, onEnd: () => void): void {
  navigator.locks.request(lock, { signal }, onEnd).catch(() => {});
}

/** Why a worker did not start. A browser tells no page the reason, so that the message names all there are. */
function unstarted(address: string | undefined, detail: string): Failure {
  const lines = [
    `the worker did not start${address ? `: ${address}` : ""}${detail ? ` (${detail})` : ""}. One of these helps:`,
    "the script is not there: a bundler that builds no workers, or assets on another origin, need the option `worker` and a script with `wick-embed/worker`;",
    "a Content-Security-Policy forbids it: it needs `worker-src 'self'`, and with scripts of another origin `worker-src blob:` and that origin;",
    "a sandboxed page has no workers: `worker: false` computes on the page's own thread",
  ];
  return { code: "executor", at: "worker", message: lines.join(" ") };
}

const local: Connect = async (onReply, onCrash) => {
  // Loaded only when asked for: the page itself usually needs none of the engine.
  const { onThisThread } = await later(() => import("./host.js"));
  return onThisThread(runtime, () => import("./reference.js"))(onReply, onCrash);
};

/** A part of the package that is loaded when it is asked for. In a service worker it may be so only if a bundler put it into the same file. */
async function later<T>(load: () => Promise<T>): Promise<T> {
  try {
    return await part(load());
  } catch (cause) {
    if (typeof ServiceWorkerGlobalScope === "undefined") throw cause;
    const message = "a service worker loads no parts of a package later: import from `wick-embed/local` in place of `wick-embed`";
    throw new WickError({ code: "executor", at: "engine", message }, cause);
  }
}

/** A scope that only service workers have. */
declare const ServiceWorkerGlobalScope: unknown;

export const host: Host = {
  worker,
  local,
  remote: () => later(() => import("./remote.js")),
  runtime,
  resolve,
};
