#include "collect/energy_sampler.h"

#include <pybind11/stl.h>

#include "bindings/bindings.h"

namespace py = pybind11;

namespace qmeter {
namespace {

py::object none_if_empty(const std::string& text) {
  return text.empty() ? py::object(py::none()) : py::str(text);
}

py::dict readings_to_python(const EnergyDevice& device) {
  py::dict readings;
  for (const ReadingInfo& reading : device.readings) {
    py::dict entry;
    entry["ok"] = reading.is_ok;
    entry["reason"] = none_if_empty(reading.reason);
    entry["call_cost_ns"] = reading.is_ok ? py::object(py::int_(reading.call_cost_ns)) : py::none();
    readings[reading.name.c_str()] = entry;
  }
  return readings;
}

py::dict properties_to_python(const EnergyDevice& device) {
  py::dict properties;
  for (const auto& [name, value] : device.properties) properties[name.c_str()] = py::cast(value);
  return properties;
}

py::dict device_to_python(const EnergyDevice& device) {
  py::dict entry;
  entry["index"] = device.index;
  entry["kind"] = device.kind;
  entry["name"] = device.name;
  entry["uuid"] = device.uuid;
  entry["driver"] = none_if_empty(device.driver);
  entry["energy"] = none_if_empty(device.energy);
  entry["reason"] = none_if_empty(device.reason);
  entry["readings"] = readings_to_python(device);
  entry["properties"] = properties_to_python(device);
  return entry;
}

py::list sources_to_python(const EnergySampler& sampler) {
  py::list devices;
  for (const EnergyDevice& device : sampler.sources()) devices.append(device_to_python(device));
  return devices;
}

py::list latest_to_python(const EnergySampler& sampler) {
  py::list devices;
  for (const LatestReadings& latest : sampler.latest()) {
    py::dict entry;
    entry["index"] = latest.index;
    entry["power_mw"] = latest.power_mw;
    entry["energy_uj"] = latest.energy_uj;
    entry["sm_mhz"] = latest.sm_mhz;
    entry["temperature_c"] = latest.temperature_c;
    devices.append(entry);
  }
  return devices;
}

py::dict stats_to_python(const EnergySampler& sampler) {
  const EnergySamplerStats stats = sampler.stats();
  py::dict result;
  result["samples"] = stats.samples;
  result["missed_samples"] = stats.missed_samples;
  result["cpu_ns"] = stats.cpu_ns;
  result["blocked_ns"] = stats.blocked_ns;
  result["jitter_p50_ns"] = stats.jitter_p50_ns;
  result["jitter_p99_ns"] = stats.jitter_p99_ns;
  result["jitter_max_ns"] = stats.jitter_max_ns;
  result["counter_calls"] = stats.counter_calls;
  result["counter_resets"] = stats.counter_resets;
  result["edges"] = stats.edges;
  result["missed_edges"] = stats.missed_edges;
  result["errors"] = stats.errors;
  result["devices_lost"] = stats.devices_lost;
  return result;
}

py::dict report_to_python(const NvmlReport& report) {
  py::dict result;
  result["path"] = none_if_empty(report.path);
  result["driver"] = none_if_empty(report.driver);
  result["version"] = none_if_empty(report.version);
  py::list devices;
  for (const EnergyDevice& device : report.devices) {
    py::dict entry = device_to_python(device);
    entry["mig"] = entry["properties"].attr("get")("mig", false);
    devices.append(entry);
  }
  result["devices"] = devices;
  result["error"] = none_if_empty(report.error);
  return result;
}

std::shared_ptr<EnergySampler> start_sampler(
    std::shared_ptr<Spool> spool, int64_t power_period_ns, int64_t clock_period_ns, int64_t edge_period_ns,
    double counter_cpu_share, const std::optional<std::string>& nvml_path, const std::string& powercap_root,
    const std::optional<std::vector<unsigned>>& nvml_devices, bool use_nvml, bool use_rapl) {
  EnergySamplerOptions options;
  options.power_period_ns = power_period_ns;
  options.clock_period_ns = clock_period_ns;
  options.edge_period_ns = edge_period_ns;
  options.counter_cpu_share = counter_cpu_share;
  options.nvml_path = nvml_path.value_or("");
  options.powercap_root = powercap_root;
  options.nvml_devices = nvml_devices;
  options.use_nvml = use_nvml;
  options.use_rapl = use_rapl;
  return destroyed_without_gil(std::make_unique<EnergySampler>(std::move(spool), options));
}

}  // namespace

void bind_energy_sampler(py::module_& module) {
  using Release = py::call_guard<py::gil_scoped_release>;
  const EnergySamplerOptions defaults;
  py::class_<EnergySampler, std::shared_ptr<EnergySampler>>(module, "EnergySampler")
      .def(py::init(&start_sampler), py::arg("spool").none(true), py::kw_only(),
           py::arg("power_period_ns") = defaults.power_period_ns,
           py::arg("clock_period_ns") = defaults.clock_period_ns,
           py::arg("edge_period_ns") = defaults.edge_period_ns,
           py::arg("counter_cpu_share") = defaults.counter_cpu_share, py::arg("nvml_path") = py::none(),
           py::arg("powercap_root") = defaults.powercap_root, py::arg("nvml_devices") = py::none(),
           py::arg("use_nvml") = defaults.use_nvml, py::arg("use_rapl") = defaults.use_rapl, Release())
      .def("sources", &sources_to_python)
      .def("latest", &latest_to_python)
      .def("idle_power_mw", &EnergySampler::idle_power_mw, py::arg("index"), Release())
      .def("mark_idle", &EnergySampler::mark_idle, Release())
      .def("stats", &stats_to_python)
      .def("close", &EnergySampler::close, Release());
  module.def(
      "probe_nvml",
      [](const std::optional<std::string>& path) {
        NvmlReport report;
        {
          const py::gil_scoped_release release;
          report = probe_nvml(path.value_or(""));
        }
        return report_to_python(report);
      },
      py::arg("path") = py::none());
}

}  // namespace qmeter
