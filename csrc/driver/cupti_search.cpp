#include "driver/cupti_search.h"

#include <sys/stat.h>

#include <cstdlib>

#include "base/error.h"

namespace qmeter {
namespace {

constexpr const char* kSonames[] = {"libcupti.so.13", "libcupti.so.12"};

bool is_directory(const std::string& path) {
  struct stat status{};
  return stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

bool try_open(CuptiSearch& search, const std::string& path, const char* how, bool only_if_loaded = false) {
  try {
    search.cupti = load_cupti(path, only_if_loaded);
    search.how = how;
    return true;
  } catch (const Error& error) {
    search.tried.emplace_back(path, error.what());
    return false;
  }
}

bool try_folder(CuptiSearch& search, const std::string& folder, const char* how) {
  for (const char* soname : kSonames) {
    if (try_open(search, folder + "/" + soname, how)) return true;
  }
  return false;
}

bool try_cuda_root(CuptiSearch& search, const char* variable) {
  const char* root = std::getenv(variable);
  if (root == nullptr || *root == '\0') return false;
  return try_folder(search, std::string(root) + "/extras/CUPTI/lib64", variable) ||
         try_folder(search, std::string(root) + "/lib64", variable);
}

bool try_environment(CuptiSearch& search) {
  constexpr const char* kVariable = "QMETER_CUPTI_PATH";
  const char* path = std::getenv(kVariable);
  if (path == nullptr || *path == '\0') return false;
  return is_directory(path) ? try_folder(search, path, kVariable) : try_open(search, path, kVariable);
}

}  // namespace

std::string CuptiSearch::describe_tried() const {
  std::string text;
  for (const auto& [path, why] : tried) text += "\n  " + path + ": " + why;
  return text;
}

CuptiSearch search_cupti(const std::vector<std::string>& search_dirs) {
  CuptiSearch search;
  for (const char* soname : kSonames) {
    if (try_open(search, soname, "already loaded", true)) return search;
  }
  if (try_environment(search)) return search;
  for (const std::string& folder : search_dirs) {
    if (try_folder(search, folder, "search directory")) return search;
  }
  if (try_cuda_root(search, "CUDA_HOME") || try_cuda_root(search, "CUDA_PATH")) return search;
  for (const char* soname : kSonames) {
    if (try_open(search, soname, "system loader")) return search;
  }
  return search;
}

CuptiSearch open_cupti(const std::string& path) { return {load_cupti(path, false), "given path", {}}; }

}  // namespace qmeter
