// Who the traced process is, for the first block of its spool.
#pragma once

#include <string>

namespace qmeter {

struct ProcessIdentity {
  std::string host;
  std::string boot_id;  // empty if it cannot be read
  std::string rank;     // the environment's RANK, empty if that is no number
  std::string command;  // its arguments, with '?' for bytes above ASCII
  int pid = 0;

  static ProcessIdentity of_this_process();

  // {"format": "qmeter-spool", …, "role": "cuda"}
  std::string json() const;

  // The first `<folder>/<host>-<pid>-cuda<N>.qms` that does not exist: a process that called exec() has been
  // here before.
  std::string free_spool_path(const std::string& folder) const;
};

}  // namespace qmeter
