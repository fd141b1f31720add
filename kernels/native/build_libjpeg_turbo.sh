#!/usr/bin/env bash
# Builds libjpeg-turbo as a static library that a Python extension can hold, for wheels that need nothing of the system.
#
#     build_libjpeg_turbo.sh FOLDER        installs into FOLDER/include and FOLDER/lib
#
# Wants curl, cmake, a C compiler, and nasm for the SIMD code of x86-64.
# A folder that holds the library already is left as it is.
set -euo pipefail

VERSION=3.1.3
SHA256=3a13a5ba767dc8264bc40b185e41368a80d5d5f945944d1dbaa4b2fb0099f4e5
SOURCES=(
  "https://github.com/libjpeg-turbo/libjpeg-turbo/releases/download/$VERSION/libjpeg-turbo-$VERSION.tar.gz"
  "https://deb.debian.org/debian/pool/main/libj/libjpeg-turbo/libjpeg-turbo_$VERSION.orig.tar.gz"
)

folder=$(mkdir -p "$1" && cd "$1" && pwd)
[ -e "$folder/lib/libjpeg.a" ] && exit 0
tools=(curl cmake cc)
[ "$(uname -m)" = x86_64 ] && tools+=(nasm)
for tool in "${tools[@]}"; do
  command -v "$tool" >/dev/null || { echo "libjpeg-turbo cannot be built without $tool: sudo apt-get install -y curl cmake build-essential nasm" >&2; exit 1; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for source in "${SOURCES[@]}"; do
  if curl --silent --fail --location --max-time 120 "$source" -o "$work/source.tar.gz" &&
    echo "$SHA256  $work/source.tar.gz" | sha256sum --check --status; then
    mkdir "$work/source" && tar -xzf "$work/source.tar.gz" -C "$work/source" --strip-components=1
    break
  fi
done
[ -d "$work/source" ] || { echo "libjpeg-turbo $VERSION could not be fetched from any of: ${SOURCES[*]}" >&2; exit 1; }

cmake -S "$work/source" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_POSITION_INDEPENDENT_CODE=ON \
  -DENABLE_SHARED=OFF -DWITH_TURBOJPEG=OFF -DREQUIRE_SIMD=ON -DCMAKE_INSTALL_LIBDIR=lib \
  -DCMAKE_INSTALL_PREFIX="$work/out" >"$work/log" || { cat "$work/log" >&2; exit 1; }
cmake --build "$work/build" --parallel --target jpeg-static >>"$work/log" 2>&1 || { tail -50 "$work/log" >&2; exit 1; }
mkdir -p "$folder/include" "$folder/lib"
cp "$work"/source/src/{jpeglib,jmorecfg,jerror}.h "$work/build/jconfig.h" "$folder/include"
cp "$work/source/LICENSE.md" "$folder/LICENSE.libjpeg-turbo.md"
cp "$work/build/libjpeg.a" "$folder/lib"
