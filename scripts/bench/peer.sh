#!/usr/bin/env bash
# Builds llama.cpp's own llama-server, llama-completion and llama-cli, to measure and compare against.
#
#   scripts/bench/peer.sh      prints the folder with the programs
#
# The sources come from the source distribution of the PyPI package llama-cpp-python, which carries
# llama.cpp; the build itself touches no network. What is built already is not built again.
# Environment: SMOA_PEER_DIR=FOLDER where all of it goes (default target/peer; programs in its bin/);
# SMOA_PEER_SDIST=FILE takes a source distribution that is there already; SMOA_PEER_JOBS=N (default 2);
# see scripts/lib.sh for the rest.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

case ${1:-} in
  -h | --help)
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit
    ;;
esac

pin=$SMOA_ROOT/scripts/bench/peer.requirements.txt
version=$(sed -n 's/^llama-cpp-python==\([0-9.]*\).*/\1/p' "$pin")
sha=$(sed -n 's/.*--hash=sha256:\([0-9a-f]*\).*/\1/p' "$pin")
commit=0c1e57098 # of llama.cpp, from that release's change log
peer=${SMOA_PEER_DIR:-${CARGO_TARGET_DIR:-$SMOA_ROOT/target}/peer}
mkdir -p "$peer"
peer=$(cd "$peer" && pwd -P)
sdist=${SMOA_PEER_SDIST:-$peer/llama_cpp_python-$version.tar.gz}
sources=$peer/llama.cpp-$version
programs="llama-server llama-completion llama-cli"

native=ON
if [[ ${SMOA_PORTABLE:-} == 1 ]]; then native=OFF; fi
options=(
  -DCMAKE_BUILD_TYPE=Release
  -DBUILD_SHARED_LIBS=OFF
  "-DGGML_NATIVE=$native"
  -DGGML_OPENMP=ON
  -DGGML_CCACHE=OFF
  -DLLAMA_OPENSSL=OFF
  -DLLAMA_BUILD_TOOLS=ON
  -DLLAMA_BUILD_SERVER=ON
  -DLLAMA_BUILD_TESTS=OFF
  -DLLAMA_BUILD_EXAMPLES=OFF
  -DLLAMA_BUILD_APP=OFF
  # the web page: neither built with npm nor downloaded
  -DLLAMA_BUILD_UI=OFF
  -DLLAMA_USE_PREBUILT_UI=OFF
  -DLLAMA_BUILD_NUMBER=0
  "-DLLAMA_BUILD_COMMIT=$commit"
)

download() {
  local tmp=$peer/download
  rm -rf "$tmp"
  # pip asks the package's build backend for its metadata (it fetches that backend); nothing is compiled
  python3 -m pip download --disable-pip-version-check --no-input --no-deps \
    --no-binary llama-cpp-python --require-hashes --requirement "$pin" --dest "$tmp" </dev/null
  mv "$tmp"/*.tar.gz "$sdist"
  rm -rf "$tmp"
}

unpack() {
  local tmp=$peer/unpack
  [[ $(sha256_of "$sdist") == "$sha" ]] || die "$sdist is not the pinned source distribution"
  rm -rf "$tmp" "$sources"
  mkdir -p "$tmp"
  tar -xzf "$sdist" -C "$tmp" "llama_cpp_python-$version/vendor/llama.cpp"
  mv "$tmp/llama_cpp_python-$version/vendor/llama.cpp" "$sources"
  rm -rf "$tmp"
}

compile() {
  no_broken_amx
  cmake -S "$sources" -B "$peer/build" "${options[@]}"
  # shellcheck disable=SC2086
  cmake --build "$peer/build" --config Release -j"${SMOA_PEER_JOBS:-2}" --target $programs
}

keep() {
  local program
  mkdir -p "$peer/bin"
  for program in $programs; do cp -p "$peer/build/bin/$program" "$peer/bin/"; done
  printf '%s\n' "$mark" >"$peer/bin/built"
}

step "tools" need_tools
mark="$sha ${options[*]} $("${CXX:-c++}" --version | sed q)"
if [[ -f $peer/bin/built && $(cat "$peer/bin/built") == "$mark" ]]; then
  say "llama.cpp of llama-cpp-python $version is built"
else
  rm -f "$peer/bin/built"
  if [[ ! -f $sdist ]]; then step "download" download; fi
  if [[ ! -f $sources/CMakeLists.txt ]]; then step "unpack" unpack; fi
  step "compile" compile
  step "keep" keep
fi
"$peer/bin/llama-server" --version >&2
echo "$peer/bin"
