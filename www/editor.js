/** The textarea: one text per line, with the number of each text beside it. */

import { byId, make, plural } from "./dom.js";

/** What a page can show at once; further lines are left alone. */
const MAX_TEXTS = 60;

export function editor({ onEdit, onChoose }) {
  const area = byId("texts");
  const gutter = byId("gutter");
  const note = byId("texts-note");
  let chosen = 0;

  /** Every line with the index of its text; blank lines and those beyond the limit have none. */
  function numbered() {
    let next = 0;
    return area.value.split("\n").map((line) => {
      const text = line.trim();
      return { text, index: text && next < MAX_TEXTS ? next++ : undefined };
    });
  }

  function read() {
    const lines = numbered().flatMap(({ text, index }) => (index === undefined ? [] : [text]));
    chosen = Math.max(0, Math.min(chosen, lines.length - 1));
    return { lines, chosen };
  }

  function drawGutter() {
    const items = numbered().map(({ index }) =>
      make("li", { textContent: index === undefined ? "" : index + 1, className: index === chosen ? "chosen" : "" }),
    );
    gutter.replaceChildren(...items);
    follow();
  }

  function follow() {
    gutter.style.transform = `translateY(${-area.scrollTop}px)`;
  }

  /** The text that the cursor is in. */
  function atCursor() {
    const line = area.value.slice(0, area.selectionStart).split("\n").length - 1;
    return numbered()[line]?.index;
  }

  function choose(index) {
    if (index === undefined || index === chosen) return;
    chosen = index;
    drawGutter();
    onChoose();
  }

  area.addEventListener("input", () => {
    chosen = atCursor() ?? chosen;
    read();
    drawGutter();
    onEdit();
  });
  area.addEventListener("scroll", follow);
  for (const event of ["keyup", "click"]) area.addEventListener(event, () => choose(atCursor()));
  drawGutter();

  return {
    read,
    choose,

    /** Says how many texts there are and which were cut. */
    note(cut, maxTokens) {
      const all = numbered();
      const used = all.filter(({ index }) => index !== undefined).length;
      const beyond = all.filter(({ text }) => text).length - used;
      const parts = [beyond ? `The first ${used} of ${used + beyond} texts are used.` : `${plural(used, "text")}.`];
      if (cut.length) {
        const which = cut.map((index) => index + 1).join(", ");
        parts.push(`Cut to ${maxTokens} tokens: ${which}.`);
      }
      note.textContent = parts.join(" ");
      note.classList.toggle("warning", beyond > 0 || cut.length > 0);
    },
  };
}
