#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "graph_load.h"
#include "statistics.h"

namespace probe {
namespace {

constexpr double kCyclesPerNs = 1.98;  // an H200's SM clock under this load
constexpr int kBlocks = 132;           // its multiprocessors
constexpr int kThreads = 128;

__global__ void spin(int64_t cycles) {
  const int64_t begin = clock64();
  while (clock64() - begin < cycles) {
  }
}

__global__ void nothing() {}

__global__ void marker() {}

void require(cudaError_t result, const char* call) {
  if (result == cudaSuccess) return;
  throw qmeter::Error(qmeter::ErrorCode::kUnsupported, std::string(call) + ": " + cudaGetErrorName(result));
}

double elapsed_us(int64_t begin_ns) { return static_cast<double>(qmeter::monotonic_ns() - begin_ns) * 1e-3; }

}  // namespace

uint64_t ReplayTimes::num_nodes() const { return num_replays * GraphLoad::kNodes; }

GraphLoad::GraphLoad(const Options& options) : options_(options) {
  require(cudaSetDevice(0), "cudaSetDevice");
  require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  spin<<<1, 32, 0, stream_>>>(1);
  nothing<<<1, 1, 0, stream_>>>();
  marker<<<1, 1, 0, stream_>>>();
  require(cudaGetLastError(), "kernel launch");
  synchronize();
}

cudaGraph_t GraphLoad::capture() const {
  const auto cycles = static_cast<int64_t>(static_cast<double>(options_.kernel_ns) * kCyclesPerNs);
  require(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  for (uint64_t n = 0; n < kNodes; ++n) {
    if (cycles == 0) {
      nothing<<<1, 1, 0, stream_>>>();
    } else {
      spin<<<kBlocks, kThreads, 0, stream_>>>(cycles);
    }
  }
  require(cudaGetLastError(), "kernel launch");
  cudaGraph_t graph = nullptr;
  require(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture");
  return graph;
}

cudaGraphExec_t GraphLoad::instantiate(cudaGraph_t graph) const {
  cudaGraphExec_t instance = nullptr;
  require(cudaGraphInstantiate(&instance, graph, 0), "cudaGraphInstantiate");
  return instance;
}

ReplayTimes GraphLoad::replay(cudaGraphExec_t graph, double seconds) {
  ReplayTimes times;
  const int64_t end_ns = qmeter::monotonic_ns() + static_cast<int64_t>(seconds * qmeter::kNsPerSecond);
  while (qmeter::monotonic_ns() < end_ns) replay_batch(graph, times);
  return times;
}

void GraphLoad::replay_batch(cudaGraphExec_t graph, ReplayTimes& times) {
  double launch_us = 0;
  const int64_t begin_ns = qmeter::monotonic_ns();
  for (uint64_t n = 0; n < options_.batch; ++n) {
    ++step_;
    if (options_.has_markers) mark();
    const int64_t launch_ns = qmeter::monotonic_ns();
    require(cudaGraphLaunch(graph, stream_), "cudaGraphLaunch");
    launch_us += elapsed_us(launch_ns);
    if (options_.has_markers) mark();
  }
  synchronize();
  const auto batch = static_cast<double>(options_.batch);
  times.replay_us.push_back(elapsed_us(begin_ns) / batch);
  times.launch_us.push_back(launch_us / batch);
  times.num_replays += options_.batch;
}

// The step's number is the block size, as in the step markers of the product.
void GraphLoad::mark() const {
  marker<<<1, 1 + static_cast<unsigned>(step_ % 1024), 0, stream_>>>();
  require(cudaGetLastError(), "marker launch");
}

void GraphLoad::synchronize() const { require(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

double GraphLoad::eager_us(uint64_t num_launches) const {
  constexpr uint64_t kRounds = 5;
  std::vector<double> rounds;
  for (uint64_t round = 0; round < kRounds; ++round) {
    const int64_t begin_ns = qmeter::monotonic_ns();
    for (uint64_t n = 0; n < num_launches / kRounds; ++n) nothing<<<1, 1, 0, stream_>>>();
    synchronize();
    rounds.push_back(elapsed_us(begin_ns) * kRounds / static_cast<double>(num_launches));
  }
  return median(rounds);
}

double gpu_used_mib() {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  require(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo");
  return static_cast<double>(total_bytes - free_bytes) / (1 << 20);
}

}  // namespace probe
