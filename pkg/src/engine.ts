/** Runs calls on the WebAssembly module, one after the other. Lives in the worker, or on the page with `worker: false`. */

import { isFailure, type Failure } from "./errors.js";
import type { Answers, Bm25Source, Call, LoadCall, LoadRerankerCall, Reply, Request, WasmSource } from "./protocol.js";
import init, { Bm25Engine, EmbedderEngine, RerankerEngine, panicMessage } from "./wick_embed.js";

/** What differs between a browser and Node. */
export interface Runtime {
  /** The module's file: an address to compile from while it streams, or bytes. */
  wasm(): Promise<WasmSource | URL>;
  fetch(url: string, init: RequestInit): Promise<Response>;
  /**
   * Calls back when the module traps outside a call into it (a trap in a resumed future reaches nobody's `catch`).
   * Returns how to stop listening.
   */
  onTrap(listener: (error: unknown) => void): () => void;
}

/**
 * Why the module of this thread can no longer be used. All engines of a thread share one module, so one trap ends them all;
 * in a worker there is only one.
 */
let crash: Failure | undefined;

type Answer = Answers[keyof Answers];
type Send = (reply: Reply, transfer: ArrayBuffer[]) => void;

export class EngineHost {
  readonly #runtime: Runtime;
  readonly #send: Send;
  readonly #aborts = new Map<number, AbortController>();
  #queue: Promise<void> = Promise.resolve();
  /** What the first call loaded. */
  #model: EmbedderEngine | RerankerEngine | Bm25Engine | undefined;

  constructor(runtime: Runtime, send: Send) {
    this.#runtime = runtime;
    this.#send = send;
  }

  receive(request: Request): void {
    const { id } = request;
    if ("abort" in request) {
      this.#aborts.get(id)?.abort();
      return;
    }
    const abort = new AbortController();
    this.#aborts.set(id, abort);
    this.#queue = this.#queue.then(async () => {
      try {
        const answer = await this.#run(id, request.call, abort);
        this.#send({ id, done: answer }, buffers(answer));
      } catch (error) {
        this.#send({ id, failed: this.#failure(error) }, []);
      } finally {
        this.#aborts.delete(id);
      }
    });
  }

  /** Frees the model. In a worker the whole memory goes with the worker instead. */
  dispose(): void {
    for (const abort of this.#aborts.values()) abort.abort();
    this.#queue = this.#queue.then(() => {
      if (!crash) this.#model?.free();
      this.#model = undefined;
    });
  }

  async #run(id: number, call: Call, abort: AbortController): Promise<Answer> {
    if (crash) throw crash;
    if (abort.signal.aborted) throw { code: "aborted", at: call.kind, message: "the caller asked to stop" } satisfies Failure;
    let stop = () => {};
    const trapped = new Promise<never>((_, reject) => (stop = this.#runtime.onTrap(reject)));
    try {
      return await Promise.race([this.#answer(id, call, abort), trapped]);
    } finally {
      stop();
    }
  }

  async #answer(id: number, call: Call, abort: AbortController): Promise<Answer> {
    const progress = throttled((done, total, file) => this.#send({ id, progress: { done, total, file } }, []));
    switch (call.kind) {
      case "load":
        return (this.#model = await EmbedderEngine.load(...(await this.#files(call)), progress, abort)).describe();
      case "loadReranker":
        return (this.#model = await RerankerEngine.load(...(await this.#files(call)), progress, abort)).describe();
      case "fitBm25":
        await this.#start(call.wasm);
        return (this.#model = Bm25Engine.fit(call.texts as string[], call.options)).describe();
      case "loadBm25":
        await this.#start(call.wasm);
        return (this.#model = Bm25Engine.load(await this.#bytes(call.source, abort.signal), call.analyzer)).describe();
      case "encode":
        return this.#loaded(EmbedderEngine).encode(call.texts as string[], call.options, progress, abort.signal);
      case "tokenize":
        return this.#loaded(EmbedderEngine).tokenize(call.texts as string[], call.role);
      case "decode":
        return this.#loaded<EmbedderEngine | Bm25Engine>(EmbedderEngine, Bm25Engine).decode(call.indices);
      case "rerank":
        return this.#loaded(RerankerEngine).rerank(call.query, call.texts as string[], call.topK, progress, abort.signal);
      case "encodeBm25":
        return this.#loaded(Bm25Engine).encode(call.texts as string[], call.role);
      case "saveBm25":
        return this.#loaded(Bm25Engine).save();
    }
  }

  /** The model. A face makes no call that its own kind of model does not answer. */
  #loaded<T>(...kinds: (Function & { prototype: T })[]): T {
    if (kinds.some((kind) => this.#model instanceof kind)) return this.#model as T;
    throw { code: "disposed", at: "engine", message: "the model was disposed" } satisfies Failure;
  }

  /** Starts the module, and gives what it needs to load a model's files. */
  async #files({ source, options, cache, headers, wasm }: LoadCall | LoadRerankerCall) {
    await this.#start(wasm);
    const fetch = (url: string, init: RequestInit) => this.#runtime.fetch(url, headers ? { ...init, headers } : init);
    return [source, options, cache, fetch] as const;
  }

  /** Saved statistics as bytes. */
  async #bytes(source: Bm25Source, signal: AbortSignal): Promise<Uint8Array> {
    if ("json" in source) return new Uint8Array(await new Blob([source.json]).arrayBuffer());
    const fail = (code: Failure["code"], message: string): never => {
      throw { code, at: source.url, message: `${source.url}: ${message}` } satisfies Failure;
    };
    try {
      const response = await this.#runtime.fetch(source.url, { signal });
      if (!response.ok) fail(response.status === 404 ? "missing_file" : "http", `the server answered ${response.status}`);
      return new Uint8Array(await response.arrayBuffer());
    } catch (cause) {
      if (isFailure(cause)) throw cause;
      return fail(signal.aborted ? "aborted" : "network", String(cause));
    }
  }

  async #start(wasm: WasmSource | undefined): Promise<void> {
    const source = wasm ?? (await this.#runtime.wasm());
    try {
      await init({ module_or_path: source as BufferSource });
    } catch (cause) {
      const message = `the engine did not start: ${cause instanceof Error ? cause.message : String(cause)}`;
      const broken = cause instanceof WebAssembly.CompileError || cause instanceof WebAssembly.LinkError;
      const code = broken ? "executor" : cause instanceof RangeError ? "out_of_memory" : "network";
      throw { code, at: "wick_embed_bg.wasm", message } satisfies Failure;
    }
  }

  #failure(error: unknown): Failure {
    if (isFailure(error)) return { code: error.code, at: error.at, message: error.message };
    // Anything else came out of the module itself: after a trap its memory is in no known state.
    let detail = error instanceof Error ? error.message : String(error);
    try {
      detail = panicMessage() || detail;
    } catch {
      // The trap's own message has to do.
    }
    const message = `the engine trapped and must be loaded again: ${detail}`;
    return (crash = { code: "crashed", at: "engine", message });
  }
}

type Progress = (done: number, total: number | undefined, file: string | undefined) => void;

/** At most one message every 50 ms, and always the last one. */
function throttled(progress: Progress): Progress {
  let next = 0;
  return (done, total, file) => {
    const now = performance.now();
    if (now < next && done !== total) return;
    next = now + 50;
    progress(done, total, file);
  };
}

/** The large buffers of an answer, to be handed over and not copied. */
function buffers(answer: Answer): ArrayBuffer[] {
  const arrays = (value: unknown): ArrayBuffer[] => {
    if (ArrayBuffer.isView(value)) return [value.buffer as ArrayBuffer];
    return typeof value === "object" && value !== null ? Object.values(value).flatMap(arrays) : [];
  };
  return arrays(answer);
}
