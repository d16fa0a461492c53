// node tools/size.mjs FILE...: bytes raw, gzip and brotli, as a table and with a total.
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const sizes = process.argv.slice(2).map((file) => {
  const bytes = readFileSync(file);
  const brotli = brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length } });
  return { file: basename(file), raw: bytes.length, gzip: gzipSync(bytes, { level: 9 }).length, brotli: brotli.length };
});
const total = (key) => sizes.reduce((sum, size) => sum + size[key], 0);
console.table([...sizes, { file: "total", raw: total("raw"), gzip: total("gzip"), brotli: total("brotli") }]);
