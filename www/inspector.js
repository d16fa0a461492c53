/** One text from close by: its tokens, and its vector as numbers. */

import { byId, decimal, make } from "./dom.js";
import { roving } from "./roving.js";
import { strip } from "./strip.js";

const SHOWN_VALUES = 5;
const COPY = "Copy as JSON";
const COPIED_MS = 1600;
/** [CLS] and its like: a text itself never gives such a token, brackets come apart. */
const SPECIAL = /^\[[A-Z]+\]$/;
/** A piece that continues a word. */
const CONTINUES = "##";

export function inspector({ onChoose }) {
  const choice = byId("chosen");
  const copy = byId("copy");
  const drawStrip = strip(document.querySelector("#vector canvas"));
  let vector;

  choice.addEventListener("change", () => onChoose(choice.selectedIndex));
  copy.addEventListener("click", async () => {
    copy.textContent = (await toClipboard(JSON.stringify(Array.from(vector)))) ? "Copied" : "Not allowed";
    setTimeout(() => (copy.textContent = COPY), COPIED_MS);
  });

  const drawTokens = tokenList();

  return {
    /** `tokens` and `newVector` are undefined while there are none; `remote` is whether there will be no tokens. */
    render(texts, chosen, tokens, newVector, remote) {
      vector = newVector;
      choice.replaceChildren(...texts.map((text, index) => new Option(`${index + 1}  ${text}`)));
      choice.selectedIndex = texts.length ? chosen : -1;
      choice.disabled = texts.length === 0;
      drawTokens(tokens, remote);
      drawStrip(vector);
      drawValues(vector);
      copy.disabled = !vector;
    },
  };
}

/** Whether it worked: a browser may ask first, and has no clipboard at all on a page without https. */
async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

function drawValues(vector) {
  const values = Array.from(vector?.subarray(0, SHOWN_VALUES) ?? [], (value) => decimal(value, 4));
  byId("vector-values").textContent = vector ? `[${values.join(", ")}, …]` : "–";
  byId("vector-size").textContent = vector ? `${vector.length} numbers` : "";
}

function tokenList() {
  const list = byId("tokens");
  const detail = byId("token-detail");
  const steps = { ArrowLeft: "previousElementSibling", ArrowRight: "nextElementSibling" };
  const ends = { Home: "firstElementChild", End: "lastElementChild" };

  roving(list, ".token", (token, key) => (steps[key] ? token[steps[key]] : ends[key] && list[ends[key]]));
  for (const event of ["focusin", "pointerover"]) {
    list.addEventListener(event, ({ target }) => {
      const token = target.closest(".token");
      if (!token) return;
      for (const other of list.querySelectorAll("[aria-selected=true]")) other.ariaSelected = "false";
      token.ariaSelected = "true";
      detail.textContent = `${token.textContent} has id ${token.dataset.id}${token.dataset.kind}`;
    });
  }

  return (tokens, remote) => {
    const strings = tokens?.strings ?? [];
    list.replaceChildren(...strings.map((string, index) => chip(string, tokens.ids[index], index)));
    byId("tokens-count").textContent = tokens ? strings.length : "";
    detail.textContent = tokens ? "Choose one to see its id" : remote ? "A provider does not tell its tokens" : "";
  };
}

function chip(string, id, index) {
  const special = SPECIAL.test(string);
  const continues = string.startsWith(CONTINUES) && string.length > CONTINUES.length;
  const element = make("span", { className: "token", role: "option", ariaSelected: "false", tabIndex: index ? -1 : 0 });
  element.classList.toggle("special", special);
  element.classList.toggle("continues", continues);
  if (continues) element.append(make("i", { textContent: CONTINUES }), string.slice(CONTINUES.length));
  else element.append(string);
  element.ariaLabel = `${string}, id ${id}`;
  element.dataset.id = id;
  element.dataset.kind = special ? ", added by the model" : continues ? ", continues the word" : "";
  return element;
}
