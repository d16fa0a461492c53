/** Small helpers for elements and numbers. */

export const byId = (id) => document.getElementById(id);

/** An element with properties, for example `make("span", { className: "x", textContent: "y" })`. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** 12345.6 as "12,346". */
export const count = (value) => whole.format(value);

/** 1 text, 2 texts. */
export const plural = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

/** A signed decimal, with a minus sign that is as wide as a digit, and none before a zero. */
export const decimal = (value, digits) => value.toFixed(digits).replace(/^-(?=0\.?0*$)/, "").replace("-", "−");

const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

/** How much of a download is there. */
export const downloaded = ({ loaded, total }) => (total ? `${megabytes(loaded)} of ${megabytes(total)} MB` : `${megabytes(loaded)} MB`);

/** A duration in words that fit its size. */
export const duration = (ms) => (ms < 1000 ? `${count(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
