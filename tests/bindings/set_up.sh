#!/usr/bin/env bash
# set_up.sh PYTHON FOLDER: NVIDIA's Python bindings, each version in a folder of its own, and the libraries that they
# load, which are built from stub/ here: TensorRT itself needs a GPU, its bindings need only what they link.
# Where that cannot be, FOLDER/skipped says why, and the tests that need it are skipped with those words.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$1
folder=$2
compiler=${CXX:-c++}
mkdir -p "$folder"
rm -f "$folder/skipped" "$folder/installed"

skip() {
    echo "$1" >"$folder/skipped"
    echo "make trt-bindings: $1; the tests against NVIDIA's bindings are skipped"
    exit 0
}

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in 3.10 | 3.11 | 3.12) ;; *) skip "tensorrt_cu12_bindings 10.3.0 has no wheel for Python $version" ;; esac
if [ "$(uname -sm)" != "Linux x86_64" ]; then skip "tensorrt_cu12_bindings 10.3.0 has no wheel for $(uname -sm)"; fi
if ! command -v "$compiler" >/dev/null; then skip "no C++ compiler ($compiler) for the libraries that the bindings load"; fi

wanted=" libraries "
while read -r -a requirements; do
    if [ -z "${requirements[*]}" ] || [ "${requirements[0]}" = "#" ]; then continue; fi
    name=${requirements[0]/==/-}
    wanted+="$name "
    if [ -d "$folder/$name" ]; then continue; fi
    rm -rf "$folder/partial"
    if ! "$python" -m pip --disable-pip-version-check --quiet install --no-deps --only-binary :all: \
        --target "$folder/partial" "${requirements[@]}"; then
        echo "Expected ${requirements[*]} from pip's index, got none (pip says why above)." >&2
        echo "With a network, run make trt-bindings once; it fetches each version once." >&2
        exit 1
    fi
    # NVIDIA's wheel `tensorrt` is these two lines, after it has opened its own libraries.
    if [ -d "$folder/partial/tensorrt_bindings" ]; then
        mkdir "$folder/partial/tensorrt"
        printf '%s\n' 'from tensorrt_bindings import *' 'from tensorrt_bindings import __version__' \
            >"$folder/partial/tensorrt/__init__.py"
    fi
    mv "$folder/partial" "$folder/$name"
done <"$here/requirements.txt"
for found in "$folder"/*/; do
    name=$(basename "$found")
    if [[ $wanted != *" $name "* ]]; then rm -rf "$found"; fi
done

mkdir -p "$folder/libraries"
for library in nvinfer nvonnxparser nvinfer_plugin; do
    "$compiler" -std=c++17 -O1 -g -Wall -Wextra -Werror -shared -fPIC -fvisibility=hidden -pthread \
        -Wl,-soname,"lib$library.so.10" -o "$folder/libraries/lib$library.so.10" "$here/stub/$library.cpp"
done
touch "$folder/installed"
