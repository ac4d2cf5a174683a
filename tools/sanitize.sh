#!/usr/bin/env bash
# Build the native core without Python, the fakes and the programs of tests/native/sanitize, once under ASan and UBSan and
# once under TSan, and run the programs.
set -euo pipefail
cd "$(dirname "$0")/.."

export CXX="${CXX:-g++}"
core=$(find csrc -name '*.cpp' -not -path 'csrc/bindings/*' | sort)
programs=$(find tests/native/sanitize -name '*.cpp' | sort)

build() { # NAME FLAGS…
  local out="build/sanitize/$1"
  shift
  mkdir -p "$out/core" "$out/fakes" "$out/work"
  export FLAGS="-std=c++17 -O1 -g -Wall -Wextra -pthread -Icsrc -Itests/fakes $*"
  for source in $core; do echo "$source $out/core/$(echo "$source" | tr / _).o"; done |
    xargs -P "$(nproc)" -L 1 bash -c '$CXX $FLAGS -fPIC -c "$0" -o "$1"'
  $CXX $FLAGS -shared -fPIC tests/fakes/fake_cupti*.cpp -Wl,-soname,libcupti.so.13 -o "$out/fakes/libcupti.so.13"
  $CXX $FLAGS -shared -fPIC tests/fakes/fake_cuda.cpp -Wl,-soname,libcuda.so.1 -ldl -o "$out/fakes/libcuda.so.1"
  $CXX $FLAGS -shared -fPIC tests/fakes/fake_nvml.cpp -Wl,-soname,libnvidia-ml.so.1 -o "$out/fakes/libnvidia-ml.so.1"
  for source in $programs; do echo "$source $out/$(basename "$source" .cpp) $out/core"; done |
    xargs -P "$(nproc)" -L 1 bash -c '$CXX $FLAGS "$0" "$2"/*.o -ldl -o "$1"'
}

run() { # NAME
  local out="build/sanitize/$1"
  echo "$1: spool" && "$out/spool" "$out/work"
  echo "$1: kernel_tracer" && "$out/kernel_tracer" "$out/fakes/libcupti.so.13" "$out/work"
  echo "$1: inject" && "$out/inject" "$out/fakes/libcupti.so.13" "$out/work"
  echo "$1: pm_sampler" && "$out/pm_sampler" "$out/fakes/libcupti.so.13" "$out/fakes/libcuda.so.1" "$out/work"
  echo "$1: energy_sampler" && "$out/energy_sampler" "$out/fakes/libnvidia-ml.so.1" "$out/work"
}

export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1
build address -fsanitize=address,undefined -fno-sanitize-recover=all
run address
build thread -fsanitize=thread
run thread
echo "no complaints"
