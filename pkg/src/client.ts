/** Turns messages into promises. */

import { WickError, isFailure, type Failure } from "./errors.js";
import type { AbortSignal } from "./globals.js";
import type { Answers, Call, Reply, Request } from "./protocol.js";

/** The way to an engine. */
export interface Channel {
  post(request: Request): void;
  close(): void;
}

/** Opens a channel; `onCrash` is called when the other side is lost, or with the failure that kept it from starting. */
export type Connect = (onReply: (reply: Reply) => void, onCrash: (error: unknown) => void) => Promise<Channel>;

export type OnProgress = (done: number, total: number | undefined, file: string | undefined) => void;

interface Pending {
  resolve(answer: Answers[keyof Answers]): void;
  reject(error: WickError): void;
  onProgress: OnProgress | undefined;
}

/** How long a model that was disposed may still write files to the cache, in milliseconds. */
const LONGEST_KEEPING = 30_000;

export class Client {
  readonly #pending = new Map<number, Pending>();
  #channel: Channel | undefined;
  /** Why no further call is possible. */
  #closed: WickError | undefined;
  /** Whether the engine still writes files to the cache. */
  #keeping = false;
  #next = 0;

  private constructor() {}

  static async open(connect: Connect): Promise<Client> {
    const client = new Client();
    try {
      client.#channel = await connect(
        (reply) => client.#receive(reply),
        (cause) => {
          client.#keeping = false;
          client.#close(isFailure(cause) ? new WickError(cause) : new WickError(crashed(cause), cause));
          // One that was disposed and still wrote files has threads left.
          client.#channel?.close();
        },
      );
    } catch (cause) {
      if (cause instanceof WickError) throw cause;
      throw new WickError({ code: "executor", at: "engine", message: `the engine did not start: ${String(cause)}` }, cause);
    }
    return client;
  }

  call<C extends Call>(call: C, signal?: AbortSignal, onProgress?: OnProgress): Promise<Answers[C["kind"]]> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(this.#closed);
      if (signal !== undefined && typeof signal?.addEventListener !== "function") {
        return reject(new WickError({ code: "invalid_option", at: "signal", message: "signal: it must be an AbortSignal" }));
      }
      const aborted = () => new WickError({ code: "aborted", at: call.kind, message: "the caller asked to stop" }, signal?.reason);
      if (signal?.aborted) return reject(aborted());
      const id = this.#next++;
      const settle = () => {
        this.#pending.delete(id);
        signal?.removeEventListener("abort", onAbort);
      };
      const onAbort = () => {
        settle();
        this.#channel?.post({ id, abort: true });
        reject(aborted());
      };
      signal?.addEventListener("abort", onAbort);
      this.#pending.set(id, {
        resolve: (answer) => {
          settle();
          resolve(answer as Answers[C["kind"]]);
        },
        reject: (error) => {
          settle();
          reject(error);
        },
        onProgress,
      });
      try {
        this.#channel?.post({ id, call });
      } catch (cause) {
        // Only data can be sent: a function among the texts, or a buffer that was transferred away.
        settle();
        const code = "texts" in call ? "invalid_text" : "invalid_option";
        reject(new WickError({ code, at: call.kind, message: `the arguments are not plain data: ${String(cause)}` }, cause));
      }
    });
  }

  /** Ends the engine; calls under way are rejected. */
  dispose(): void {
    this.#close(new WickError(disposed));
  }

  #close(reason: WickError): void {
    if (this.#closed) return;
    this.#closed = reason;
    for (const [id, pending] of [...this.#pending]) {
      if (this.#keeping) this.#channel?.post({ id, abort: true });
      pending.reject(reason);
    }
    // The engine that ends takes with it what it has not written yet.
    if (this.#keeping) setTimeout(() => this.#channel?.close(), LONGEST_KEEPING);
    else this.#channel?.close();
  }

  #receive(reply: Reply): void {
    if ("kept" in reply) {
      this.#keeping = false;
      if (this.#closed) this.#channel?.close();
      return;
    }
    const pending = this.#pending.get(reply.id);
    if (!pending) return; // Given up on: aborted or disposed.
    if ("done" in reply) {
      if (typeof reply.done === "object" && "keeping" in reply.done && reply.done.keeping) this.#keeping = true;
      pending.resolve(reply.done);
    } else if ("failed" in reply) pending.reject(new WickError(reply.failed));
    else report(pending.onProgress, reply.progress);
  }
}

/** A listener that throws must not end the call it listens to, nor be silent about it. */
function report(listener: OnProgress | undefined, { done, total, file }: { done: number; total: number | undefined; file: string | undefined }) {
  try {
    listener?.(done, total, file);
  } catch (error) {
    if (typeof reportError === "function") reportError(error);
    else console.error(error);
  }
}

const disposed = { code: "disposed", at: "engine", message: "the model was disposed" } as const;

function crashed(cause: unknown): Failure {
  const detail = cause instanceof Error ? cause.message : String(cause);
  return { code: "crashed", at: "worker", message: `the worker was lost: ${detail}` };
}
