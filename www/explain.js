/** Says in plain words what an error means for the person in front of the page. */

import { make } from "./dom.js";

const WORDS = {
  aborted: "Loading was cancelled.",
  network: "The model’s files could not be reached. Is there a connection, and is the name right?",
  http: "The server did not give out the model’s files. Is the name right?",
  missing_file: "A file of the model is not there. Is the name right, and is it a model for sentence embeddings?",
  unsupported_model: "This version does not know this kind of model.",
  invalid_config: "The model’s configuration could not be used.",
  invalid_json: "A file of the model is not what it should be.",
  invalid_tokenizer: "This version cannot read the model’s tokenizer.",
  invalid_weights: "The model’s weights are damaged, or in a format this version does not read.",
  missing_tensor: "The model’s weights do not fit its configuration.",
  wrong_shape: "The model’s weights do not fit its configuration.",
  out_of_memory: "There is not enough memory for this model.",
  executor: "This browser could not start the engine.",
  crashed: "The engine stopped. Try again to load it anew.",
};

/** The same of a provider. */
const REMOTE_WORDS = {
  network: "There is no answer from the provider. Perhaps it lets no pages in: then a proxy’s address helps.",
  http: "The provider refused the texts.",
  timeout: "The provider took too long.",
  invalid_option: "The provider cannot be asked like this.",
  crashed: "The engine stopped. Reload the page.",
  invalid_response: "The provider’s answer is not what it documents.",
};

/** By the status of its answer. */
const REFUSALS = {
  400: "The provider refused the request. Are the model’s name and the key right?",
  401: "The provider refused the key.",
  403: "The provider refused the key.",
  404: "The provider does not know this model or address.",
  429: "The provider asks to wait, or the account is used up.",
};

/** What else they mean where the model is there and is loaded again for Candle. */
const CHECK_WORDS = {
  network: "Candle or the model’s files could not be fetched. Is there a connection?",
  http: "The server did not give out the model’s files again.",
  out_of_memory: "There is not enough memory to load the model again.",
  crashed: "Candle stopped. The model itself still works.",
};

export function explain(error, { loading, remote, checking }) {
  const code = error?.code ?? error?.name ?? "error";
  // What is no answer's fault is that of this page's own files.
  if (remote && error?.at !== "wasm" && error?.at !== "wick-embed") {
    const summary = REFUSALS[error?.provider?.status] ?? REMOTE_WORDS[code] ?? "The texts could not be encoded.";
    return { code, message: error?.message ?? String(error), summary };
  }
  const fallback = loading ? "The model could not be loaded." : checking ? "The vectors could not be compared." : "The texts could not be encoded.";
  return { code, message: error?.message ?? String(error), summary: (checking ? CHECK_WORDS[code] : undefined) ?? WORDS[code] ?? fallback };
}

/** Shows it. */
export function complain(box, { summary, code, message }) {
  const detail = make("p", { className: "detail" }, make("code", { textContent: code }), ` ${message}`);
  box.replaceChildren(make("p", { textContent: summary }), detail);
  box.hidden = false;
}
