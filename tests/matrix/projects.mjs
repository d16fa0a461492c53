// The projects of the matrix. Each has its tools with their versions, its files as a user writes
// them, and a check that gives the numbers; `takes` is what README says that it needs.
import { cpSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

/** What each page's script does; `options` are those that the project always needs. */
const app = (imports = "", options = "") => `
import { Embedder } from "wick-embed";
${imports}
globalThis.encode = async (texts, options) => {
  const embedder = await Embedder.load("/model/", { ${options} ...options });
  const { dense } = await embedder.encode(texts);
  const { threads } = embedder;
  embedder.dispose();
  return { threads, rows: dense.map((row) => Array.from(row)) };
};
`;

/** A program that prints the vectors. */
const program = ({ model, texts }, head, address = JSON.stringify(model)) => `${head}
const main = async () => {
  const embedder = await Embedder.load(${address});
  const { dense } = await embedder.encode(${JSON.stringify(texts)});
  embedder.dispose();
  console.log(JSON.stringify(dense.map((row) => Array.from(row))));
};
main();
`;
const ESM = `import { Embedder } from "wick-embed";`;

/** The package's modules beside a bundle's scripts, as `cp` copies them. */
function copyModules(folder, target) {
  const dist = join(folder, "node_modules/wick-embed/dist");
  for (const file of readdirSync(dist)) if (file.endsWith(".wasm")) cpSync(join(dist, file), join(target, file));
}

/** The name of a built script. */
const named = (folder, start) => readdirSync(folder).find((file) => file.startsWith(start) && file.endsWith(".js"));

const html = `<!doctype html><link rel="icon" href="data:,"><script type="module" src="./src/index.js"></script>`;
const WASM_COPY = "`cp node_modules/wick-embed/dist/*.wasm dist/`";

const vite = (version, files = {}) => ({
  packages: [`vite@${version}`],
  files: { "index.html": html, "src/index.js": app(), ...files },
});

async function viteBuilt({ run, built, folder, ends }, ...words) {
  await run(folder, "vite", "build", "--logLevel", "warn", ...words);
  await built(ends, join(folder, "dist"), { script: `/assets/${named(join(folder, "dist/assets"), "index-")}` });
}

async function viteServed({ started, page, folder, ends, model }) {
  cpSync(model, join(folder, "public/model"), { recursive: true });
  const url = await started(ends, folder, "vite", ["--strictPort", "--port"]);
  await page(url, "in a worker", {}, 1);
  await page(url, "on the page's thread", { worker: false }, 1);
}

const typescript = (name, compilerOptions, source, packages = []) => ({
  name,
  packages: ["typescript@5.9.3", ...packages],
  files: {
    "main.mts": source,
    "tsconfig.json": JSON.stringify({ compilerOptions: { strict: true, skipLibCheck: false, target: "ES2022", types: [], noEmit: true, ...compilerOptions }, files: ["main.mts"] }),
  },
  check: ({ run, folder }) => run(folder, "tsc", "-p", "."),
});
const TYPED = `import { Embedder, type Output } from "wick-embed";
import { Embedder as Local } from "wick-embed/local";
export async function rows(): Promise<Float32Array[]> {
  const output: Output = await (await Embedder.load("a/b", { worker: "./worker.js" })).encode(["a"]);
  return output.dense ?? (await (await Local.load("a/b")).encode(["a"])).dense ?? [];
}
`;

export const PROJECTS = [
  {
    name: "webpack",
    title: "webpack 5",
    packages: ["webpack@5.113.0", "webpack-cli@7.3.1"],
    files: { "src/index.js": app() },
    async check({ run, built, folder, ends }) {
      await run(folder, "webpack", "--mode", "production");
      await built(ends, join(folder, "dist"), { script: "main.js", type: "" });
    },
  },
  {
    name: "webpack-cdn",
    title: "webpack 5, `publicPath` on another origin",
    takes: "an entry `worker: \"wick-embed/worker\"`, and the option `worker` with its address",
    packages: ["webpack@5.113.0", "webpack-cli@7.3.1"],
    files: ({ cdn }) => ({
      "src/index.js": app("", `worker: ${JSON.stringify(`${cdn}dist/worker.js`)},`),
      "webpack.config.js": `module.exports = {
        mode: "production",
        entry: { main: "./src/index.js", worker: "wick-embed/worker" },
        output: { publicPath: ${JSON.stringify(`${cdn}dist/`)} },
      };`,
    }),
    async check({ run, built, folder, ends, cdn }) {
      await run(folder, "webpack");
      await built(ends, folder, { script: `${cdn}dist/main.js`, tag: `<script crossorigin src="${cdn}dist/main.js"></script>` });
    },
  },
  {
    name: "rspack",
    title: "Rspack 2",
    packages: ["@rspack/core@2.3.3", "@rspack/cli@2.2.8"],
    files: { "src/index.js": app() },
    async check({ run, built, folder, ends }) {
      await run(folder, "rspack", "build", "--mode", "production");
      await built(ends, join(folder, "dist"), { script: "main.js", type: "" });
    },
  },
  {
    name: "parcel",
    title: "Parcel 2",
    packages: ["parcel@2.16.4"],
    files: { "index.html": html, "src/index.js": app() },
    async check({ run, built, folder, ends }) {
      await run(folder, "parcel", "build", "index.html", "--no-source-maps");
      // Its page has a map of its scripts' names.
      await built(ends, join(folder, "dist"), { tag: readFileSync(join(folder, "dist/index.html"), "utf8") });
    },
  },
  {
    name: "rollup",
    title: "Rollup 4",
    takes: `an entry \`worker: "wick-embed/worker"\` under that name, and ${WASM_COPY}`,
    packages: ["rollup@4.68.8", "@rollup/plugin-node-resolve@16.0.3"],
    files: {
      "src/index.js": app(),
      "rollup.config.mjs": `import resolve from "@rollup/plugin-node-resolve";
        export default {
          input: { app: "src/index.js", worker: "wick-embed/worker" },
          plugins: [resolve({ browser: true })],
          output: { dir: "dist", entryFileNames: "[name].js", chunkFileNames: "[name].js" },
        };`,
    },
    async check({ run, built, folder, ends }) {
      await run(folder, "rollup", "-c");
      copyModules(folder, join(folder, "dist"));
      await built(ends, join(folder, "dist"), { script: "app.js" });
    },
  },
  {
    name: "esbuild",
    title: "esbuild",
    takes: `an entry \`worker=wick-embed/worker\`, \`--format=esm\`, and ${WASM_COPY}`,
    packages: ["esbuild@0.28.2"],
    files: { "src/index.js": app() },
    async check({ run, built, folder, ends }) {
      await run(folder, "esbuild", "app=src/index.js", "worker=wick-embed/worker", "--bundle", "--format=esm", "--outdir=dist");
      copyModules(folder, join(folder, "dist"));
      await built(ends, join(folder, "dist"), { script: "app.js" });
    },
  },
  { name: "vite-7", title: "Vite 7", ...vite("7.3.8"), check: (tools) => viteBuilt(tools) },
  { name: "vite-8", title: "Vite 8", ...vite("8.3.8"), check: (tools) => viteBuilt(tools) },
  {
    name: "vite-cdn",
    title: "Vite 8, `base` on another origin",
    takes: "`worker: { format: \"es\" }`, `import worker from \"wick-embed/worker?worker&url\"`, and the option `worker`",
    ...vite("8.3.8", { "src/index.js": app(`import worker from "wick-embed/worker?worker&url";`, "worker,"), "vite.config.js": `export default { worker: { format: "es" } };` }),
    async check({ run, built, folder, ends, cdn }) {
      await run(folder, "vite", "build", "--logLevel", "warn", `--base=${cdn}dist/`);
      await built(ends, folder, { tag: `<script type="module" crossorigin src="${cdn}dist/assets/${named(join(folder, "dist/assets"), "index-")}"></script>` });
    },
  },
  {
    name: "vite-7-dev",
    title: "Vite 7, development server",
    takes: "`optimizeDeps: { exclude: [\"wick-embed\"] }`",
    ...vite("7.3.8", { "vite.config.js": `export default { optimizeDeps: { exclude: ["wick-embed"] } };` }),
    check: viteServed,
  },
  {
    name: "vite-8-dev",
    title: "Vite 8, development server",
    takes: "nothing",
    ...vite("8.3.8"),
    check: viteServed,
  },
  {
    name: "next",
    title: "Next.js 16: client component, route handler, server component",
    takes: "`serverExternalPackages: [\"wick-embed\"]` for server components",
    packages: ["next@16.4.6", "react@19.3.1", "react-dom@19.3.1"],
    files: ({ model, texts }) => {
      const rows = `const embedder = await Embedder.load(${JSON.stringify(model)});
        const rows = (await embedder.encode(${JSON.stringify(texts)})).dense.map((row) => Array.from(row));
        embedder.dispose();`;
      return {
        "next.config.mjs": `export default { serverExternalPackages: ["wick-embed"], turbopack: { root: import.meta.dirname } };`,
        "app/layout.js": `export default function Layout({ children }) { return <html><body>{children}</body></html>; }`,
        "app/page.js": `"use client";
          ${app()}
          export default function Page() { return <p>page</p>; }`,
        "app/api/route.js": `${ESM}
          export const dynamic = "force-dynamic";
          export async function GET() { ${rows} return Response.json(rows); }`,
        "app/server/page.js": `${ESM}
          export const dynamic = "force-dynamic";
          export default async function Page() { ${rows} return <pre id="rows">{JSON.stringify(rows)}</pre>; }`,
      };
    },
    async check({ run, started, page, right, folder, ends, model }) {
      cpSync(model, join(folder, "public/model"), { recursive: true });
      await run(folder, "next", "build");
      const url = await started(ends, folder, "next", ["start", "-p"]);
      await page(url, "client component", {}, 1);
      await page(url, "client component, on the page's thread", { worker: false }, 1);
      right(await (await fetch(`${url}api`)).json(), "route handler");
      const text = await (await fetch(`${url}server`)).text();
      right(JSON.parse(/<pre id="rows">(.*?)<\/pre>/.exec(text)?.[1] ?? "null"), "server component");
    },
  },
  {
    name: "pages",
    title: "No bundler, from the page's origin or a CDN: Chromium, Firefox ESR, WebKitGTK, isolated and not",
    takes: "nothing; threads need an isolated page, and WebKitGTK shares no memory",
    check: ({ browsers }) => browsers(),
  },
  {
    name: "extension",
    title: "Extension (Manifest V3): popup, background",
    takes: "`'wasm-unsafe-eval'` in `script-src`; in the background `wick-embed/local`",
    files: {
      "extension/manifest.json": JSON.stringify({
        manifest_version: 3,
        name: "matrix",
        version: "1",
        background: { service_worker: "background.js", type: "module" },
        action: { default_popup: "popup.html" },
        content_security_policy: { extension_pages: "script-src 'self' 'wasm-unsafe-eval'" },
      }),
      "extension/background.js": `import { Embedder } from "./wick-embed/local.js";
        globalThis.encode = async (texts) => {
          const embedder = await Embedder.load(chrome.runtime.getURL("model/"));
          const { dense } = await embedder.encode(texts);
          embedder.dispose();
          return dense.map((row) => Array.from(row));
        };`,
      "extension/popup.html": `<!doctype html><script type="module" src="popup.js"></script>`,
      "extension/popup.js": app().replace(`"wick-embed"`, `"./wick-embed/index.js"`),
    },
    async check({ extension, folder, ends, model }) {
      cpSync(join(folder, "node_modules/wick-embed/dist"), join(folder, "extension/wick-embed"), { recursive: true });
      cpSync(model, join(folder, "extension/model"), { recursive: true });
      await extension(ends, folder);
    },
  },
  {
    name: "node",
    title: "Node 20, `import`",
    files: (all) => ({ "main.mjs": program(all, ESM) }),
    check: async ({ run, right, folder, node }) => right(JSON.parse(await run(folder, node, "main.mjs")), "Node"),
  },
  {
    name: "node-require",
    title: "Node 20, `require`",
    takes: "Node 20.19, 22.12 or newer",
    files: (all) => ({ "main.cjs": program(all, `const { Embedder } = require("wick-embed");`) }),
    check: async ({ run, right, folder, node }) => right(JSON.parse(await run(folder, node, "main.cjs")), "Node"),
  },
  {
    name: "deno",
    title: "Deno 2",
    packages: ["deno@2.9.6"],
    files: (all) => ({ "main.mjs": program(all, ESM) }),
    check: async ({ run, right, folder }) => right(JSON.parse(await run(folder, "deno", "run", "--allow-all", "main.mjs")), "Deno"),
  },
  {
    name: "bun",
    title: "Bun 1",
    packages: ["bun@1.4.5"],
    files: (all) => ({ "main.mjs": program(all, ESM) }),
    check: async ({ run, right, folder }) => right(JSON.parse(await run(folder, "bun", "main.mjs")), "Bun"),
  },
  {
    name: "workerd",
    title: "Cloudflare workerd",
    takes: "`wick-embed/local`, and the option `wasm`: `import wasm from \"wick-embed/wick_embed_bg.wasm\"`",
    packages: ["wrangler@4.86.0"],
    files: ({ texts, cdn }) => ({
      "wrangler.json": JSON.stringify({ name: "matrix", main: "worker.mjs", compatibility_date: "2026-01-01", send_metrics: false }),
      "worker.mjs": `import { Embedder } from "wick-embed/local";
        import wasm from "wick-embed/wick_embed_bg.wasm";
        export default {
          async fetch(request) {
            try {
              const embedder = await Embedder.load(${JSON.stringify(`${cdn}model/`)}, { wasm: request.url.endsWith("/rows") ? wasm : undefined });
              const { dense } = await embedder.encode(${JSON.stringify(texts)});
              return Response.json(dense.map((row) => Array.from(row)));
            } catch ({ code, message }) {
              return Response.json({ code, message });
            }
          },
        };`,
    }),
    async check({ started, right, folder, ends, model }) {
      cpSync(model, join(folder, "model"), { recursive: true });
      const url = await started(ends, folder, "wrangler", ["dev", "--local", "--port"]);
      const { code, message } = await (await fetch(url)).json();
      if (code !== "executor" || !message.includes("option `wasm`")) throw new Error(`without a module: ${code} ${message}`);
      right(await (await fetch(`${url}rows`)).json(), "workerd");
    },
  },
  { ...typescript("typescript-node16", { module: "Node16", moduleResolution: "Node16", lib: ["ES2022", "DOM"] }, TYPED), title: "TypeScript 5.9, strict, `node16`" },
  { ...typescript("typescript-bundler", { module: "ESNext", moduleResolution: "bundler", lib: ["ES2022", "DOM"] }, TYPED), title: "TypeScript 5.9, strict, `bundler`" },
  { ...typescript("typescript-node10", { module: "ESNext", moduleResolution: "node10", lib: ["ES2022", "DOM"] }, TYPED), title: "TypeScript 5.9, strict, `node10`" },
  {
    ...typescript("typescript-no-dom", { module: "NodeNext", moduleResolution: "NodeNext", lib: ["ES2022"], types: ["node"] }, TYPED, ["@types/node@20.19.0"]),
    title: "TypeScript 5.9, strict, Node's types without the DOM's library",
  },
];
