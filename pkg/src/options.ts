/** Checks of what a caller hands in, before anything is sent. */

import { WickError } from "./errors.js";

export function invalid(at: string, message: string, cause?: unknown): WickError {
  return new WickError({ code: "invalid_option", at, message: `${at}: ${message}` }, cause);
}

/** A check gives what is wrong with a value, or nothing. */
type Check = (value: unknown) => string | undefined;

/** In the engine a number of things has 32 bits. */
const MOST = 2 ** 32 - 1;

const whole: Check = (value) => {
  const isWhole = Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= MOST;
  return isWhole ? undefined : `${show(value)} is no whole number from 1 to ${MOST}`;
};
const threads: Check = (value) => whole(value) ?? ((value as number) > 64 ? `${show(value)} is more than 64` : undefined);
const flag: Check = (value) => (typeof value === "boolean" ? undefined : `${show(value)} is neither true nor false`);
const oneOf = (...words: string[]): Check => (value) => (words.includes(value as string) ? undefined : `${show(value)} is none of ${words.join(", ")}`);
const text: Check = (value) => {
  if (typeof value !== "string") return `${show(value)} is not a string`;
  // A lone half of a UTF-16 pair has no form in UTF-8.
  return /\p{Surrogate}/u.test(value) ? "it holds a lone surrogate" : undefined;
};

const count: Check = (value) => (value === 0 ? undefined : whole(value));

const number: Check = (value) => (Number.isFinite(value) ? undefined : `${show(value)} is no number`);

const kinds = oneOf("dense", "sparse", "tokens");

const checks = {
  device: oneOf("auto", "wasm", "webgpu", "reference", "candle-transformers"),
  dtype: oneOf("auto", "f32", "f16", "int8"),
  role: oneOf("plain", "query", "document"),
  weights: text,
  threads,
  maxTokens: whole,
  maxQueryTokens: whole,
  dimensions: whole,
  topK: whole,
  flat: flag,
  normalize: flag,
  k1: number,
  b: number,
  epsilon: number,
  // What is in it the engine knows.
  analyzer: (value) => (typeof value === "object" && value !== null ? undefined : "it must be an object with a kind"),
  provider: oneOf("openai", "cohere", "voyage", "jina", "mistral", "gemini", "nomic", "tei"),
  model: text,
  timeoutMs: whole,
  maxRetries: count,
  concurrency: whole,
  batchSize: whole,
  batchTokens: whole,
  nativeDimensions: whole,
  outputDtype: oneOf("float", "int8", "uint8", "binary", "ubinary"),
  encodingFormat: oneOf("float", "base64"),
  truncate: oneOf("none", "start", "end"),
  task: text,
  title: text,
  lateChunking: flag,
  prompt: text,
  outputs: (value) => {
    if (!Array.isArray(value) || value.length === 0) return "it must be a list of one or more of dense, sparse, tokens";
    return value.map(kinds).find(Boolean);
  },
  prompts: (value) => {
    const prompts = typeof value === "object" && value !== null && !Array.isArray(value) ? Object.entries(value) : undefined;
    if (!prompts?.every(([role]) => role === "query" || role === "document")) return "it must be an object with query, document or both";
    return prompts.map(([, prompt]) => text(prompt)).find(Boolean);
  },
} satisfies Record<string, Check>;

export type Checked = keyof typeof checks;

type Picked<O, K extends keyof O> = { [N in K]?: Exclude<O[N], undefined | "auto"> };

/** The named options, those that are given, each checked. A device or dtype of `"auto"` is left to the engine. */
export function pick<O extends object, K extends keyof O & Checked>(options: O, ...names: K[]): Picked<O, K> {
  const picked: Partial<Record<K, unknown>> = {};
  for (const name of names) {
    const value: unknown = options[name];
    if (value === undefined) continue;
    const wrong = checks[name](value);
    if (wrong) throw invalid(name, wrong);
    const left = value === "auto" && (name === "device" || name === "dtype");
    if (!left) picked[name] = value;
  }
  return picked as Picked<O, K>;
}

/** What a load does with kept files. */
export function caching(cache: unknown = true): boolean | "reload" {
  const wrong = flag(cache);
  if (wrong && cache !== "reload") throw invalid("cache", `${show(cache)} is none of true, false, "reload"`);
  return cache as boolean | "reload";
}

/** Refuses options that there are not: one that is only misspelt would be left out in silence. */
export function only(options: object, names: readonly PropertyKey[]): void {
  if (typeof options !== "object" || options === null) throw invalid("options", `${show(options)} is no object`);
  const unknown = Object.keys(options).find((name) => !names.includes(name) && (options as Record<string, unknown>)[name] !== undefined);
  if (unknown !== undefined) throw invalid(unknown, `there is no such option here; there are ${names.map(String).sort().join(", ")}`);
}

/** A copy, for the array may change before it is read. What is in it is checked where it becomes text (`src/bindings`). */
export function list(texts: readonly string[]): readonly string[] {
  if (Array.isArray(texts)) return [...texts];
  throw new WickError({ code: "invalid_text", at: "texts", message: "texts must be an array of strings" });
}

function show(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}
