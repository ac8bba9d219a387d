// C++17 around tapeline_bcsv.h: owners that free, errors that throw. Everything not wrapped is called through `get()`.
#ifndef TAPELINE_BCSV_HPP
#define TAPELINE_BCSV_HPP

#include "tapeline_bcsv.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace tapeline {

struct Error : std::runtime_error {
    explicit Error(int32_t code) : std::runtime_error(tlb_last_error()), status(code), place{} {
        place.struct_size = sizeof place;
        tlb_last_error_place(&place);
    }
    int32_t status;
    tlb_error_place place;
};

inline int32_t check(int32_t status) {
    if (status < 0) throw Error(status);
    return status;
}

namespace detail {
template <typename T, int32_t (*Free)(T *)> struct Freed {
    void operator()(T *handle) const noexcept { Free(handle); }
};
template <typename T, int32_t (*Free)(T *)> using Owner = std::unique_ptr<T, Freed<T, Free>>;
} // namespace detail

struct Column {
    std::string name;
    int32_t type;
};

class Batch : public detail::Owner<tlb_batch, tlb_batch_free> {
  public:
    using unique_ptr::unique_ptr;
    std::size_t rows() const {
        std::size_t rows = 0;
        check(tlb_batch_rows(get(), &rows, nullptr));
        return rows;
    }
    // The pointers in it live as long as this batch.
    tlb_column_data column(std::size_t number) const {
        tlb_column_data data{};
        data.struct_size = sizeof data;
        check(tlb_batch_column(get(), number, &data));
        return data;
    }
};

class Scan : public detail::Owner<tlb_scan, tlb_scan_free> {
  public:
    using unique_ptr::unique_ptr;
    // An empty batch (false) after the last one.
    Batch next() {
        tlb_batch *batch = nullptr;
        check(tlb_scan_next(get(), &batch));
        return Batch(batch);
    }
};

class Reader : public detail::Owner<tlb_reader, tlb_reader_free> {
  public:
    explicit Reader(const std::string &path, bool skip_corrupt = false) {
        tlb_read_options options{};
        options.struct_size = sizeof options;
        options.skip_corrupt = skip_corrupt ? 1 : 0;
        tlb_reader *reader = nullptr;
        check(tlb_reader_open(path.c_str(), &options, &reader));
        reset(reader);
    }
    uint64_t rows() const {
        uint64_t rows = 0;
        check(tlb_reader_rows(get(), &rows));
        return rows;
    }
    std::vector<Column> columns() const {
        std::size_t count = 0;
        check(tlb_reader_columns(get(), &count));
        std::vector<Column> columns;
        for (std::size_t k = 0; k < count; ++k) {
            const char *name = nullptr;
            int32_t type = 0;
            check(tlb_reader_column(get(), k, &name, &type));
            columns.push_back({name, type});
        }
        return columns;
    }
    Batch row(uint64_t number) const {
        tlb_batch *batch = nullptr;
        check(tlb_reader_row(get(), number, &batch));
        return Batch(batch);
    }
    Scan scan(std::size_t batch_rows = 8192, uint64_t start = 0, uint64_t stop = UINT64_MAX) const {
        tlb_scan *scan = nullptr;
        check(tlb_reader_scan(get(), nullptr, 0, start, stop, batch_rows, &scan));
        return Scan(scan);
    }
};

// Call finish(): a writer that is only destroyed leaves an unfinished file, and its errors unsaid.
class Writer : public detail::Owner<tlb_writer, tlb_writer_free> {
  public:
    Writer(const std::string &path, int32_t mode, const std::vector<Column> &columns,
           const tlb_write_options *options = nullptr) {
        std::vector<const char *> names;
        std::vector<int32_t> types;
        for (const Column &column : columns) {
            names.push_back(column.name.c_str());
            types.push_back(column.type);
        }
        tlb_writer *writer = nullptr;
        check(tlb_writer_open(path.c_str(), mode, names.data(), types.data(), columns.size(), options, &writer));
        reset(writer);
    }
    void set(std::size_t column, int32_t value) { check(tlb_writer_set_int32(get(), column, value)); }
    void set(std::size_t column, int64_t value) { check(tlb_writer_set_int64(get(), column, value)); }
    void set(std::size_t column, float value) { check(tlb_writer_set_float(get(), column, value)); }
    void set(std::size_t column, double value) { check(tlb_writer_set_double(get(), column, value)); }
    void set(std::size_t column, bool value) { check(tlb_writer_set_bool(get(), column, value ? 1 : 0)); }
    void set(std::size_t column, const std::string &value) {
        check(tlb_writer_set_string(get(), column, value.data(), value.size()));
    }
    // A literal must not become a bool.
    void set(std::size_t column, const char *value) { set(column, std::string(value)); }
    void write_row() { check(tlb_writer_write_row(get())); }
    void flush(bool sync = false) { check(tlb_writer_flush(get(), sync ? 1 : 0)); }
    void finish(bool sync = false) { check(tlb_writer_finish(get(), sync ? 1 : 0)); }
};

} // namespace tapeline

#endif
