/** A vector as a strip of bars: up for positive components, down for negative ones. */

import { decimal } from "./dom.js";

/** Returns a function that draws a vector, or with undefined only the zero line. */
export function strip(canvas) {
  let vector;

  function draw() {
    const { width, height } = fit(canvas);
    const style = getComputedStyle(canvas);
    const context = canvas.getContext("2d");
    const middle = height / 2;
    context.clearRect(0, 0, width, height);
    context.fillStyle = style.getPropertyValue("--rule");
    context.fillRect(0, Math.floor(middle), width, 1);
    if (!vector) return;

    const peak = vector.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
    const step = width / vector.length;
    // Where bars are wide enough a gap tells them apart.
    const bar = step > 3 ? step - 1 : step;
    for (const [sign, color] of [[1, "--accent"], [-1, "--muted"]]) {
      context.fillStyle = style.getPropertyValue(color);
      vector.forEach((value, index) => {
        if (value * sign > 0) context.fillRect(index * step, middle, bar, (-value / peak) * middle);
      });
    }
  }

  new ResizeObserver(draw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  return (newVector) => {
    vector = newVector;
    canvas.ariaLabel = vector
      ? `${vector.length} components from ${decimal(Math.min(...vector), 3)} to ${decimal(Math.max(...vector), 3)}`
      : "No vector yet";
    draw();
  };
}

/** Gives the canvas as many pixels as it has on the screen. */
function fit(canvas) {
  const width = Math.round(canvas.clientWidth * devicePixelRatio);
  const height = Math.round(canvas.clientHeight * devicePixelRatio);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  return { width, height };
}
