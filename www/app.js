/** Wires the panels together: loads a model, and shows the results of whatever is typed. */

import { check } from "./check.js";
import { editor } from "./editor.js";
import { inspector } from "./inspector.js";
import { matrix } from "./matrix.js";
import { modelBox } from "./model-box.js";
import { ranking } from "./ranking.js";
import { Vectors } from "./vectors.js";

const DEBOUNCE_MS = 150;
/** A provider counts every call. */
const REMOTE_DEBOUNCE_MS = 800;

const box = modelBox({ onLoad: load, onCancel: () => loading.abort() });
const texts = editor({ onEdit: edited, onChoose: show });
const search = ranking({ onEdit: edited });
const heatMap = matrix();
const details = inspector({ onChoose: texts.choose });
const checking = check();

/** The embedder and the vectors it gave; undefined until a model is loaded. */
let model;
let loading = new AbortController();
let showing = new AbortController();
let timer;

load(box.model());

/** Replaces the model. The old one goes first, so that the memory never holds two. */
async function load({ source, provider, options }) {
  loading.abort();
  const { signal } = (loading = new AbortController());
  model?.embedder.dispose();
  model = undefined;
  setState("loading");
  box.loading();
  show();

  const start = performance.now();
  try {
    // Imported here, so that a package that is not there is an error a person sees.
    const { Embedder } = await import("./wick-embed/index.js");
    const onProgress = (progress) => signal.aborted || box.progress(progress);
    const embedder = provider
      ? await Embedder.remote(provider, options)
      : await Embedder.load(source, { signal, onProgress, normalize: true, outputs: ["dense"] });
    if (signal !== loading.signal) return embedder.dispose();
    if (signal.aborted) {
      embedder.dispose();
      throw Object.assign(new Error("the person asked to stop"), { code: "aborted" });
    }
    model = {
      embedder,
      documents: new Vectors((texts, options) => embedder.encodeDocuments(texts, options)),
      queries: new Vectors((texts, options) => embedder.encodeQueries(texts, options)),
    };
    box.loaded(embedder, performance.now() - start);
    show();
  } catch (error) {
    // Otherwise another load has begun, and the page tells of that one.
    if (signal === loading.signal) fail(error);
  }
}

/** Results on the page are old from the first key on, and new ones are worth computing once the keys rest. */
function edited() {
  showing.abort();
  if (model) setState("working");
  clearTimeout(timer);
  timer = setTimeout(show, model?.embedder.provider ? REMOTE_DEBOUNCE_MS : DEBOUNCE_MS);
}

/** Brings the page up to what is typed: encodes what is new and draws everything. Without a model it draws the frame. */
async function show() {
  clearTimeout(timer);
  showing.abort();
  const { signal } = (showing = new AbortController());
  const { lines, chosen } = texts.read();
  const sought = search.read();
  checking.of(model?.embedder, lines);
  if (!model) return draw(lines, chosen, sought);

  const { embedder, documents, queries } = model;
  const query = sought ? [sought] : [];
  setState("working");
  if (documents.missing(lines).length + queries.missing(query).length > 0) box.working();
  try {
    const onProgress = (progress) => signal.aborted || box.encoding(progress);
    const ofLines = await documents.fill(lines, { signal, onProgress });
    const ofQuery = await queries.fill(query, { signal });
    const [tokens] = chosen in lines && embedder.tokenize ? await embedder.tokenize([lines[chosen]], { role: "document" }) : [];
    if (signal.aborted) return;
    const run = ofLines ?? ofQuery;
    if (run) box.encoded(run, embedder);
    draw(lines, chosen, sought, tokens);
    box.ready(lines.length);
    setState("ready");
  } catch (error) {
    if (!signal.aborted) fail(error);
  }
}

function draw(lines, chosen, sought, tokens) {
  const known = lines.map((text) => model?.documents.get(text));
  const cut = lines.flatMap((text, index) => (model?.documents.isCut(text) ? [index] : []));
  texts.note(cut, model?.embedder.maxTokens);
  heatMap.render(lines, known);
  search.render(lines, known, model?.queries.get(sought));
  details.render(lines, chosen, tokens, known[chosen], model?.embedder.provider !== undefined);
}

function fail(error) {
  box.failed(error, model !== undefined);
  setState("error");
}

/** Styles and tests read it. "ready" means that the results on the page are those of what is typed. */
function setState(state) {
  document.documentElement.dataset.state = state;
  checking.allow(state === "ready");
}
