/** Workers of a package that lies on another origin than the page, as on a CDN. */

/**
 * The address of a script that imports `file`, which lies beside this one, if the page may not
 * start it as a worker itself; undefined if it may. The address is the caller's to give back.
 */
export function importing(file: string): string | undefined {
  const here = import.meta.url;
  // webpack, Rspack, Turbopack and Parcel write a `file:` address here, which is not where the page
  // has this from; they find the worker themselves. Content scripts import from an extension.
  if (!/^(https?|[a-z-]+-extension):/.test(here) || new URL(here).origin === location.origin) return undefined;
  // From another origin a worker may not be started, but one of our own may import it. Later, and
  // not as a part of its script: of every part WebKit wants the header that isolates the page, which
  // CDNs do not send. Messages that come meanwhile wait.
  const text = `const early = [];
onmessage = (event) => early.push(event);
import(${JSON.stringify(new URL(file, here).href)}).then(() => early.forEach((event) => onmessage(event)), reportError);`;
  return URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
}
