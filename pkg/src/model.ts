/** What embedders, rerankers and BM25 have in common: an engine of their own, and where its files come from. */

import { Client, type Connect } from "./client.js";
import { WickError } from "./errors.js";
import type { Worker } from "./globals.js";
import { caching, invalid, only, pick, type Checked } from "./options.js";
import type { Answers, Call, ResolvedSource, WasmSource } from "./protocol.js";
import type { Runtime } from "./runtime.js";
import type { EngineOptions, FileSource, ModelOptions, Source } from "./types.js";

/** What differs between a browser and Node. */
export interface Host {
  /** Opens an engine in a worker: the package's own, or of a script's address or a function that makes it. */
  worker(own?: string | (() => Worker)): Connect;
  /** Opens an engine on this thread. */
  local: Connect;
  /** Brings `remote.ts`. */
  remote(): Promise<typeof import("./remote.js")>;
  /** What a module of the caller's own thread needs. */
  runtime: Runtime;
  /** Makes an address absolute; undefined for what is none (a model's name). */
  resolve(address: string): string | undefined;
}

/** A model in an engine of its own. */
export abstract class Model {
  protected readonly client: Client;

  protected constructor(client: Client) {
    this.client = client;
  }

  /** Ends the engine and gives its memory back; calls under way are rejected with `"disposed"`. May be called again. */
  dispose(): void {
    this.client.dispose();
  }
}

/** A part of the package that is loaded when it is asked for. */
export async function part<T>(imported: Promise<T>): Promise<T> {
  try {
    return await imported;
  } catch (cause) {
    throw new WickError({ code: "network", at: "wick-embed", message: `a part of the package did not arrive: ${String(cause)}` }, cause);
  }
}

/** Names of {@link EngineOptions}. */
export const ENGINE = ["worker", "wasm", "signal"] as const;
/** Those of {@link ModelOptions} that the engine is told, and those that are for the way there. */
const HELD = ["device", "dtype", "weights", "threads"] as const;
const WAY = ["revision", "host", "headers", "cache", "onProgress"] as const;

/** Opens an engine and makes the call that gives it its model. */
export async function open<C extends Call>(
  host: Host,
  call: C,
  { worker, wasm, signal }: EngineOptions,
  onProgress?: (done: number, total: number | undefined, file: string | undefined) => void,
): Promise<[Client, Answers[C["kind"]]]> {
  const first = wasm === undefined ? call : { ...call, wasm: resolveWasm(host, wasm) };
  const client = await Client.open(worker === false ? host.local : host.worker(resolveWorker(host, worker)));
  try {
    return [client, await client.call(first, signal, onProgress)];
  } catch (error) {
    client.dispose();
    throw error;
  }
}

/** Opens an engine and lets it load a model from its files. Of its kind of model are the options `names`. */
export async function load<C extends Extract<Call, { options: object; source: ResolvedSource }>, O extends ModelOptions>(
  host: Host,
  kind: C["kind"],
  source: Source,
  names: readonly (keyof O & Checked)[],
  options: O,
): Promise<[Client, Answers[C["kind"]]]> {
  only(options, [...names, ...HELD, ...WAY, ...ENGINE]);
  const { headers, onProgress } = options;
  const call = {
    kind,
    source: resolveSource(host, source, options),
    options: pick(options, ...names, ...HELD),
    cache: caching(options.cache),
    ...(headers && { headers }),
  } as C;
  try {
    return await open(host, call, options, (done, total, file = "") => onProgress?.({ loaded: done, ...(total !== undefined && { total }), file }));
  } catch (error) {
    throw located(error, call.source);
  }
}

/** An error of a file that is not there, or is none: the engine knows it by its name, and a caller wants to see what was asked for. */
function located(error: unknown, source: ResolvedSource): unknown {
  if (!(error instanceof WickError) || source.kind === "files") return error;
  const denied = error.code === "http" && /\b40[13]\b/.test(error.message);
  if (!["missing_file", "invalid_json"].includes(error.code) && !denied) return error;
  if (source.kind === "base" && error.message.includes(source.url)) return error;
  const more =
    source.kind === "base"
      ? `below ${source.url}`
      : `in ${JSON.stringify(source.name)}${source.revision === undefined ? "" : ` at ${JSON.stringify(source.revision)}`}` +
        ` of ${source.host ?? "the hub"}${denied ? ", which says so also of a name that there is not" : ""}`;
  return new WickError({ code: error.code, at: error.at, message: `${error.message} (asked for ${more})` }, error.cause);
}

function resolveSource(host: Host, source: Source, { revision, host: hub }: ModelOptions): ResolvedSource {
  if (typeof source === "string" || source instanceof URL) {
    const url = resolve(host, "source", String(source));
    if (url !== undefined) return { kind: "base", url };
    return {
      kind: "hub",
      name: String(source),
      ...(revision !== undefined && { revision }),
      ...(hub !== undefined && { host: resolveHost(host, hub) }),
    };
  }
  if (typeof source !== "object" || source === null) throw invalid("source", "it must be a name, an address or a map of files");
  const file = (file: FileSource) => (typeof file === "string" || file instanceof URL ? resolveAddress(host, "source", String(file)) : file);
  return { kind: "files", files: Object.fromEntries(Object.entries(source).map(([name, value]) => [name, file(value)])) };
}

export function resolveWasm(host: Host, wasm: NonNullable<EngineOptions["wasm"]>): WasmSource {
  if (typeof wasm !== "string" && !(wasm instanceof URL)) {
    if (typeof wasm !== "object" || wasm === null) throw invalid("wasm", "it must be an address, bytes, or a compiled module");
    return wasm;
  }
  return resolveAddress(host, "wasm", String(wasm));
}

function resolveWorker(host: Host, worker: Exclude<EngineOptions["worker"], false>): string | (() => Worker) | undefined {
  if (worker === undefined || worker === true) return undefined;
  if (typeof worker === "function") return worker as () => Worker;
  if (typeof worker === "string" || worker instanceof URL) return resolveAddress(host, "worker", String(worker));
  throw invalid("worker", "it must be true, false, an address, or a function that makes a Worker");
}

/** Without a scheme it would be taken for a folder of this site, which then gets the headers that are meant for the hub. */
function resolveHost(host: Host, hub: string): string {
  const url = resolve(host, "host", hub);
  if (url === undefined) throw invalid("host", `${JSON.stringify(hub)} is no address; write https://${hub}, or ./${hub} for a folder of this site`);
  return url;
}

/** Makes an address absolute; undefined for what is none. */
function resolve(host: Host, at: string, text: string): string | undefined {
  try {
    return host.resolve(text);
  } catch (cause) {
    throw invalid(at, `${JSON.stringify(text)} is no address`, cause);
  }
}

/** Makes an address absolute, where a bare name is one beside the page. */
export function resolveAddress(host: Host, at: string, text: string): string {
  return resolve(host, at, text) ?? resolve(host, at, `./${text}`) ?? text;
}
