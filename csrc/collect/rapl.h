// RAPL through Linux's powercap tree: package domains only, because cores, uncore and DRAM are parts of them
// or count apart on some machines.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "collect/energy_device.h"
#include "collect/energy_journal.h"
#include "collect/energy_reading.h"

namespace qmeter {

struct RaplPackage {
  std::string energy_path;
  uint64_t range_uj = 0;  // the counter restarts at 0 after this
  EnergyDevice info;
};

// Package domains under `powercap_root`, in the kernel's order, with indices from `first_index`. Where there
// is none, one entry stands for the CPU and says why.
std::vector<RaplPackage> probe_rapl(const std::string& powercap_root, int16_t first_index);

// An entry for a CPU whose energy cannot be read.
EnergyDevice cpu_without_energy(int16_t index, const std::string& reason);

// `journal` must outlive the reading. Throws Error(kIo) if the counter's file cannot be opened.
std::unique_ptr<EnergyReading> make_rapl_reading(const RaplPackage& package, EnergyJournal& journal,
                                                 int64_t period_ns);

}  // namespace qmeter
