#include "collect/other_profilers.h"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <fstream>

// The environment is searched by prefix, for which C++ has nothing.
extern char** environ;  // NOLINT

namespace qmeter {
namespace {

struct Sign {
  const char* text;  // part of a loaded library's path, or the beginning of an environment variable
  const char* who;
};

constexpr Sign kLibraries[] = {
    {"libtorch_cpu.so", "torch (torch.profiler keeps CUPTI once used, unless TEARDOWN_CUPTI=1)"},
    {"libproton.so", "Proton"},
    {"libToolsInjection", "Nsight Systems"},
    {"libcuda-injection", "Nsight Compute"},
    {"libdcgm", "DCGM"},
    {"libtensorflow", "TensorFlow's profiler"},
    {"xla_cuda_plugin", "XLA's profiler"},
};

constexpr Sign kVariables[] = {
    {"CUDA_INJECTION64_PATH=", ""},
    {"NSYS_", "Nsight Systems"},
    {"NV_COMPUTE_PROFILER_", "Nsight Compute"},
};

// The file that this code is in: libqmeter_inject.so or the extension.
std::string own_file() {
  Dl_info info{};
  const bool is_known = dladdr(reinterpret_cast<void*>(&visible_profilers), &info) != 0;
  const std::string path = is_known && info.dli_fname != nullptr ? info.dli_fname : "";
  return path.substr(path.rfind('/') + 1);
}

void add(std::string& all, const std::string& who) {
  if (all.find(who) != std::string::npos) return;
  all += (all.empty() ? "" : ", ") + who;
}

}  // namespace

std::string visible_profilers() {
  std::string all;
  const std::string own = own_file();
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    for (const Sign& sign : kVariables) {
      // An injected library is named by its own variable.
      if (std::strncmp(*entry, sign.text, std::strlen(sign.text)) != 0) continue;
      if (own.empty() || std::strstr(*entry, own.c_str()) == nullptr) {
        add(all, *sign.who != '\0' ? sign.who : *entry);
      }
    }
  }
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    for (const Sign& sign : kLibraries) {
      if (line.find(sign.text) != std::string::npos) add(all, sign.who);
    }
  }
  return all;
}

}  // namespace qmeter
