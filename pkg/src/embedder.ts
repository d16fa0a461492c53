import { Client, type Connect } from "./client.js";
import { WickError } from "./errors.js";
import type { EngineOptions, Loaded, LoadCall, ResolvedSource, WasmSource } from "./protocol.js";
import type { Device, EncodeOptions, FileSource, LoadOptions, Output, Role, Source, TokenizeOptions, Tokens } from "./types.js";

/** What differs between a browser and Node. */
export interface Host {
  /** Opens an engine in a worker. */
  worker: Connect;
  /** Opens an engine on this thread. */
  local: Connect;
  /** Makes an address absolute; undefined for what is none (a model's name). */
  resolve(address: string): string | undefined;
}

/**
 * A loaded model.
 *
 * ```js
 * const embedder = await Embedder.load("sentence-transformers/all-MiniLM-L6-v2");
 * const { dense } = await embedder.encode(["The weather is lovely today.", "It's so sunny outside!"]);
 * dense[0]; // Float32Array(384)
 * embedder.dispose();
 * ```
 *
 * Errors are {@link WickError}s. A call that failed or was aborted leaves the embedder as it was; only after the code
 * `"crashed"` must it be loaded again.
 */
export abstract class EmbedderBase {
  readonly #client: Client;
  /** Where the model computes. */
  readonly device: Device;
  /** Components of a vector. */
  readonly dimensions: number;
  /** Most tokens of a text, special tokens included; what is longer is cut. */
  readonly maxTokens: number;

  protected constructor(client: Client, loaded: Loaded) {
    this.#client = client;
    this.device = loaded.device;
    this.dimensions = loaded.dimensions;
    this.maxTokens = loaded.maxTokens;
  }

  protected static async connect(host: Host, source: Source, options: LoadOptions): Promise<[Client, Loaded]> {
    const { device = "auto", dtype = "auto", worker = true, cache = true, headers, signal, onProgress } = options;
    if (device !== "auto" && device !== "wasm") throw invalid("device", `${String(device)} is not available in this version`);
    if (dtype !== "auto" && dtype !== "f32") throw invalid("dtype", `${String(dtype)} is not available in this version`);
    const call: LoadCall = {
      kind: "load",
      source: resolveSource(host, source, options),
      options: engineOptions(options),
      cache,
      ...(headers && { headers }),
      ...(options.wasm !== undefined && { wasm: resolveWasm(host, options.wasm) }),
    };
    const client = await Client.open(worker ? host.worker : host.local);
    try {
      const loaded = await client.call(call, signal, (done, total, file = "") =>
        onProgress?.({ loaded: done, ...(total !== undefined && { total }), file }),
      );
      return [client, loaded];
    } catch (error) {
      client.dispose();
      throw error;
    }
  }

  /** One vector per text, in their order. With the model's default prompt, if it names one. */
  encode(texts: readonly string[], options: EncodeOptions = {}): Promise<Output> {
    return this.#encode(texts, "plain", options);
  }

  /** As {@link encode}, with the model's prompt for queries. */
  encodeQueries(texts: readonly string[], options: EncodeOptions = {}): Promise<Output> {
    return this.#encode(texts, "query", options);
  }

  /** As {@link encode}, with the model's prompt for documents. */
  encodeDocuments(texts: readonly string[], options: EncodeOptions = {}): Promise<Output> {
    return this.#encode(texts, "document", options);
  }

  /** The tokens of each text as the model sees it: prompt, special tokens and truncation included. */
  async tokenize(texts: readonly string[], { role = "plain" }: TokenizeOptions = {}): Promise<Tokens[]> {
    const tokenized = await this.#client.call({ kind: "tokenize", texts: list(texts), role });
    return tokenized.map(([ids, strings]) => ({ ids, strings }));
  }

  /** Ends the engine and gives its memory back; calls under way are rejected with `"disposed"`. May be called again. */
  dispose(): void {
    this.#client.dispose();
  }

  async #encode(texts: readonly string[], role: Role, { signal, onProgress }: EncodeOptions): Promise<Output> {
    const report = onProgress && ((done: number, total = 0) => onProgress({ done, total }));
    const { dense, tokens, truncated } = await this.#client.call({ kind: "encode", texts: list(texts), role }, signal, report);
    const width = this.dimensions;
    const rows = Array.from({ length: dense.length / width }, (_, index) => dense.subarray(index * width, (index + 1) * width));
    return { dense: rows, usage: { tokens, truncated: Array.from(truncated) } };
  }
}

/** A copy, for the array may change before it is read. What is in it is checked where it becomes text (`src/bindings.rs`). */
function list(texts: readonly string[]): readonly string[] {
  if (Array.isArray(texts)) return [...texts];
  throw new WickError({ code: "invalid_text", at: "texts", message: "texts must be an array of strings" });
}

function invalid(at: string, message: string, cause?: unknown): WickError {
  return new WickError({ code: "invalid_option", at, message: `${at}: ${message}` }, cause);
}

function engineOptions({ maxTokens, dimensions, normalize }: LoadOptions): EngineOptions {
  for (const [name, value] of Object.entries({ maxTokens, dimensions })) {
    if (value !== undefined && (!Number.isSafeInteger(value) || value < 1)) throw invalid(name, `${value} is no whole number above zero`);
  }
  return {
    ...(maxTokens !== undefined && { maxTokens }),
    ...(dimensions !== undefined && { dimensions }),
    ...(normalize !== undefined && { normalize }),
  };
}

function resolveSource(host: Host, source: Source, { revision, host: hub }: LoadOptions): ResolvedSource {
  if (typeof source === "string" || source instanceof URL) {
    const url = resolve(host, String(source));
    if (url !== undefined) return { kind: "base", url };
    return {
      kind: "hub",
      name: String(source),
      ...(revision !== undefined && { revision }),
      ...(hub !== undefined && { host: resolve(host, hub) ?? hub }),
    };
  }
  if (typeof source !== "object" || source === null) throw invalid("source", "it must be a name, an address or a map of files");
  const file = (file: FileSource) => (typeof file === "string" || file instanceof URL ? address(host, String(file)) : file);
  return { kind: "files", files: Object.fromEntries(Object.entries(source).map(([name, value]) => [name, file(value)])) };
}

function resolveWasm(host: Host, wasm: NonNullable<LoadOptions["wasm"]>): WasmSource {
  if (typeof wasm !== "string" && !(wasm instanceof URL)) return wasm;
  return address(host, String(wasm));
}

/** Makes an address absolute; undefined for what is none. */
function resolve(host: Host, text: string): string | undefined {
  try {
    return host.resolve(text);
  } catch (cause) {
    throw invalid("source", `${JSON.stringify(text)} is no address`, cause);
  }
}

/** Makes an address absolute, where a bare name is one beside the page. */
function address(host: Host, text: string): string {
  return resolve(host, text) ?? resolve(host, `./${text}`) ?? text;
}
