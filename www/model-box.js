/** The model box: which model, how far its download is, what it measured, and what went wrong. */

import { byId, count, downloaded, duration, plural } from "./dom.js";
import { complain, explain } from "./explain.js";
import { remoteForm } from "./remote-form.js";

/** A model of this site. */
const own = (name) => ({ source: `./models/${name}/`, name, origin: "from this site" });
const DEFAULT = own("all-MiniLM-L6-v2");
/** In words what `embedder.device` says. */
const DEVICES = { wasm: "WebAssembly", webgpu: "GPU" };

const where = ({ device, threads, provider }) => (provider ? "at the provider" : `${DEVICES[device]}, ${plural(threads, "thread")}`);

export function modelBox({ onLoad, onCancel }) {
  const field = byId("model-source");
  const status = byId("status");
  const encoded = byId("count");
  const bytes = byId("bytes");
  const bar = byId("load-progress");
  const button = byId("load-button");
  const error = byId("error");
  let model = DEFAULT;
  let isLoading = false;
  /** Bytes of the model. */
  let size = 0;

  byId("model-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const typed = field.value.trim();
    choose(typed ? { source: typed, name: typed, origin: /^[\w-]+\//.test(typed) ? "from huggingface.co" : "" } : DEFAULT);
  });
  for (const choice of document.querySelectorAll("[data-model]")) {
    choice.addEventListener("click", () => {
      field.value = "";
      choose(own(choice.dataset.model));
    });
  }
  remoteForm({ onChoose: choose });
  button.addEventListener("click", () => (isLoading ? onCancel() : onLoad(model)));

  function choose(chosen) {
    model = chosen;
    onLoad(model);
  }

  /** The one button of the box: cancels a load, or tries again. */
  function offer(label) {
    button.textContent = label;
    button.hidden = label === "";
  }

  function show(values) {
    for (const [id, value] of Object.entries(values)) {
      // What stays the same is left alone: a screen reader would read it out again.
      if (byId(id).textContent !== String(value)) byId(id).textContent = value;
    }
  }

  return {
    model: () => model,

    loading() {
      isLoading = true;
      error.hidden = true;
      bar.removeAttribute("value");
      offer("Cancel");
      show({ status: "Loading the model", count: "", bytes: "", "model-name": model.name, "model-origin": model.origin });
      for (const value of document.querySelectorAll(".readouts dd")) value.textContent = "–";
    },

    progress(progress) {
      const { loaded, total } = progress;
      // Without a value the bar shows that the length is not known.
      if (total) bar.value = loaded / total;
      size = total ?? loaded;
      bytes.textContent = downloaded(progress);
    },

    loaded(embedder, ms) {
      isLoading = false;
      bar.value = 1;
      offer("");
      const { provider, dimensions, maxTokens } = embedder;
      show({ device: where(embedder), "load-time": provider ? "–" : duration(ms), dimensions: dimensions ?? "–", "max-tokens": maxTokens ?? "–" });
      show({ bytes: provider ? "" : downloaded({ loaded: size }) });
    },

    working() {
      error.hidden = true;
      offer("");
      status.textContent = "Encoding";
    },

    /** Not in the status itself, where a screen reader would read out every step. */
    encoding({ done, total }) {
      encoded.textContent = `${done} of ${total}`;
    },

    /** Some things only an answer tells: what computed it, and how long a provider's vectors are. */
    encoded({ texts, tokens, ms }, embedder) {
      show({
        device: where(embedder),
        dimensions: embedder.dimensions ?? "–",
        "last-encode": `${plural(tokens, "token")}, ${duration(ms)}`,
        speed: `${count((tokens / ms) * 1000)} tokens/s`,
      });
      byId("last-encode").title = plural(texts, "text");
    },

    ready(texts) {
      error.hidden = true;
      offer("");
      show({ status: texts ? `Ready: ${plural(texts, "text")} compared` : "Ready: type a text", count: "" });
    },

    /** `usable` is whether the model is still there: then only this call failed. */
    failed(problem, usable) {
      const explained = explain(problem, { loading: isLoading, remote: model.provider !== undefined });
      isLoading = false;
      const retry = !usable || explained.code === "crashed";
      bar.value = 0;
      offer(retry ? "Try again" : "");
      show({ status: retry ? "No model" : "Not encoded", count: "", bytes: "" });
      complain(error, explained);
    },
  };
}
