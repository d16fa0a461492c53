/** Runs calls on the WebAssembly module, one after the other. Lives in the worker, or on the page with `worker: false`. */

import { crashed } from "./compile.js";
import { isFailure, type Failure } from "./errors.js";
import { threadsWanted, type Helpers } from "./helpers.js";
import { start, type Kind, type LoadReference, type Started } from "./module.js";
import type { Answers, Bm25Source, Call, LoadCall, LoadRerankerCall, Reply, Request, WasmSource } from "./protocol.js";
import { requests } from "./requests.js";
import type { Runtime } from "./runtime.js";
import type { Device } from "./types.js";
import type { Bm25Engine, EmbedderEngine, RerankerEngine } from "./wick_embed.js";

type Answer = Answers[keyof Answers];
type Send = (reply: Reply, transfer: ArrayBuffer[]) => void;

/** What an engine may do without. */
interface Parts {
  /** Where this thread may wait for others, as a worker may and a page may not. */
  helpers?: Helpers | undefined;
  /** Where parts of the package may be loaded later. */
  reference?: LoadReference | undefined;
}

export class EngineHost {
  readonly #runtime: Runtime;
  readonly #send: Send;
  readonly #helpers: Helpers | undefined;
  readonly #reference: LoadReference | undefined;
  readonly #aborts = new Map<number, AbortController>();
  #queue: Promise<void> = Promise.resolve();
  /** All engines of a thread share one module of a kind, so one trap ends them all; in a worker there is only one. */
  #started: Started | undefined;
  /** What the first call loaded. */
  #model: EmbedderEngine | RerankerEngine | Bm25Engine | undefined;
  /** Resolves when the files of the model are kept. */
  #kept: Promise<unknown> | undefined;
  /** Loads the model again, where a GPU may be lost that alone holds its weights. */
  #reload: ((device: Device, abort: AbortController) => Promise<unknown>) | undefined;

  constructor(runtime: Runtime, send: Send, { helpers, reference }: Parts) {
    this.#runtime = runtime;
    this.#send = send;
    this.#helpers = helpers;
    this.#reference = reference;
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
        void this.#kept?.then(() => this.#send({ id, kept: true }, []));
        this.#kept = undefined;
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
      if (!this.#started?.crash) this.#model?.free();
      this.#model = undefined;
    });
  }

  async #run(id: number, call: Call, abort: AbortController): Promise<Answer> {
    if (this.#started?.crash) throw this.#started.crash;
    if (abort.signal.aborted) throw { code: "aborted", at: call.kind, message: "the caller asked to stop" } satisfies Failure;
    let stop = () => {};
    const trapped = new Promise<never>((_, reject) => (stop = this.#runtime.onTrap((error) => (reject(error), true))));
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
        return this.#load("EmbedderEngine", call, progress, abort);
      case "loadReranker":
        return this.#load("RerankerEngine", call, progress, abort);
      case "fitBm25": {
        const { glue } = await this.#start(call.wasm);
        return (this.#model = glue.Bm25Engine.fit(call.texts as string[], call.options)).describe();
      }
      case "loadBm25": {
        const { glue } = await this.#start(call.wasm);
        return (this.#model = glue.Bm25Engine.load(await this.#bytes(call.source, abort.signal), call.analyzer)).describe();
      }
      case "encode":
        return this.#computed(abort, () => this.#loaded<EmbedderEngine>().encode(call.texts as string[], call.options, progress, abort.signal));
      case "tokenize":
        return this.#loaded<EmbedderEngine>().tokenize(call.texts as string[], call.role);
      case "decode":
        return this.#loaded<EmbedderEngine | Bm25Engine>().decode(call.indices);
      case "rerank":
        return this.#computed(abort, () => this.#loaded<RerankerEngine>().rerank(call.query, call.texts as string[], call.topK, progress, abort.signal));
      case "encodeBm25":
        return this.#loaded<Bm25Engine>().encode(call.texts as string[], call.role);
      case "saveBm25":
        return this.#loaded<Bm25Engine>().save();
    }
  }

  /** The model. A face makes no call that its own kind of model does not answer. */
  #loaded<T extends EmbedderEngine | RerankerEngine | Bm25Engine>(): T {
    if (!this.#model) throw { code: "disposed", at: "engine", message: "the model was disposed" } satisfies Failure;
    return this.#model as T;
  }

  /** Loads a model from its files. Threads start meanwhile; the model is told of those that were asked for. */
  async #load(kind: "EmbedderEngine" | "RerankerEngine", call: LoadCall | LoadRerankerCall, progress: Progress, abort: AbortController) {
    const { source, cache, headers } = call;
    // Asked here, because what the module reaches the GPU by takes only windows and workers of browsers, and traps elsewhere.
    const hasGpu = Boolean((globalThis.navigator as { gpu?: unknown } | undefined)?.gpu);
    const onGpu = call.options.device === "webgpu";
    if (onGpu && !hasGpu) {
      throw { code: "no_device", at: "webgpu", message: "webgpu: there is no WebGPU here; browsers offer it to secure pages" } satisfies Failure;
    }
    const reference = call.options.device === "reference" || call.options.device === "candle-transformers";
    // Where the GPU computes alone there is nothing for threads to do, and Candle has none in a page.
    const threads = onGpu || reference ? 1 : threadsWanted(this.#helpers, call.options.threads);
    const { glue, module, memory } = await this.#start(call.wasm, reference ? "reference" : "engine");
    const helpers = this.#helpers && memory && threads > 1 ? this.#helpers.start(threads - 1, { module, memory }) : 0;
    const access = { fetch: requests((url, init) => this.#runtime.fetch(url, init), headers), ownHeaders: headers !== undefined, cache };
    const on = async (device: Device | undefined, progress: Progress | undefined, abort: AbortController) => {
      const options = { ...call.options, threads, ...(device && { device }) };
      // A load that fails aborts what it has under way: a controller serves one load.
      const model = await glue[kind].load(source, options, access, progress, following(abort));
      this.#model?.free();
      this.#model = model;
      this.#reload = (model.describe() as { device: Device }).device === "webgpu" ? (device, abort) => on(device, undefined, abort) : undefined;
      return model;
    };
    const model = await on(hasGpu || reference ? call.options.device : "wasm", progress, abort).catch((error) => {
      if (!onGpu || !isFailure(error) || error.code !== "out_of_memory") throw error;
      warn(error, "the processor computes instead");
      return on("wasm", progress, abort);
    });
    this.#kept = model.kept;
    return { ...model.describe(), threads: 1 + (await helpers), keeping: this.#kept !== undefined };
  }

  /** Computes. Where the GPU was lost or full the model is loaded again, for a GPU if there is one, and the call is made once more. */
  async #computed<T>(abort: AbortController, compute: () => Promise<T>): Promise<T> {
    try {
      return await compute();
    } catch (error) {
      const lost = isFailure(error) && error.code === "device_lost";
      if (!this.#reload || !isFailure(error) || !(lost || error.code === "out_of_memory")) throw error;
      if (lost && (await this.#reload("webgpu", abort).then(() => true, () => false))) {
        warn(error, "the model was loaded again");
      } else {
        await this.#reload("wasm", abort).catch(() => {
          throw error;
        });
        warn(error, "the processor computes instead");
      }
      return compute();
    }
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

  async #start(wasm: WasmSource | undefined, kind: Kind = "engine"): Promise<Started> {
    const started = await start(kind, (url, init) => this.#runtime.fetch(url, init), wasm, this.#reference);
    if (started.crash) throw started.crash;
    return (this.#started = started);
  }

  #failure(error: unknown): Failure {
    if (isFailure(error)) return { code: error.code, at: error.at, message: error.message };
    const crash = crashed(error, this.#started?.glue.panicMessage, "load the model again");
    if (this.#started) this.#started.crash = crash;
    return crash;
  }
}

/** Tells whoever looks at the console. */
function warn({ message }: Failure, consequence: string): void {
  console.warn(`wick-embed: ${message}; ${consequence}`);
}

/** A controller of its own, that is aborted when another is. */
function following({ signal }: AbortController): AbortController {
  const own = new AbortController();
  if (signal.aborted) own.abort();
  else signal.addEventListener("abort", () => own.abort(), { signal: own.signal });
  return own;
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
