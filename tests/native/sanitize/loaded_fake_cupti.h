// The control functions of a fake libcupti that is loaded as the tracer loads it.
#pragma once

#include <dlfcn.h>

#include "fake_cupti.h"
#include "require.h"

inline decltype(fake_cupti_reset)* reset = nullptr;
inline decltype(fake_cupti_set)* set = nullptr;
inline decltype(fake_cupti_get)* get = nullptr;
inline decltype(fake_cupti_storm)* storm = nullptr;

inline void load_fake_cupti(const char* path) {
  void* fake = dlopen(path, RTLD_NOW);
  require(fake != nullptr, "the fake loads");
  reset = reinterpret_cast<decltype(reset)>(dlsym(fake, "fake_cupti_reset"));
  set = reinterpret_cast<decltype(set)>(dlsym(fake, "fake_cupti_set"));
  get = reinterpret_cast<decltype(get)>(dlsym(fake, "fake_cupti_get"));
  storm = reinterpret_cast<decltype(storm)>(dlsym(fake, "fake_cupti_storm"));
}
