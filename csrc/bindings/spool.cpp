#include "records/spool.h"

#include <pybind11/stl.h>

#include <array>

#include "base/error.h"
#include "bindings/bindings.h"
#include "records/record_layout.h"

namespace py = pybind11;

namespace qmeter {
namespace {

using Dim3 = std::array<int32_t, 3>;

py::dict layouts_to_python() {
  py::dict all;
  for (const RecordLayout& layout : record_layouts()) {
    py::list fields;
    for (const FieldLayout& field : layout.fields) {
      fields.append(py::make_tuple(field.name, field.format, field.offset));
    }
    py::dict entry;
    entry["kind"] = static_cast<int>(layout.kind);
    entry["size"] = layout.size;
    entry["fields"] = fields;
    all[layout.name] = entry;
  }
  return all;
}

void append_buffer(Spool& spool, uint16_t kind_number, const py::object& rows) {
  const auto kind = static_cast<RecordKind>(kind_number);
  const size_t size = record_size(kind);
  if (size == 0)
    throw Error(ErrorCode::kInvalid, "record kind " + std::to_string(kind_number) + " has no fixed size");
  Py_buffer view{};
  // PyBUF_SIMPLE demands C-contiguous bytes, which numpy's structured arrays give too.
  if (PyObject_GetBuffer(rows.ptr(), &view, PyBUF_SIMPLE) != 0) throw py::error_already_set();
  const auto num_bytes = static_cast<size_t>(view.len);
  if (num_bytes % size == 0) {
    const py::gil_scoped_release release;
    spool.append(kind, view.buf, size, num_bytes / size);
  }
  PyBuffer_Release(&view);
  if (num_bytes % size != 0) {
    throw Error(ErrorCode::kInvalid,
                std::to_string(num_bytes) + " bytes are no whole number of records of kind " +
                    std::to_string(kind_number) + " (" + std::to_string(size) + " bytes each)");
  }
}

uint32_t define_class(Spool& spool, const std::string& name, uint8_t kind, const Dim3& grid,
                      const Dim3& block, int32_t static_shared_bytes, int32_t dynamic_shared_bytes,
                      int32_t registers) {
  ClassRecord record{};
  record.name = spool.intern(name);
  record.kind = kind;
  record.grid_x = grid[0];
  record.grid_y = grid[1];
  record.grid_z = grid[2];
  record.block_x = block[0];
  record.block_y = block[1];
  record.block_z = block[2];
  record.static_shared_bytes = static_shared_bytes;
  record.dynamic_shared_bytes = dynamic_shared_bytes;
  record.registers = registers;
  return spool.define_class(record);
}

py::dict stats_to_python(const Spool& spool) {
  const SpoolStats stats = spool.stats();
  py::dict result;
  result["blocks"] = stats.blocks;
  result["bytes"] = stats.bytes;
  result["records"] = stats.records;
  result["dropped_records"] = stats.dropped_records;
  result["error"] = stats.error.empty() ? py::object(py::none()) : py::object(py::str(stats.error));
  return result;
}

}  // namespace

void bind_spool(py::module_& module) {
  using Release = py::call_guard<py::gil_scoped_release>;
  module.def("record_layouts", &layouts_to_python);
  const SpoolOptions defaults;
  py::class_<Spool, std::shared_ptr<Spool>>(module, "Spool")
      .def(py::init([](const std::string& path, const std::string& identity, size_t block_bytes,
                       size_t queue_bytes, int64_t flush_period_ns) {
             const SpoolOptions options{block_bytes, queue_bytes, flush_period_ns};
             return destroyed_without_gil(std::make_unique<Spool>(path, identity, options));
           }),
           py::arg("path"), py::kw_only(), py::arg("identity"), py::arg("block_bytes") = defaults.block_bytes,
           py::arg("queue_bytes") = defaults.queue_bytes,
           py::arg("flush_period_ns") = defaults.flush_period_ns, Release())
      .def("intern", &Spool::intern, py::arg("text"), Release())
      .def("write_string", &Spool::write_string, py::arg("text"), Release())
      .def("define_class", &define_class, py::arg("name"), py::arg("kind"), py::arg("grid") = Dim3{},
           py::arg("block") = Dim3{}, py::arg("static_shared_bytes") = 0, py::arg("dynamic_shared_bytes") = 0,
           py::arg("registers") = 0, Release())
      .def("append", &append_buffer, py::arg("kind"), py::arg("rows"))
      .def("append_stats", &Spool::append_stats, py::arg("json"), Release())
      .def("sync", &Spool::sync, Release())
      .def("stats", &stats_to_python)
      .def("close", &Spool::close, Release());
}

}  // namespace qmeter
