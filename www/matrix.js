/** The similarity of every pair of texts: a table whose cells are coloured (by style.css, from `--score`). */

import { byId, decimal, make } from "./dom.js";
import { roving } from "./roving.js";
import { cosine } from "./vectors.js";

/** With more texts than this, cells are too small for numbers and rows for their texts. */
const MAX_NUMBERS = 12;
/** Then only every fifth row and column says its number. */
const STEP = 5;

const unseen = (textContent) => make("span", { className: "unseen", textContent });

const cellAt = (table, row, col) => table.querySelector(`td[data-row="${row}"][data-col="${col}"]`);

/** Cosines are short in the cells: ".83", "−.05", "1". */
const short = (score) => decimal(score, 2).replace(/^(−?)0\./, "$1.").replace(/^1\.00$/, "1");

export function matrix() {
  const table = byId("matrix");
  const pair = byId("pair");
  let texts = [];
  /** The cell that a person pointed at. */
  let current;

  roving(table, "td", (cell, key) => {
    const last = texts.length - 1;
    const row = Number(cell.dataset.row);
    const col = Number(cell.dataset.col);
    const moves = {
      ArrowUp: [row - 1, col],
      ArrowDown: [row + 1, col],
      ArrowLeft: [row, col - 1],
      ArrowRight: [row, col + 1],
      Home: [row, 0],
      End: [row, last],
      PageUp: [0, col],
      PageDown: [last, col],
    };
    return moves[key] && cellAt(table, ...moves[key]);
  });
  for (const event of ["focusin", "pointerover"]) {
    table.addEventListener(event, ({ target }) => {
      const cell = target.closest("td");
      if (cell) point(cell);
    });
  }

  /** Builds the cells; only when the number of texts changes, so that the focus stays where it is while one types. */
  function build(size) {
    const columns = texts.map((_, col) => heading("col", col));
    const head = make("thead", {}, make("tr", {}, make("th", {}, unseen("Text")), ...columns));
    const rows = texts.map((_, row) => {
      const cells = texts.map((_, col) => {
        const cell = make("td", { tabIndex: row + col === 0 ? 0 : -1 }, make("span"));
        Object.assign(cell.dataset, { row, col });
        return cell;
      });
      return make("tr", {}, heading("row", row), ...cells);
    });
    table.replaceChildren(head, make("tbody", {}, ...rows));
    table.style.setProperty("--size", size);
    table.classList.toggle("dense", size > MAX_NUMBERS);
    current = undefined;
  }

  function heading(scope, index) {
    const shown = texts.length <= MAX_NUMBERS || (index + 1) % STEP === 0;
    const number = make("b", { textContent: index + 1, className: shown ? "" : "unseen" });
    return make("th", { scope }, number, make("span", { className: scope === "row" ? "label" : "unseen" }));
  }

  /** Without a cell pointed at, the two texts that are most alike say what the table is about. */
  function mostAlike() {
    let best;
    for (const cell of table.querySelectorAll("td[data-score]")) {
      const { row, col, score } = cell.dataset;
      if (row !== col && Number(score) > Number(best?.dataset.score ?? -Infinity)) best = cell;
    }
    return best;
  }

  function point(cell) {
    current = cell;
    for (const heading of table.querySelectorAll("th.active")) heading.classList.remove("active");
    const { row, col } = cell.dataset;
    table.tHead.rows[0].cells[Number(col) + 1].classList.add("active");
    table.tBodies[0].rows[row].cells[0].classList.add("active");
    tell(cell, "cosine");
  }

  function tell(cell, caption) {
    const { row, col, score } = cell.dataset;
    const value = make("b", { textContent: score === undefined ? "–" : decimal(Number(score), 3) });
    pair.replaceChildren(
      make("div", { className: "value" }, value, make("span", { textContent: caption })),
      ...[row, col].map((index) => make("p", {}, make("b", { textContent: Number(index) + 1 }), texts[index])),
    );
  }

  return {
    /** `vectors[i]` is undefined while text i has none. */
    render(newTexts, vectors) {
      const rebuild = newTexts.length !== texts.length;
      texts = newTexts;
      if (rebuild) build(texts.length);
      for (const [index, text] of texts.entries()) {
        table.tHead.rows[0].cells[index + 1].lastChild.textContent = text;
        table.tBodies[0].rows[index].cells[0].lastChild.textContent = text;
      }
      for (const cell of table.querySelectorAll("tbody td")) {
        const a = vectors[cell.dataset.row];
        const b = vectors[cell.dataset.col];
        paint(cell, a && b && cosine(a, b));
      }
      const shown = current ?? mostAlike();
      if (shown) tell(shown, current ? "cosine" : "most alike");
      else pair.replaceChildren();
    },
  };
}

function paint(cell, score) {
  const number = cell.firstChild;
  if (score === undefined) {
    delete cell.dataset.score;
    number.textContent = "";
    return;
  }
  cell.dataset.score = score.toFixed(6);
  cell.style.setProperty("--score", score.toFixed(3));
  number.textContent = short(score);
}
