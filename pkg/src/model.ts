/** What embedders, rerankers and BM25 have in common: an engine of their own, and where its files come from. */

import { Client, type Connect } from "./client.js";
import { WickError } from "./errors.js";
import { caching, invalid, only, pick, type Checked } from "./options.js";
import type { Answers, Call, ResolvedSource, WasmSource } from "./protocol.js";
import type { Runtime } from "./runtime.js";
import type { EngineOptions, FileSource, ModelOptions, Source } from "./types.js";

/** What differs between a browser and Node. */
export interface Host {
  /** Opens an engine in a worker. */
  worker: Connect;
  /** Opens an engine on this thread. */
  local: Connect;
  /** What a module of the caller's own thread needs. */
  runtime(): Promise<Runtime>;
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
  { worker = true, wasm, signal }: EngineOptions,
  onProgress?: (done: number, total: number | undefined, file: string | undefined) => void,
): Promise<[Client, Answers[C["kind"]]]> {
  const first = wasm === undefined ? call : { ...call, wasm: resolveWasm(host, wasm) };
  const client = await Client.open(worker ? host.worker : host.local);
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
  return open(host, call, options, (done, total, file = "") => onProgress?.({ loaded: done, ...(total !== undefined && { total }), file }));
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
