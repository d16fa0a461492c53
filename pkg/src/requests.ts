/** The requests for a model's files: headers of the caller's own, and how long an answer may take. */

/** Takes what `fetch` takes. */
type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** How long a server may take until it answers, in milliseconds. A kept file that is asked after is used when there is no answer. */
const PATIENCE: Record<string, number> = { HEAD: 5_000, GET: 60_000 };

/** Headers that `fetch` itself takes away when a redirect leads to another origin, and those that hold no secret. */
const HARMLESS = ["authorization", "cookie", "proxy-authorization", "accept", "accept-language", "user-agent"];

const REDIRECTS = [301, 302, 303, 307, 308];

/** A `fetch` for the files of one load, all of whose requests have the same signal. */
export function requests(fetch: Fetch, headers: Record<string, string> | undefined): Fetch {
  // A redirect to another origin would carry them along, and a page does not learn where one leads.
  const stay = Object.keys(headers ?? {}).find((name) => !HARMLESS.includes(name.toLowerCase()));
  const answered = limited(fetch);
  return async (url, init) => {
    const response = await answered(url, { ...init, ...(headers && { headers }), ...(stay && { redirect: "manual" }) });
    if (stay && (response.type === "opaqueredirect" || REDIRECTS.includes(response.status))) {
      await response.body?.cancel();
      throw new Error(`the server sends this request elsewhere, and the header ${stay} would go along; give the address that it leads to`);
    }
    return response;
  };
}

/** The same, but for answers that take too long to begin. */
function limited(fetch: Fetch): Fetch {
  // Each request can be ended alone, and all by the signal: also while their bodies come.
  const all = new Set<AbortController>();
  let followed: AbortSignal | undefined;
  return async (url, init) => {
    const { signal, method = "GET" } = init;
    const own = new AbortController();
    all.add(own);
    if (signal?.aborted) own.abort(signal.reason);
    else if (signal && signal !== followed) {
      followed = signal;
      signal.addEventListener("abort", () => all.forEach((one) => one.abort(signal.reason)));
    }
    const patience = PATIENCE[method] ?? 60_000;
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      own.abort();
    }, patience);
    try {
      return await fetch(url, { ...init, signal: own.signal });
    } catch (error) {
      throw late ? new Error(`the server did not answer within ${patience / 1000} s`) : error;
    } finally {
      clearTimeout(timer);
    }
  };
}
