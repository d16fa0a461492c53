/**
 * Remote providers. They are spoken to from the caller's own thread by a module of their own: a key never leaves it, and there is
 * nothing to compute.
 */

import { Client, type Channel } from "./client.js";
import { compile, crashed, instantiate, placed, unstarted } from "./compile.js";
import { TextEmbedder } from "./embedder.js";
import { WickError, isFailure, type Failure } from "./errors.js";
import { resolveAddress, resolveWasm, type Host } from "./model.js";
import { invalid, only, pick } from "./options.js";
import type { Answers, Call, EncodeCall, Encoded, Reply, Request, RerankCall, WasmSource } from "./protocol.js";
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

const COMMON = ["model", "timeoutMs", "maxRetries", "concurrency", "batchSize", "batchTokens", "truncate"] as const;
const EMBEDDING = [
  ...COMMON,
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
/** Those that are looked at one by one. */
const APART = ["apiKey", "baseUrl", "headers", "extra", "fetch", "wasm"] as const;

/** A provider's model with the calls and results of a local one. Made by `Embedder.remote`. */
export class RemoteEmbedder extends TextEmbedder {
  readonly provider: Provider;
  readonly model: string;
  #dimensions: number | undefined;

  private constructor(client: Client, { provider, model, outputs, dimensions }: Described) {
    super(client, outputs);
    this.provider = provider;
    this.model = model;
    this.#dimensions = dimensions;
  }

  /** @internal */
  static async open(host: Host, provider: Provider, options: RemoteEmbedderOptions): Promise<RemoteEmbedder> {
    only(options, [...EMBEDDING, ...APART]);
    return new RemoteEmbedder(...(await open(host, glue.RemoteEmbedderEngine, provider, pick(options, ...EMBEDDING), options)));
  }

  /** Components of a dense vector, as far as it is known: asked for, documented, or seen in an answer. */
  get dimensions(): number | undefined {
    return this.#dimensions;
  }

  protected override received({ dense, quantized }: Encoded): void {
    const bits = quantized?.dtype.endsWith("binary") ? 8 : 1;
    this.#dimensions ??= dense?.width || bits * (quantized?.width ?? 0) || undefined;
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

  private constructor(client: Client, { provider, model }: Described) {
    super(client);
    this.provider = provider;
    this.model = model;
  }

  /** @internal */
  static async open(host: Host, provider: Provider, options: RemoteRerankerOptions): Promise<RemoteReranker> {
    only(options, [...COMMON, ...APART]);
    return new RemoteReranker(...(await open(host, glue.RemoteRerankerEngine, provider, pick(options, ...COMMON), options)));
  }
}

/** Sends nothing. */
async function open(
  host: Host,
  kind: { open(json: string, key: unknown, fetch: Function): Engine },
  provider: Provider,
  plain: object,
  { apiKey, baseUrl, headers, extra, fetch: own, wasm }: RemoteOptions,
): Promise<[Client, Described]> {
  const json = JSON.stringify({
    ...pick({ provider: provider ?? null }, "provider"),
    ...plain,
    ...(baseUrl !== undefined && { baseUrl: address(host, baseUrl) }),
    ...(headers !== undefined && { headers: fields(headers) }),
    ...(extra !== undefined && { extra: data(extra) }),
  });
  if (own !== undefined && typeof own !== "function") throw invalid("fetch", "it must be a function");
  if (own === undefined && typeof globalThis.fetch !== "function") throw invalid("fetch", "there is none here: hand one in");
  const { runtime } = host;
  await start(runtime, wasm === undefined ? ownModule() : resolveWasm(host, wasm));
  const engine = guarded(() => kind.open(json, apiKey, own ?? ((url: string, init: RequestInit) => fetch(url, init))));
  const described = guarded(() => engine.describe() as Described);
  return [await Client.open(async (onReply) => new RemoteEngine(engine, runtime, onReply)), described];
}

function ownModule(): string {
  try {
    return placed(() => new URL("./wick_remote_bg.wasm", import.meta.url));
  } catch (cause) {
    throw new WickError(unstarted(cause));
  }
}

function address(host: Host, baseUrl: string | URL): string {
  const text = baseUrl instanceof URL || typeof baseUrl === "string" ? String(baseUrl).trim() : "";
  // An empty one would be this page's folder, and the key would go there.
  const url = text && resolveAddress(host, "baseUrl", text);
  if (!/^https?:/i.test(url)) throw invalid("baseUrl", `${JSON.stringify(text)} is no address that begins with http:// or https://`);
  return url;
}

/** Values of headers are secrets: no error repeats them. */
function fields(headers: HeadersInit): Record<string, string> {
  if (typeof headers !== "object" || headers === null) throw invalid("headers", "it is no object");
  try {
    return Object.fromEntries(new Headers(headers));
  } catch {
    throw invalid("headers", "a name or a value is none that HTTP allows");
  }
}

/** As JSON has it, which may be a lot to ask of an object: it may hold itself, or throw when it is read. */
function data(extra: Record<string, unknown>): unknown {
  if (typeof extra !== "object" || extra === null || Array.isArray(extra)) throw invalid("extra", "it is no object");
  try {
    return JSON.parse(JSON.stringify(extra));
  } catch (cause) {
    throw invalid("extra", "it has no JSON form", cause);
  }
}

/** All models of a thread share one module. */
let started: { source: WasmSource; module: Promise<void> } | undefined;

async function start(runtime: Runtime, source: WasmSource): Promise<void> {
  const compiled = async () => instantiate(glue, await compile(source, (url, init) => runtime.fetch(url, init)));
  const first = (started ??= { source, module: compiled() });
  try {
    await first.module;
  } catch (cause) {
    if (started === first) started = undefined;
    if (first.source === source) throw new WickError(unstarted(cause), cause);
    // It was another's module that did not start.
    await start(runtime, source);
  }
}

/** Why the module can no longer be used. */
let crash: Failure | undefined;

function failure(error: unknown): Failure {
  return isFailure(error) ? error : (crash = crashed(error, glue.panicMessage, "reload the page, or end this thread"));
}

/** Calls under way: a trap in a resumed future reaches nobody's `catch`, and ends all of them. */
const underWay = new Set<(error: unknown) => void>();
let unwatch = () => {};

/** Tells `reject` of a trap, until the function is called that is given. */
function watch(runtime: Runtime, reject: (error: unknown) => void): () => void {
  if (underWay.size === 0) {
    unwatch = runtime.onTrap((error) => {
      // Other modules trap, too. Of ours either the panic is known, or the glue is among the callers.
      const isOurs = glue.panicMessage() !== "" || [import.meta.url, "wick_remote"].some((place) => error.stack?.includes(place));
      if (isOurs) for (const reject of underWay) reject(error);
      return isOurs;
    });
  }
  underWay.add(reject);
  return () => {
    underWay.delete(reject);
    if (underWay.size === 0) unwatch();
  };
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
    const trapped = new Promise<never>((_, reject) => (stop = watch(this.#runtime, reject)));
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
