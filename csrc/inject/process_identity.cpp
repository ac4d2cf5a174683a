#include "inject/process_identity.h"

#include <fcntl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/json.h"
#include "records/spool_format.h"

namespace qmeter {
namespace {

constexpr size_t kMaxCommandBytes = 4096;

// At most `limit` bytes of a small file of /proc; empty if it cannot be read.
std::string read_file(const char* path, size_t limit) {
  std::string text(limit, '\0');
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  const ssize_t size = fd >= 0 ? ::read(fd, text.data(), text.size()) : 0;
  if (fd >= 0) ::close(fd);
  text.resize(size > 0 ? static_cast<size_t>(size) : 0);
  return text;
}

std::string command_line() {
  std::string text = read_file("/proc/self/cmdline", kMaxCommandBytes);
  while (!text.empty() && text.back() == '\0') text.pop_back();
  for (char& c : text) {
    if (c == '\0') c = ' ';
    if (static_cast<unsigned char>(c) > 0x7E) c = '?';  // may be no UTF-8, which JSON must be
  }
  return text;
}

std::string rank_of_environment() {
  const char* rank = std::getenv("RANK");
  const std::string text = rank != nullptr ? rank : "";
  constexpr size_t kMaxDigits = 9;
  const bool is_number = !text.empty() && text.size() <= kMaxDigits &&
                         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  return is_number ? std::to_string(std::atoi(text.c_str())) : "";
}

}  // namespace

ProcessIdentity ProcessIdentity::of_this_process() {
  ProcessIdentity identity;
  utsname system{};
  if (uname(&system) == 0) identity.host = system.nodename;
  identity.boot_id = read_file("/proc/sys/kernel/random/boot_id", 36);
  identity.rank = rank_of_environment();
  identity.command = command_line();
  identity.pid = getpid();
  return identity;
}

std::string ProcessIdentity::json() const {
  return JsonObject()
      .add("format", "qmeter-spool")
      .add("version", kSpoolVersion)
      .add("host", host)
      .add("boot_id", boot_id)
      .add("pid", static_cast<uint64_t>(pid))
      .add_raw("rank", rank.empty() ? "null" : rank)
      .add("command", command)
      .add("role", "cuda")
      .text();
}

std::string ProcessIdentity::free_spool_path(const std::string& folder) const {
  const std::string stem =
      folder + "/" + (host.empty() ? "localhost" : host) + "-" + std::to_string(pid) + "-cuda";
  int number = 0;
  while (access((stem + std::to_string(number) + ".qms").c_str(), F_OK) == 0) ++number;
  return stem + std::to_string(number) + ".qms";
}

}  // namespace qmeter
