/** The check: encodes the page's texts on Candle too, and tells how alike the vectors are. */

import { byId, downloaded, make, plural } from "./dom.js";
import { complain, explain } from "./explain.js";

const BEGIN = "Check with Candle";
const HINT =
  "Encodes your texts once more with Candle, another library for neural networks, and compares the vectors. " +
  "For this Candle is fetched (5 MB) and the model is loaded again; nothing leaves this page.";
const HINT_REMOTE = "Only a model that computes in this page can be compared with Candle, and a provider’s does not.";
/** What `verify` gives, in words. */
const NAMES = { reference: "Candle", candleTransformers: "Candle’s own BERT" };
/** Programs that add in another order are not the same to the last digit. */
const ALIKE = 0.99999;

export function check() {
  const button = byId("check");
  const hint = byId("check-hint");
  const status = byId("check-status");
  const bytes = byId("check-bytes");
  const bar = byId("check-progress");
  const error = byId("check-error");
  const found = byId("check-found");
  /** What the page shows. */
  let embedder;
  let lines = [];
  let allowed = false;
  /** Ends the check that runs. */
  let running;

  button.addEventListener("click", () => (running ? running.abort() : start()));
  clear();

  async function start() {
    clear();
    const { signal } = (running = new AbortController());
    bar.hidden = false;
    offer();
    // Until a file comes: the module may take a while.
    status.textContent = "Loading Candle";
    try {
      const results = await embedder.verify(lines, { role: "document", signal, onProgress });
      if (running?.signal === signal) tell(results);
    } catch (problem) {
      // Otherwise it is of texts or of a model that the page no longer shows.
      if (running?.signal === signal) fail(problem, signal.aborted);
    }
    if (running?.signal !== signal) return;
    running = undefined;
    offer();
  }

  function onProgress(progress) {
    if (!running || running.signal.aborted) return;
    const { loaded, total } = progress;
    const isWhole = loaded === total;
    // What stays the same is left alone: a screen reader would read it out again.
    const now = isWhole ? "Encoding with Candle" : "Loading the model for Candle";
    if (status.textContent !== now) status.textContent = now;
    bytes.textContent = isWhole ? "" : downloaded(progress);
    // Without a value the bar shows that the length is not known.
    if (total && !isWhole) bar.value = loaded / total;
    else bar.removeAttribute("value");
  }

  function tell(results) {
    clear();
    const rows = Object.entries(results).map(([name, { dense }]) => [NAMES[name], Math.min(...dense.cosines), dense.difference]);
    const same = rows.every(([, cosine]) => cosine >= ALIKE);
    const count = plural(lines.length, "text");
    status.textContent = same ? `Both give the same vectors, up to rounding: ${count} compared` : `The vectors differ: ${count} compared`;
    found.tBodies[0].replaceChildren(...rows.map(row));
    found.hidden = false;
  }

  function fail(problem, cancelled) {
    clear();
    status.textContent = cancelled ? "Check cancelled" : "Not checked";
    if (!cancelled) complain(error, explain(problem, { checking: true }));
  }

  function clear() {
    status.textContent = bytes.textContent = "";
    bar.removeAttribute("value");
    bar.hidden = error.hidden = found.hidden = true;
  }

  /** The button cancels a check that runs. */
  function offer() {
    const isRemote = embedder?.provider !== undefined;
    button.textContent = running ? "Cancel" : BEGIN;
    button.disabled = !running && (!allowed || !embedder || isRemote || lines.length === 0);
    hint.textContent = isRemote ? HINT_REMOTE : HINT;
  }

  return {
    /** The model and the texts on the page. What was found of others goes, a check of them ends. */
    of(nextEmbedder, nextLines) {
      const same = embedder === nextEmbedder && lines.length === nextLines.length && lines.every((line, index) => line === nextLines[index]);
      [embedder, lines] = [nextEmbedder, nextLines];
      if (!same) {
        running?.abort();
        running = undefined;
        clear();
      }
      offer();
    },

    /** Whether the model has nothing else to do. */
    allow(now) {
      allowed = now;
      offer();
    },
  };
}

function row([name, cosine, difference]) {
  // Cut off and not rounded: it must not look better than it is.
  const shown = (Math.floor(cosine * 1e7) / 1e7).toFixed(7);
  const cells = [shown, difference.toFixed(8)].map((textContent) => make("td", { textContent }));
  return make("tr", {}, make("th", { textContent: name, scope: "row" }), ...cells);
}
