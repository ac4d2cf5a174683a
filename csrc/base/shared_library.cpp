#include "base/shared_library.h"

#include <dlfcn.h>
#include <link.h>

#include <utility>

#include "base/error.h"

namespace qmeter {

SharedLibrary::SharedLibrary(const std::string& name, Mode mode) {
  const int flags = RTLD_LAZY | RTLD_LOCAL | (mode == Mode::kOnlyIfLoaded ? RTLD_NOLOAD : 0);
  handle_ = dlopen(name.c_str(), flags);
  if (handle_ == nullptr) {
    const char* reason = dlerror();
    throw Error(ErrorCode::kNotFound, reason != nullptr ? reason : name + " is not loaded");
  }
  link_map* map = nullptr;
  path_ = dlinfo(handle_, RTLD_DI_LINKMAP, &map) == 0 && map->l_name[0] != '\0' ? map->l_name : name;
}

SharedLibrary::~SharedLibrary() {
  if (handle_ != nullptr && !is_pinned_) dlclose(handle_);
}

SharedLibrary::SharedLibrary(SharedLibrary&& other) noexcept
    : handle_(std::exchange(other.handle_, nullptr)),
      is_pinned_(other.is_pinned_),
      path_(std::move(other.path_)) {}

void* SharedLibrary::address(const char* symbol) const noexcept { return dlsym(handle_, symbol); }

void* SharedLibrary::require_address(const char* symbol) const {
  void* found = address(symbol);
  if (found == nullptr) throw Error(ErrorCode::kUnsupported, path_ + " has no symbol " + symbol);
  return found;
}

}  // namespace qmeter
