// Lets your pages reach a provider that lets no page in, and keeps the key on this side.
//
//   UPSTREAM=https://api.cohere.com PATHS=/v2/embed,/v2/rerank API_KEY=... ORIGIN=https://your.site node proxy.mjs
//
// Only these paths, only from this origin, and only POST. Of a provider's error only the status, the headers below and
// the words in `codes` are passed on: its text may repeat the key. Whoever can open the page can still spend your money by it:
// limit the rate, and let in only visitors that you know. Gemini: KEY_HEADER=x-goog-api-key.
import { createServer } from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

const { UPSTREAM, PATHS, API_KEY, ORIGIN, KEY_HEADER = "authorization", PORT = "8787" } = process.env;
const paths = new Set(PATHS.split(","));
const ids = ["x-request-id", "x-debug-trace-id", "mistral-correlation-id", "x-kong-request-id"];
const exposed = ["content-type", "retry-after", "retry-after-ms", "x-should-retry", "x-compute-tokens", ...ids];
const codes = ["insufficient_quota", "max_tokens_per_request"];
const cors = {
  "access-control-allow-origin": ORIGIN,
  "access-control-allow-headers": "content-type, accept",
  "access-control-expose-headers": exposed.join(", "),
};

const server = createServer(async (request, response) => {
  const refuse = (status) => response.writeHead(status, cors).end();
  if (request.headers.origin !== ORIGIN || !paths.has(request.url)) return refuse(403);
  if (request.method !== "POST") return refuse(request.method === "OPTIONS" ? 204 : 405);
  const left = new AbortController();
  response.on("close", () => left.abort());
  try {
    const headers = { "content-type": "application/json", accept: "application/json" };
    headers[KEY_HEADER] = KEY_HEADER === "authorization" ? `Bearer ${API_KEY}` : API_KEY;
    const init = { method: "POST", headers, body: request, duplex: "half", redirect: "manual", signal: left.signal };
    const answer = await fetch(UPSTREAM + request.url, init);
    const passed = exposed.filter((name) => answer.headers.has(name)).map((name) => [name, answer.headers.get(name)]);
    const shown = { ...cors, ...Object.fromEntries(passed) };
    if (!answer.ok) {
      const text = await answer.text();
      const code = codes.find((code) => text.includes(`"${code}"`));
      const error = { message: "the provider refused the request; its own words stay at the proxy", code };
      return response.writeHead(answer.status, { ...shown, "content-type": "application/json" }).end(JSON.stringify({ error }));
    }
    response.writeHead(answer.status, shown);
    await pipeline(answer.body ? Readable.fromWeb(answer.body) : Readable.from([]), response);
  } catch {
    response.headersSent ? response.destroy() : refuse(502);
  }
});
server.listen(Number(PORT), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
