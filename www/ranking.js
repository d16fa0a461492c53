/** The search box: the texts by their similarity to a query. Without a query, in their own order. */

import { byId, decimal, make } from "./dom.js";
import { cosine } from "./vectors.js";

export function ranking({ onEdit }) {
  const input = byId("query");
  const list = byId("results");
  input.addEventListener("input", onEdit);

  return {
    read: () => input.value.trim(),

    /** `sought` is the query's vector; undefined when there is none (yet). */
    render(texts, vectors, sought) {
      const ranked = texts.map((text, index) => {
        const vector = vectors[index];
        return { text, index, score: sought && vector && cosine(sought, vector) };
      });
      if (sought) ranked.sort((a, b) => b.score - a.score);
      list.replaceChildren(...ranked.map(item));
      // A list that scrolls must be reachable by keyboard.
      if (list.scrollHeight > list.clientHeight) list.tabIndex = 0;
      else list.removeAttribute("tabindex");
    },
  };
}

function item({ text, index, score }) {
  const element = make(
    "li",
    {},
    make("span", { className: "score number", textContent: score === undefined ? "–" : decimal(score, 3) }),
    make("span", { className: "bar" }),
    make("span", { className: "text", textContent: text }),
  );
  element.dataset.index = index;
  if (score !== undefined) {
    element.dataset.score = score.toFixed(6);
    element.style.setProperty("--score", Math.max(0, score).toFixed(3));
  }
  return element;
}
