/** Where a worker's script lies, and workers of scripts on another origin than the page, as on a CDN. */

/** This script's address; undefined where a bundler wrote another in its place. */
function here(): URL | undefined {
  const { url } = import.meta;
  // webpack, Rspack, Turbopack and Parcel write a `file:` address here, which is not where the page
  // has this from; they find the worker themselves. Content scripts import from an extension.
  return /^(https?|[a-z-]+-extension):/.test(url) ? new URL(url) : undefined;
}

/** The address of the package's own worker, as far as it can be known: a bundler gives it a name of its own. */
export function ownScript(): string | undefined {
  const own = here();
  return own && (own.pathname.endsWith("/origin.js") || own.origin !== location.origin) ? new URL("./worker.js", own).href : undefined;
}

/** Whether a page may start a script as a worker only through one of its own. */
export function isForeign(script: string): boolean {
  const { protocol, origin } = new URL(script);
  return origin !== location.origin && protocol !== "blob:" && protocol !== "data:";
}

/** The address of a script that imports another. It is the caller's to give back. */
export function importing(script: string): string {
  // Later, and not as a part of its script: of every part WebKit wants the header that isolates the
  // page, which CDNs do not send. Messages that come meanwhile wait.
  const text = `const early = [];
onmessage = (event) => early.push(event);
import(${JSON.stringify(script)}).then(() => early.forEach((event) => onmessage(event)), reportError);`;
  return URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
}
