// The load: a CUDA graph of small kernels in a chain, replayed as an engine replays its decode step.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

#include "options.h"

namespace probe {

// Host times, in microseconds for one replay. One element a batch, which ends with a synchronisation.
struct ReplayTimes {
  std::vector<double> replay_us;
  std::vector<double> launch_us;  // the part spent inside cudaGraphLaunch
  uint64_t num_replays = 0;

  uint64_t num_nodes() const;
};

// Nothing is ever destroyed: a process runs one experiment. All throw qmeter::Error if CUDA fails.
class GraphLoad {
 public:
  static constexpr uint64_t kNodes = 440;         // kernels of an 8B model's decode step
  static constexpr uint64_t kWarmUpLaunches = 3;  // eager kernels of the constructor

  // Makes the context and a stream, and loads the kernels.
  explicit GraphLoad(const Options& options);

  cudaGraph_t capture() const;
  cudaGraphExec_t instantiate(cudaGraph_t graph) const;

  // Replay batches until `seconds` are over.
  ReplayTimes replay(cudaGraphExec_t graph, double seconds);

  // Median over five rounds of the microseconds an eager launch of an empty kernel takes, GPU time included.
  double eager_us(uint64_t num_launches) const;

 private:
  void replay_batch(cudaGraphExec_t graph, ReplayTimes& times);
  void mark() const;
  void synchronize() const;

  const Options options_;
  cudaStream_t stream_ = nullptr;
  uint64_t step_ = 0;
};

// Memory in use on the GPU, by anyone, in MiB.
double gpu_used_mib();

}  // namespace probe
