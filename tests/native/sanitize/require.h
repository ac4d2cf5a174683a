// What the programs for the sanitizers demand: the first thing that does not hold ends them.
#pragma once

#include <cerrno>
#include <cstdio>
#include <cstdlib>

inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s: not so: %s\n", program_invocation_short_name, what);
  std::exit(1);
}
