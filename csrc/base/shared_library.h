// The only place that calls dlopen.
#pragma once

#include <string>

namespace qmeter {

class SharedLibrary {
 public:
  enum class Mode { kLoad, kOnlyIfLoaded };

  // Open `name` (a path or a soname). Throws Error(kNotFound) with the loader's own words.
  explicit SharedLibrary(const std::string& name, Mode mode = Mode::kLoad);
  ~SharedLibrary();
  SharedLibrary(SharedLibrary&& other) noexcept;
  SharedLibrary& operator=(SharedLibrary&&) = delete;
  SharedLibrary(const SharedLibrary&) = delete;
  SharedLibrary& operator=(const SharedLibrary&) = delete;

  // Address of a symbol, or nullptr if the library has none of that name.
  template <typename Function>
  Function find(const char* symbol) const noexcept {
    return reinterpret_cast<Function>(address(symbol));
  }

  // As `find`, but throws Error(kUnsupported) naming library and symbol.
  template <typename Function>
  Function require(const char* symbol) const {
    return reinterpret_cast<Function>(require_address(symbol));
  }

  // Where the library really lies, as the loader tells.
  const std::string& path() const noexcept { return path_; }

  // Keep it mapped for the life of the process: libraries that start threads or hold callbacks must not go
  // away.
  void pin() noexcept { is_pinned_ = true; }

 private:
  void* address(const char* symbol) const noexcept;
  void* require_address(const char* symbol) const;

  void* handle_ = nullptr;
  bool is_pinned_ = false;
  std::string path_;
};

}  // namespace qmeter
