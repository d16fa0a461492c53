import type { Client } from "./client.js";
import { WickError } from "./errors.js";
import { Model, load, type Host } from "./model.js";
import { invalid, list, only, pick } from "./options.js";
import type { Encoded, LoadCall, Loaded, TokenRows } from "./protocol.js";
import { spans, sparseRows } from "./sparse.js";
import type {
  Agreement,
  Device,
  EncodeOptions,
  FlatEncodeOptions,
  FlatOutput,
  LoadOptions,
  Output,
  OutputKind,
  QuantizedVectors,
  Role,
  Source,
  TokenizeOptions,
  Tokens,
  Verification,
  VerifyOptions,
} from "./types.js";
import { agreement } from "./verify.js";

/** What makes vectors of texts, here or at a provider's. */
export abstract class TextEmbedder extends Model {
  /** What the model gives. */
  readonly outputs: readonly OutputKind[];

  protected constructor(client: Client, outputs: OutputKind[]) {
    super(client);
    this.outputs = Object.freeze(outputs);
  }

  /** All vectors of a kind in one array. */
  encode(texts: readonly string[], options: FlatEncodeOptions): Promise<FlatOutput>;
  /** One result per text, in their order. With the model's default prompt, if it names one. */
  encode(texts: readonly string[], options?: EncodeOptions): Promise<Output>;
  encode(texts: readonly string[], options: EncodeOptions | FlatEncodeOptions = {}): Promise<Output | FlatOutput> {
    return this.#encode(texts, "plain", options);
  }

  /** All vectors of a kind in one array. */
  encodeQueries(texts: readonly string[], options: FlatEncodeOptions): Promise<FlatOutput>;
  /** As {@link encode}, with the model's prompt for queries, or as the provider marks them. */
  encodeQueries(texts: readonly string[], options?: EncodeOptions): Promise<Output>;
  encodeQueries(texts: readonly string[], options: EncodeOptions | FlatEncodeOptions = {}): Promise<Output | FlatOutput> {
    return this.#encode(texts, "query", options);
  }

  /** All vectors of a kind in one array. */
  encodeDocuments(texts: readonly string[], options: FlatEncodeOptions): Promise<FlatOutput>;
  /** As {@link encode}, with the model's prompt for documents, or as the provider marks them. */
  encodeDocuments(texts: readonly string[], options?: EncodeOptions): Promise<Output>;
  encodeDocuments(texts: readonly string[], options: EncodeOptions | FlatEncodeOptions = {}): Promise<Output | FlatOutput> {
    return this.#encode(texts, "document", options);
  }

  /** The vocabulary's string of each index. */
  protected abstract strings(indices: Uint32Array): Promise<string[]>;

  /** An answer came. */
  protected received(_: Encoded): void {}

  async #encode(texts: readonly string[], role: Role, options: EncodeOptions | FlatEncodeOptions): Promise<Output | FlatOutput> {
    only(options, ["prompt", "outputs", "topK", "flat", "signal", "onProgress"]);
    const { signal, onProgress } = options;
    const { flat = false } = pick(options, "flat");
    const report = onProgress && ((done: number, total = 0) => onProgress({ done, total }));
    const call = { kind: "encode", texts: list(texts), options: { role, ...pick(options, "prompt", "outputs", "topK") } } as const;
    const encoded = await this.client.call(call, signal, report);
    this.received(encoded);
    const { dense, sparse, quantized, tokenVectors, tokens, truncated } = encoded;
    const usage = { tokens, truncated: Array.from(truncated) };
    if (flat) {
      return {
        ...(dense && { dense: flatRows(dense) }),
        ...(sparse && { sparse }),
        ...(quantized && { quantized: { dtype: quantized.dtype, ...flatRows(quantized) } }),
        ...(tokenVectors && { tokens: { ...flatRows(tokenVectors), ends: tokenVectors.ends } }),
        usage,
      };
    }
    return {
      ...(dense && { dense: rows(dense) }),
      ...(sparse && { sparse: sparseRows(sparse, (indices) => this.strings(indices)) }),
      ...(quantized && { quantized: { dtype: quantized.dtype, vectors: rows(quantized) } as QuantizedVectors }),
      ...(tokenVectors && { tokens: tokenRows(tokenVectors) }),
      usage,
    };
  }
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
export abstract class EmbedderBase extends TextEmbedder {
  #device: Device;
  /** How many threads compute: those that {@link LoadOptions.threads} asked for, or one where there can be no others. */
  readonly threads: number;
  /** Components of a dense vector; of a model that gives none, entries of the vocabulary. */
  readonly dimensions: number;
  /** Most tokens of a text, special tokens included; what is longer is cut. */
  readonly maxTokens: number;
  readonly #origin: Origin;

  protected constructor([client, loaded]: [Client, Loaded], source: Source, options: LoadOptions) {
    super(client, loaded.outputs);
    this.#origin = { ...(isKept(source) && { source }), options };
    this.#device = loaded.device;
    this.threads = loaded.threads;
    this.dimensions = loaded.dimensions;
    this.maxTokens = loaded.maxTokens;
  }

  /** What computed last. With the device `"auto"` it changes with the size of calls, and with any where a GPU was lost. */
  get device(): Device {
    return this.#device;
  }

  protected static async connect(host: Host, source: Source, options: LoadOptions): Promise<[Client, Loaded]> {
    return load<LoadCall, LoadOptions>(host, "load", source, ["maxTokens", "dimensions", "normalize", "outputs", "prompts"], options);
  }

  /** The tokens of each text as the model sees it: prompt, special tokens and truncation included. */
  async tokenize(texts: readonly string[], options: TokenizeOptions = {}): Promise<Tokens[]> {
    only(options, ["role"]);
    const { role = "plain" } = options;
    const tokenized = await this.client.call({ kind: "tokenize", texts: list(texts), role });
    return tokenized.map(([ids, strings]) => ({ ids, strings }));
  }

  /** Loads the same kind of embedder. */
  protected abstract another(source: Source, options: LoadOptions): Promise<EmbedderBase>;

  /**
   * Encodes texts here, and once more with Candle, in a module of its own that is fetched for it (5 MB, 1.0 MB with brotli), and tells how alike the
   * results are. For that the model is loaded again, one time or two, and given back.
   *
   * ```js
   * const { reference } = await embedder.verify(["The weather is lovely today."]);
   * reference.dense.cosines; // [0.9999999]
   * ```
   */
  async verify(texts: readonly string[], options: VerifyOptions = {}): Promise<Verification> {
    only(options, ["role", "source", "wasm", "onProgress", "signal"]);
    const { role = "plain", source = this.#origin.source, wasm, onProgress, signal } = options;
    const { role: checked = "plain" } = pick({ role }, "role");
    if (source === undefined) throw invalid("source", "the model was loaded from bytes, which are not kept: give them again");
    const copied = list(texts);
    const by = (embedder: EmbedderBase) => embedder[METHODS[checked]](copied, signal && { signal });
    const ours = await by(this);
    const { wasm: _, signal: __, onProgress: ___, dtype, cache, ...others } = this.#origin.options;
    // What was fetched anew a moment ago is not fetched anew for each opinion.
    const kept = { ...others, ...(cache !== undefined && { cache: cache !== false }) };
    const beside = async (device: Device, more: LoadOptions): Promise<Agreement> => {
      const given = { ...kept, ...more, device, ...(wasm !== undefined && { wasm }), ...(onProgress && { onProgress }), ...(signal && { signal }) };
      const other = await this.another(source, given);
      try {
        return agreement(ours, await by(other));
      } finally {
        other.dispose();
      }
    };
    const reference = await beside("reference", dtype === undefined ? {} : { dtype });
    try {
      return { reference, candleTransformers: await beside("candle-transformers", {}) };
    } catch (error) {
      if (error instanceof WickError && error.code === "unsupported_model") return { reference };
      throw error;
    }
  }

  protected override strings(indices: Uint32Array): Promise<string[]> {
    return this.client.call({ kind: "decode", indices });
  }

  protected override received({ device }: Encoded): void {
    if (device) this.#device = device;
  }
}

/** Where a model came from, for loading it once more. */
interface Origin {
  source?: Source;
  options: LoadOptions;
}

const METHODS = { plain: "encode", query: "encodeQueries", document: "encodeDocuments" } as const;

/** Whether a source may be remembered: bytes would stay in memory with it. */
function isKept(source: Source): boolean {
  if (typeof source === "string" || source instanceof URL) return true;
  return Object.values(source).every((file) => !(file instanceof ArrayBuffer || ArrayBuffer.isView(file)));
}

function flatRows<T>({ values, width }: { values: T; width: number }): { data: T; dimensions: number } {
  return { data: values, dimensions: width };
}

/** Equally wide rows, each with a buffer of its own: a view would store, or give away, those of all texts. */
function rows<T extends Float32Array | Int8Array | Uint8Array>({ values, width }: { values: T; width: number }): T[] {
  return Array.from({ length: values.length / width }, (_, index) => values.slice(index * width, (index + 1) * width) as T);
}

function tokenRows({ values, width, ends }: TokenRows): Float32Array[][] {
  const all = rows({ values, width });
  return spans(ends, (start, end) => all.slice(start, end));
}
