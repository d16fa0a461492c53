/**
 * Remote providers. They are spoken to from the caller's own thread by a module of their own: a key never leaves it, and there is
 * nothing to compute.
 */

import { Client, type Channel } from "./client.js";
import { compile, crashed, unstarted } from "./compile.js";
import { TextEmbedder } from "./embedder.js";
import { WickError, isFailure, type Failure } from "./errors.js";
import { resolveAddress, resolveWasm, type Host } from "./model.js";
import { invalid, only, pick } from "./options.js";
import type { Answers, Call, EncodeCall, Reply, Request, RerankCall } from "./protocol.js";
import { TextReranker } from "./reranker.js";
import type { Runtime } from "./runtime.js";
import type { OutputKind, Provider, RemoteEmbedderOptions, RemoteOptions, RemoteRerankerOptions } from "./types.js";
import * as glue from "./wick_remote.js";

type Engine = glue.RemoteEmbedderEngine | glue.RemoteRerankerEngine;

/** What it is, as the module says. */
interface Described {
  provider: Provider;
  model: string;
  dimensions?: number;
  outputs: OutputKind[];
}

const common = ["model", "headers", "timeoutMs", "maxRetries", "concurrency", "batchSize", "batchTokens", "truncate", "extra"] as const;
const embedding = [
  ...common,
  "outputs",
  "dimensions",
  "nativeDimensions",
  "outputDtype",
  "encodingFormat",
  "task",
  "title",
  "lateChunking",
  "normalize",
  "prompts",
] as const;
/** Those that are no plain data, or not for the module. */
const apart = ["apiKey", "baseUrl", "fetch", "wasm"] as const;

/** A provider's model with the calls and results of a local one. Made by `Embedder.remote`. */
export class RemoteEmbedder extends TextEmbedder {
  readonly provider: Provider;
  readonly model: string;
  readonly #describe: () => Described;

  private constructor(client: Client, describe: () => Described) {
    const { provider, model, outputs } = describe();
    super(client, outputs);
    this.provider = provider;
    this.model = model;
    this.#describe = describe;
  }

  /** @internal */
  static async open(host: Host, provider: Provider, options: RemoteEmbedderOptions): Promise<RemoteEmbedder> {
    only("options", options, [...embedding, ...apart]);
    const plain = pick(options, ...embedding);
    return new RemoteEmbedder(...(await open(host, glue.RemoteEmbedderEngine, provider, plain, options)));
  }

  /** Components of a dense vector, as far as it is known: asked for, documented, or seen in an answer. */
  get dimensions(): number | undefined {
    return this.#describe().dimensions;
  }

  protected override strings(): Promise<string[]> {
    const message = `decode: ${this.provider} does not tell the words of its vocabulary`;
    return Promise.reject(new WickError({ code: "unsupported_model", at: "decode", message }));
  }
}

/** A provider's reranker with the calls and results of a local one. Made by `Reranker.remote`. */
export class RemoteReranker extends TextReranker {
  readonly provider: Provider;
  readonly model: string;

  private constructor(client: Client, describe: () => Described) {
    super(client);
    ({ provider: this.provider, model: this.model } = describe());
  }

  /** @internal */
  static async open(host: Host, provider: Provider, options: RemoteRerankerOptions): Promise<RemoteReranker> {
    only("options", options, [...common, ...apart]);
    return new RemoteReranker(...(await open(host, glue.RemoteRerankerEngine, provider, pick(options, ...common), options)));
  }
}

/** Sends nothing. */
async function open(
  host: Host,
  kind: { open(options: unknown, key: unknown, fetch: Function): Engine },
  provider: Provider,
  plain: object,
  { apiKey, baseUrl, fetch: ask = (url, init) => fetch(url, init), wasm }: RemoteOptions,
): Promise<[Client, () => Described]> {
  if (typeof ask !== "function") throw invalid("fetch", "it must be a function");
  const runtime = await host.runtime();
  await start(runtime, wasm === undefined ? new URL("./wick_remote_bg.wasm", import.meta.url).href : resolveWasm(host, wasm));
  const url = baseUrl === undefined ? {} : { baseUrl: resolveAddress(host, "baseUrl", String(baseUrl)) };
  const engine = guarded(() => kind.open({ ...pick({ provider }, "provider"), ...plain, ...url }, apiKey, ask));
  let described = guarded(() => engine.describe() as Described);
  const client = await Client.open(async (onReply) => new RemoteEngine(engine, runtime, onReply));
  // What is no longer there cannot be asked, and knows nothing new.
  const describe = () => (crash || !client.isOpen ? described : (described = engine.describe() as Described));
  return [client, describe];
}

/** All models of a thread share one module. */
let started: Promise<unknown> | undefined;

function start(runtime: Runtime, wasm: Parameters<typeof compile>[0]): Promise<unknown> {
  return (started ??= compile(wasm, (url, init) => runtime.fetch(url, init))
    .then((module) => glue.default({ module_or_path: module }))
    .catch((cause) => {
      started = undefined;
      throw new WickError(unstarted(cause), cause);
    }));
}

/** Why the module can no longer be used. */
let crash: Failure | undefined;

function failure(error: unknown): Failure {
  return isFailure(error) ? error : (crash = crashed(error, glue.panicMessage));
}

/** A call into the module that ends at once. */
function guarded<T>(call: () => T): T {
  try {
    if (crash) throw crash;
    return call();
  } catch (error) {
    throw new WickError(failure(error));
  }
}

/** The way to a provider: calls go on side by side. */
class RemoteEngine implements Channel {
  readonly #engine: Engine;
  readonly #runtime: Runtime;
  readonly #onReply: (reply: Reply) => void;
  readonly #aborts = new Map<number, AbortController>();
  readonly #calls = new Set<Promise<void>>();

  constructor(engine: Engine, runtime: Runtime, onReply: (reply: Reply) => void) {
    this.#engine = engine;
    this.#runtime = runtime;
    this.#onReply = onReply;
  }

  post(request: Request): void {
    if ("abort" in request) {
      this.#aborts.get(request.id)?.abort();
      return;
    }
    const call = this.#run(request.id, request.call).finally(() => this.#calls.delete(call));
    this.#calls.add(call);
  }

  close(): void {
    for (const abort of this.#aborts.values()) abort.abort();
    // Calls under way hold it.
    void Promise.all(this.#calls).then(() => crash || this.#engine.free());
  }

  async #run(id: number, call: Call): Promise<void> {
    const abort = new AbortController();
    this.#aborts.set(id, abort);
    let stop = () => {};
    // A trap in a resumed future reaches nobody's `catch`.
    const trapped = new Promise<never>((_, reject) => (stop = this.#runtime.onTrap(reject)));
    try {
      if (crash) throw crash;
      const progress = (done: number, total: number | undefined) => this.#onReply({ id, progress: { done, total, file: undefined } });
      this.#onReply({ id, done: await Promise.race([this.#answer(call as EncodeCall | RerankCall, progress, abort.signal), trapped]) });
    } catch (error) {
      this.#onReply({ id, failed: failure(error) });
    } finally {
      stop();
      this.#aborts.delete(id);
    }
  }

  /** A face makes no call that its own kind of engine does not answer. */
  #answer(call: EncodeCall | RerankCall, progress: Function, signal: AbortSignal): Promise<Answers["encode" | "rerank"]> {
    const texts = call.texts as string[];
    if (call.kind === "encode") return (this.#engine as glue.RemoteEmbedderEngine).encode(texts, call.options, progress, signal);
    return (this.#engine as glue.RemoteRerankerEngine).rerank(call.query, texts, call.topK, progress, signal);
  }
}
