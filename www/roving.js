/** One tab stop for many items: arrow keys move between them. */

/** `neighbour(item, key)` names the item that a key leads to, if any. Items start with tabindex -1, one of them with 0. */
export function roving(container, selector, neighbour) {
  const itemOf = (event) => event.target.closest(selector);

  container.addEventListener("focusin", (event) => {
    const item = itemOf(event);
    if (!item) return;
    for (const other of container.querySelectorAll(`${selector}[tabindex="0"]`)) other.tabIndex = -1;
    item.tabIndex = 0;
  });

  container.addEventListener("keydown", (event) => {
    const item = itemOf(event);
    if (!item || event.altKey || event.ctrlKey || event.metaKey) return;
    const next = neighbour(item, event.key);
    if (!next) return;
    // The page would scroll.
    event.preventDefault();
    next.focus();
  });
}
