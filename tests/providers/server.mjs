// Every provider on one address, for tests in Rust, Node and browsers.
//
//   node tests/providers/server.mjs        prints its address, and ends with its standard input
//   import { serve } from "./server.mjs"   for tests in JavaScript
//
// The first part of a path names the provider, and the rest is the provider's own: /openai/embeddings. Each request is validated
// against the schemas beside this file (generate.py says where they are from); one that does not hold is answered as the provider
// would. Vectors come from the text and from what the request says that it is for, so that a wrong field is a wrong vector;
// tests/it/providers.rs computes the same.
//
// Parts that begin with ~ may stand before the provider:
//
//   ~id=NAME        keep the requests apart, for /log?id=NAME
//   ~FAULT          every request meets the fault
//   ~FAULT=ARG      with an argument; FAULTS says which there are
//   ~FAULT*N        only the first N requests with the same body
//   ~nocors         without the headers that let pages of other origins in
//
// GET /log?id=NAME gives what was asked: [{ provider, method, path, url, headers, body, status, at, abandoned }]; and `most`, how many
// at once.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const require = createRequire(new URL("../web/package.json", import.meta.url));
const Ajv = require("ajv/dist/2020.js").default;

// ---- values --------------------------------------------------------------------------------------------------------

/** FNV-1a of UTF-8, 32 bits. */
export function hash(text) {
  let state = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) state = Math.imul(state ^ byte, 0x01000193) >>> 0;
  return state;
}

/** Components between -1 and 1 from xorshift32, of unit length. */
export function unit(text, dimensions) {
  let state = hash(text) || 1;
  const values = Float64Array.from({ length: dimensions }, () => {
    state = (state ^ (state << 13)) >>> 0;
    state = (state ^ (state >>> 17)) >>> 0;
    state = (state ^ (state << 5)) >>> 0;
    return (state / 2 ** 32) * 2 - 1;
  });
  return scaled(values);
}

function scaled(values) {
  const norm = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0)) || 1;
  return Float32Array.from(values, (value) => value / norm);
}

/** What a text is encoded for goes into its vector. */
export const seed = (kind, text) => `${kind ?? ""}\n${text}`;

const words = (text) => text.split(/\s+/).filter(Boolean);
const tokens = (texts) => texts.reduce((sum, text) => sum + Math.ceil(Buffer.byteLength(text) / 4), 0);

/** A vector as the dtype has it: numbers, and their bytes. */
function typed(vector, dtype) {
  const bits = () => {
    const bytes = new Uint8Array(vector.length / 8);
    vector.forEach((value, index) => (bytes[index >> 3] |= (value >= 0) << (7 - (index & 7))));
    return bytes;
  };
  switch (dtype ?? "float") {
    case "float":
      return vector;
    case "int8":
      return Int8Array.from(vector, (value) => Math.floor(value * 127));
    case "uint8":
      return Uint8Array.from(vector, (value) => Math.floor(((value + 1) / 2) * 255));
    case "ubinary":
      return bits();
    case "binary":
      return Int8Array.from(bits(), (byte) => byte - 128);
  }
}

const base64 = (values) => Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString("base64");
const numbers = (values) => Array.from(values);

// ---- providers -----------------------------------------------------------------------------------------------------

/** Dimensions of models that the documentation lists; of others 16. */
const NATIVE = {
  "text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536, "embed-v4.0": 1536,
  "embed-english-v3.0": 1024, "voyage-4": 1024, "voyage-3.5": 1024, "jina-embeddings-v3": 1024, "mistral-embed": 1024,
  "codestral-embed": 1536, "gemini-embedding-001": 3072, "gemini-embedding-2": 3072, "nomic-embed-text-v1.5": 768,
};

/** The first of a model's dimensions, of unit length again unless told otherwise. */
function vector(model, kind, text, dimensions, normalized = true) {
  const whole = unit(seed(kind, text), NATIVE[model] ?? 16);
  if (!dimensions || dimensions >= whole.length) return whole;
  const cut = whole.subarray(0, dimensions);
  return normalized ? scaled(cut) : cut;
}

class Refused extends Error {
  constructor(status, message, details = {}) {
    super(message);
    Object.assign(this, { status, details });
  }
}

const tooMany = (count, most, message = `at most ${most} inputs`) => {
  if (count > most) throw new Refused(400, message);
};

const list = (model, texts, embedding, usage) => ({
  object: "list",
  data: texts.map((text, index) => ({ object: "embedding", index, embedding: embedding(text) })),
  model,
  usage,
});

/** Scores by document, best first. */
export const score = (query, document) => Math.fround(hash(`${query}\n${document}`) / 2 ** 32);
const ranks = (query, documents, top, name) =>
  documents
    .map((document, index) => ({ index, [name]: score(query, document) }))
    .sort((a, b) => b[name] - a[name])
    .slice(0, top ?? documents.length);

const bearer = (headers) => /^Bearer (\S+)$/.exec(headers.authorization ?? "")?.[1];

/**
 * Each: `key` of the headers, `optional` where none is needed, `operations` by path, and `error` in the provider's form. `described`
 * false where the description has no form for such an answer. `base` may stand before a path: the provider's own client sends it
 * whatever its address, while Wick has it in the address.
 */
const PROVIDERS = {
  openai: {
    key: bearer,
    operations: {
      "/embeddings": (body) => {
        const texts = [body.input].flat();
        if (texts.some((text) => text === "")) throw new Refused(400, "'$.input' is invalid.", { param: "input" });
        if (tokens(texts) > 300_000) {
          const message = `Requested ${tokens(texts)} tokens, max 300000 tokens per request`;
          throw new Refused(400, message, { type: "max_tokens_per_request", code: "max_tokens_per_request" });
        }
        if (body.dimensions && body.model === "text-embedding-ada-002") {
          throw new Refused(400, "This model does not support specifying dimensions.");
        }
        const row = (text) => vector(body.model, "", text, body.dimensions);
        const write = body.encoding_format === "base64" ? base64 : numbers;
        const used = tokens(texts);
        const answer = list(body.model, texts, (text) => write(row(text)), { prompt_tokens: used, total_tokens: used });
        return { answer, described: write === numbers };
      },
    },
    error: (status, message, details) => ({
      error: { message, type: "invalid_request_error", param: null, code: status === 401 ? "invalid_api_key" : null, ...details },
    }),
  },
  cohere: {
    key: bearer,
    operations: {
      "/v2/embed": ({ model, texts, input_type, embedding_types = ["float"], output_dimension }) => {
        const rows = texts.map((text) => vector(model, input_type, text, output_dimension));
        const write = (type) => rows.map((row) => (type === "base64" ? base64(row) : numbers(typed(row, type))));
        const embeddings = Object.fromEntries(embedding_types.map((type) => [type, write(type)]));
        const meta = { api_version: { version: "2" }, billed_units: { input_tokens: tokens(texts) } };
        return { answer: { id: "c0ffee", response_type: "embeddings_by_type", embeddings, texts, meta, api_version: "2" } };
      },
      "/v2/rerank": ({ query, documents, top_n }) => {
        const meta = { api_version: { version: "2" }, billed_units: { search_units: 1 } };
        return { answer: { id: "c0ffee", results: ranks(query, documents, top_n, "relevance_score"), meta } };
      },
    },
    error: (status, message) => ({ message, id: "c0ffee" }),
  },
  voyage: {
    key: bearer,
    operations: {
      "/embeddings": ({ model, input, input_type, output_dimension, output_dtype, encoding_format }) => {
        const texts = [input].flat();
        tooMany(texts.length, 1000);
        const row = (text) => typed(vector(model, input_type, text, output_dimension), output_dtype);
        const write = encoding_format === "base64" ? base64 : numbers;
        const answer = list(model, texts, (text) => write(row(text)), { total_tokens: tokens(texts) });
        return { answer, described: write === numbers };
      },
      "/rerank": ({ model, query, documents, top_k }) => {
        tooMany(documents.length, 1000);
        const data = ranks(query, documents, top_k, "relevance_score");
        return { answer: { object: "list", data, model, usage: { total_tokens: tokens(documents) } } };
      },
    },
    error: (status, message) => ({ detail: message }),
  },
  jina: {
    key: bearer,
    operations: {
      "/embeddings": ({ model, input, task, dimensions, normalized = false, embedding_type = "float", late_chunking }) => {
        // Together they are one text, whose parts are encoded in its sight.
        const kind = late_chunking ? `${task ?? ""}+${hash(input.join(" "))}` : task;
        const row = (text) => vector(model, kind, text, dimensions, normalized);
        const write = (vector) => (embedding_type === "base64" ? base64(vector) : numbers(typed(vector, embedding_type)));
        const usage = { total_tokens: tokens(input), prompt_tokens: tokens(input) };
        return { answer: list(model, input, (text) => write(row(text)), usage) };
      },
      "/rerank": ({ model, query, documents, top_n, return_documents = true }) => {
        const results = ranks(query, documents, top_n, "relevance_score");
        if (return_documents) for (const rank of results) rank.document = { text: documents[rank.index] };
        return { answer: { model, usage: { total_tokens: tokens(documents) }, results } };
      },
    },
    error: (status, message) => ({ detail: message }),
  },
  mistral: {
    key: bearer,
    base: "/v1",
    // <https://github.com/mistralai/client-js/issues/21>, infio-copilot#146: other headers fail the preflight.
    allows: ["authorization", "content-type", "accept"],
    operations: {
      "/embeddings": ({ model, input, output_dimension, output_dtype, encoding_format }) => {
        const texts = [input].flat();
        tooMany(texts.length, 256, "Too many inputs in request. Split into more batches.");
        if (tokens(texts) > 16_384) throw new Refused(400, `Too many tokens in batch. Max is 16384 got ${tokens(texts)}`);
        const row = (text) => typed(vector(model, "", text, output_dimension), output_dtype);
        const write = encoding_format === "base64" ? base64 : numbers;
        const used = tokens(texts);
        const usage = { prompt_tokens: used, completion_tokens: 0, total_tokens: used };
        const answer = { id: "m1", ...list(model, texts, (text) => write(row(text)), usage) };
        return { answer, described: write === numbers };
      },
    },
    error: (status, message) =>
      status === 422
        ? { detail: [{ loc: ["body"], msg: message, type: "value_error" }] }
        : { object: "error", message, type: "invalid_request", param: null, code: "1500" },
  },
  gemini: {
    key: (headers) => headers["x-goog-api-key"],
    wrongKey: 400,
    operations: {
      "/v1beta/models/{model}:batchEmbedContents": ({ requests }, path) => {
        const embeddings = requests.map(({ model, content, taskType, title, outputDimensionality }) => {
          const name = model.replace("models/", "");
          if (!path.startsWith(`/v1beta/${model}:`)) throw new Refused(400, "the model is not that of the address");
          if (title !== undefined && taskType !== "RETRIEVAL_DOCUMENT") throw new Refused(400, "title is for documents");
          const isSecond = name.startsWith("gemini-embedding-2");
          if (isSecond && (taskType || title)) throw new Refused(400, "taskType is not supported by this model");
          const kind = [taskType, title].filter(Boolean).join("+");
          return { values: numbers(vector(name, kind, content.parts[0].text, outputDimensionality, isSecond)) };
        });
        return { answer: { embeddings } };
      },
    },
    error: (status, message, details) => ({
      error: { code: status, message, status: status === 429 ? "RESOURCE_EXHAUSTED" : "INVALID_ARGUMENT", ...details },
    }),
  },
  nomic: {
    key: bearer,
    operations: {
      "/v1/embedding/text": ({ model, texts, task_type, dimensionality, long_text_mode }) => {
        tooMany(texts.length, 10);
        const kind = [task_type, long_text_mode].filter(Boolean).join("+");
        const embeddings = texts.map((text) => numbers(vector(model, kind, text, dimensionality)));
        const used = tokens(texts);
        return { answer: { embeddings, usage: { prompt_tokens: used, total_tokens: used }, model } };
      },
    },
    error: (status, message) => ({ detail: message }),
  },
  tei: {
    key: bearer,
    optional: true,
    operations: {
      "/embed": ({ inputs, prompt_name, dimensions, normalize = true }) => {
        const rows = [inputs].flat().map((text) => numbers(vector("", prompt_name, text, dimensions, normalize)));
        return teiAnswer(rows, [inputs].flat());
      },
      "/embed_sparse": ({ inputs, prompt_name }) => {
        const row = (text) => {
          const counts = new Map();
          for (const word of words(seed(prompt_name, text))) {
            const index = hash(word) % 30522;
            counts.set(index, (counts.get(index) ?? 0) + 0.5);
          }
          return [...counts].map(([index, value]) => ({ index, value }));
        };
        return teiAnswer([inputs].flat().map(row), [inputs].flat());
      },
      "/rerank": ({ query, texts }) => teiAnswer(ranks(query, texts, undefined, "score"), texts),
      "/v1/embeddings": (body) => {
        const texts = [body.input].flat();
        const write = body.encoding_format === "base64" ? base64 : numbers;
        const used = tokens(texts);
        const row = (text) => write(vector("", "", text, body.dimensions));
        const answer = list(body.model ?? "tei", texts, row, { prompt_tokens: used, total_tokens: used });
        return { ...teiAnswer(answer, texts), answer };
      },
    },
    error: (status, message) => ({ error: message, error_type: status === 429 ? "Overloaded" : "Validation" }),
  },
};

function teiAnswer(answer, texts) {
  if (texts.length > 32) throw new Refused(413, `batch size ${texts.length} > maximum allowed batch size 32`);
  return { answer, headers: { "x-compute-tokens": String(tokens(texts)) } };
}

// ---- faults --------------------------------------------------------------------------------------------------------

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** The list of rows of any answer, and how to set a row's vector: what faults break. */
function rows(answer) {
  const embeddings = answer.embeddings;
  if (Array.isArray(answer)) return answer;
  if (answer.data ?? answer.results) return answer.data ?? answer.results;
  return Array.isArray(embeddings) ? embeddings : Object.values(embeddings)[0];
}

/** Changes the first row's vector, wherever it is. */
function change(answer, edit) {
  const all = rows(answer);
  const [first] = all;
  if (Array.isArray(first)) all[0] = edit(first);
  else for (const name of ["embedding", "values", "relevance_score", "score"]) if (name in first) first[name] = edit(first[name]);
}

/** Writes numbers that JSON does not know. */
const NAN = "__NaN__";
const text = (answer) => JSON.stringify(answer).replaceAll(`"${NAN}"`, "NaN");

/** Each gets what there is of a request, `reply` and `fail`, and answers in its own way; true: it did not. */
const FAULTS = {
  /** A status in the provider's form. */
  status: ({ fail, argument }) => fail(Number(argument), "it is so today"),
  /** 429 with Retry-After in seconds, as a date so many seconds ahead, in milliseconds, or as Gemini writes it. */
  retry: ({ fail, argument }) => fail(429, "slow down", { "retry-after": argument }),
  "retry-date": ({ fail, argument }) =>
    fail(429, "slow down", { "retry-after": new Date(Date.now() + 1000 * argument).toUTCString() }),
  "retry-ms": ({ fail, argument }) => fail(429, "slow down", { "retry-after-ms": argument }),
  "retry-delay": ({ fail, argument }) => {
    const details = [{ "@type": "type.googleapis.com/google.rpc.RetryInfo", retryDelay: argument }];
    return fail(429, "slow down", {}, { details });
  },
  quota: ({ fail }) => fail(429, "You exceeded your current quota", {}, { type: "insufficient_quota", code: "insufficient_quota" }),
  /** 413 to more than so many inputs. */
  most: ({ fail, argument, answer }) => (rows(answer).length > Number(argument) ? fail(413, "too large") : true),
  /** 400 where the request has the text in it. */
  has: ({ fail, argument, raw }) => (raw.includes(argument) ? fail(400, "not this one") : true),
  reset: ({ response }) => response.socket.resetAndDestroy(),
  hang: () => {},
  /** Headers, and then a byte at a time for so many milliseconds before the rest. */
  slow: async ({ response, headers, argument, answer }) => {
    const body = Buffer.from(text(answer));
    response.writeHead(200, { ...headers, "content-type": "application/json", "content-length": body.length });
    const end = Date.now() + Number(argument);
    let sent = 0;
    for (; Date.now() < end && !response.destroyed && sent < body.length - 1; sent++) {
      response.write(body.subarray(sent, sent + 1));
      await pause(20);
    }
    response.end(body.subarray(sent));
  },
  /** As long as it says, and broken off in the middle; `chunked`: without a length. */
  half: ({ response, headers, argument, answer }) => {
    const body = Buffer.from(text(answer));
    const length = argument === "chunked" ? {} : { "content-length": body.length };
    response.writeHead(200, { ...headers, "content-type": "application/json", ...length });
    response.write(body.subarray(0, body.length / 2), () => response.socket.destroy());
  },
  gzip: ({ reply, answer }) => reply(200, gzipSync(text(answer)), { "content-encoding": "gzip" }),
  "bad-gzip": ({ reply, answer }) => reply(200, text(answer), { "content-encoding": "gzip" }),
  html: ({ reply, argument }) => reply(Number(argument ?? 200), "<html><body>Bad gateway</body></html>", { "content-type": "text/html" }),
  type: ({ reply, answer }) => reply(200, text(answer), { "content-type": "text/html" }),
  cut: ({ reply, answer }) => reply(200, text(answer).slice(0, -20)),
  empty: ({ reply }) => reply(200, ""),
  redirect: ({ reply, request }) => reply(307, "", { location: request.url.replace(/\/~redirect[^/]*/, "") }),
  /** A header of its own length, and no end. */
  endless: async ({ response, headers }) => {
    response.writeHead(200, { ...headers, "content-type": "application/json" });
    const spaces = Buffer.alloc(1 << 20, " ");
    while (!response.destroyed) if (!response.write(spaces)) await pause(1);
  },
  /** Repeats everything it was sent, as an error. */
  echo: ({ fail, request, argument }) => fail(Number(argument ?? 400), JSON.stringify(request.headers), { "x-request-id": "req_echo" }),
  fewer: ({ answer, reply }) => (rows(answer).pop(), reply(200, text(answer))),
  more: ({ answer, reply }) => (rows(answer).push(structuredClone(rows(answer)[0])), reply(200, text(answer))),
  short: ({ answer, reply }) => (change(answer, (row) => (Array.isArray(row) ? row.slice(1) : row)), reply(200, text(answer))),
  nan: ({ answer, reply }) => (change(answer, (row) => (Array.isArray(row) ? [NAN, ...row.slice(1)] : NAN)), reply(200, text(answer))),
  null: ({ answer, reply }) => (change(answer, (row) => (Array.isArray(row) ? [null, ...row.slice(1)] : null)), reply(200, text(answer))),
  index: ({ answer, reply, argument }) => {
    const [first] = rows(answer);
    if (argument === "none") delete first.index;
    else first.index = Number(argument);
    reply(200, text(answer));
  },
  shuffle: ({ answer, reply }) => (rows(answer).reverse(), reply(200, text(answer))),
};

// ---- server --------------------------------------------------------------------------------------------------------

const schemas = new Ajv({ strict: false, validateFormats: false, allErrors: true });
for (const provider of Object.keys(PROVIDERS)) {
  const file = new URL(`./schemas/${provider}.json`, import.meta.url);
  schemas.addSchema({ ...JSON.parse(readFileSync(file, "utf8")), $id: `https://test/${provider}` });
}

/** What is wrong with a request or an answer by its description, or nothing. */
function wrong(provider, operation, part, value) {
  const escape = (name) => encodeURIComponent(name.replaceAll("~", "~0").replaceAll("/", "~1"));
  const pointer = ["operations", operation, ...part].map(escape).join("/");
  const id = `https://test/${provider}#/${pointer}`;
  const validate = schemas.getSchema(id);
  if (!validate) throw new Error(`no schema ${id}`);
  return validate(value) ? undefined : schemas.errorsText(validate.errors, { dataVar: part[0] });
}

async function read(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

/** Serves on 127.0.0.1; gives `url`, `log(id)` and `close()`. */
export async function serve(port = 0) {
  const logs = new Map();
  const met = new Map();
  const log = (id) => {
    if (!logs.has(id)) logs.set(id, { requests: [], now: 0, most: 0 });
    return logs.get(id);
  };

  const handle = async (request, response) => {
    const { pathname, searchParams } = new URL(request.url, "http://localhost");
    if (request.method === "GET" && pathname === "/log") {
      const { requests, most } = log(searchParams.get("id") ?? "");
      return response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ requests, most }));
    }
    const parts = pathname.split("/").slice(1);
    const directives = [];
    while (parts[0]?.startsWith("~")) {
      const [, name, argument, times] = /^~([a-z-]+)(?:=([^*]*))?(?:\*(\d+))?$/.exec(decodeURIComponent(parts.shift())) ?? [];
      directives.push({ name, argument, times: times === undefined ? Infinity : Number(times) });
    }
    const id = directives.find(({ name }) => name === "id")?.argument ?? "";
    const provider = PROVIDERS[parts[0]];
    const whole = `/${parts.slice(1).join("/")}`;
    const path = provider?.base && whole.startsWith(`${provider.base}/`) ? whole.slice(provider.base.length) : whole;
    const asked = (request.headers["access-control-request-headers"] ?? "").split(/, */).filter(Boolean);
    const opened = !directives.some(({ name }) => name === "nocors") && asked.every((name) => provider?.allows?.includes(name) ?? true);
    const headers = {
      "x-request-id": `req_${hash(request.url).toString(16)}`,
      ...(opened && {
        "access-control-allow-origin": "*",
        "access-control-allow-headers": asked.join(", "),
        "access-control-expose-headers": "retry-after, retry-after-ms, x-request-id, x-compute-tokens",
      }),
    };
    const reply = (status, body, more = {}) => {
      if (response.destroyed) return;
      response.writeHead(status, { ...headers, "content-type": "application/json", "content-length": Buffer.byteLength(body), ...more }).end(body);
    };
    if (request.method === "OPTIONS") return reply(204, "");
    if (!provider) return reply(404, JSON.stringify({ error: "no such provider" }));

    const record = log(id);
    record.most = Math.max(record.most, ++record.now);
    const entry = { provider: parts[0], method: request.method, path, url: request.url, headers: request.headers, at: Date.now() };
    record.requests.push(entry);
    response.on("close", () => {
      record.now--;
      entry.status = response.statusCode;
      entry.abandoned = !response.writableFinished;
    });
    const fail = (status, message, more, details) =>
      reply(status, JSON.stringify(provider.error(status, message, details)), more);
    const raw = await read(request);
    try {
      if (request.method !== "POST") throw new Refused(405, "only POST");
      if (request.headers["content-type"] !== "application/json") throw new Refused(415, "only JSON");
      const key = provider.key(request.headers);
      if (!provider.optional && !key) throw new Refused(401, "no key");
      if (key?.startsWith("wrong")) throw new Refused(provider.wrongKey ?? 401, "Incorrect API key provided");
      if (key && request.url.includes(key)) throw new Refused(400, "the key is in the address");
      entry.body = JSON.parse(raw);
      const operation = Object.keys(provider.operations).find((template) => matches(template, path));
      if (!operation) throw new Refused(404, `no ${path}`);
      const problem = wrong(parts[0], operation, ["request"], entry.body);
      if (problem) throw new Refused(422, problem);
      const { answer, described = true, headers: more } = provider.operations[operation](entry.body, path);
      Object.assign(headers, more);
      const own = described && wrong(parts[0], operation, ["responses", "200"], answer);
      if (own) throw new Error(`this server answers what is not described: ${own}`);
      const body = createHash("sha256").update(raw).digest("hex");
      for (const [number, { name, argument, times }] of directives.entries()) {
        if (name === "id" || name === "nocors") continue;
        const fault = FAULTS[name];
        if (!fault) throw new Refused(404, `no fault ${name}`);
        const counter = `${id} ${number} ${name} ${body}`;
        const count = met.get(counter) ?? 0;
        met.set(counter, count + 1);
        if (count >= times) continue;
        const unmet = await fault({ request, response, headers, argument, raw, answer, reply, fail });
        if (unmet !== true) return;
      }
      reply(200, text(answer));
    } catch (error) {
      if (!(error instanceof Refused)) console.error(error);
      fail(error.status ?? 500, error.message, {}, error.details);
    }
  };

  const server = createServer((request, response) => void handle(request, response).catch(console.error));
  await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
  const close = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return { url: `http://127.0.0.1:${server.address().port}`, log, close };
}

/** Whether a path is of a template such as /models/{model}:verb. */
function matches(template, path) {
  const pattern = template.replace(/[.*+?^$()|[\]\\]/g, "\\$&").replace(/\{\w+\}/g, "[^/:]+");
  return new RegExp(`^${pattern}$`).test(path);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { url } = await serve(Number(process.argv[2] ?? 0));
  console.log(url);
  process.stdin.resume().on("end", () => process.exit());
}
