// The C++ wrapper: writes, reads back, throws; then reads a damaged file, as far as it goes. Arguments: new file, damaged file.
#include "tapeline_bcsv.hpp"

#include <cstdio>
#include <cstring>
#include <fstream>

#define REQUIRE(CONDITION) \
    if (!(CONDITION)) { \
        std::fprintf(stderr, "line %d: %s\n", __LINE__, #CONDITION); \
        return 1; \
    }

int main(int argc, char **argv) {
    REQUIRE(argc == 3);
    tapeline::Writer writer(argv[1], TLB_NEW, {{"time", TLB_DOUBLE}, {"label", TLB_STRING}});
    for (int i = 0; i < 1000; ++i) {
        writer.set(0, i / 4.0);
        writer.set(1, i % 2 ? "odd" : "even");
        writer.write_row();
    }
    writer.finish();
    tapeline::Reader reader(argv[1]);
    REQUIRE(reader.rows() == 1000 && reader.columns().at(1).name == "label");
    auto scan = reader.scan(300);
    std::size_t rows = 0;
    while (auto batch = scan.next()) {
        auto time = batch.column(0);
        REQUIRE(static_cast<const double *>(time.values)[0] == static_cast<double>(rows) / 4.0);
        rows += batch.rows();
    }
    REQUIRE(rows == 1000);
    bool thrown = false;
    try {
        reader.row(1000);
    } catch (const tapeline::Error &error) {
        thrown = error.status == TLB_RANGE && std::strlen(error.what()) > 0;
    }
    REQUIRE(thrown);

    // Damage: an error by default, with its place; skipped on request, with the rows missing listed.
    tapeline::Reader damaged(argv[2]);
    thrown = false;
    try {
        auto strict = damaged.scan();
        while (auto batch = strict.next()) {
        }
    } catch (const tapeline::Error &error) {
        thrown = error.status == TLB_CORRUPT && error.place.offset != UINT64_MAX;
    }
    REQUIRE(thrown);
    tapeline::Reader salvage(argv[2], true);
    auto lenient = salvage.scan();
    rows = 0;
    while (auto batch = lenient.next()) rows += batch.rows();
    std::uint64_t starts[8], stops[8], lost = 0;
    std::size_t gaps = 0;
    tapeline::check(tlb_reader_gaps(salvage.get(), starts, stops, 8, &gaps));
    for (std::size_t i = 0; i < gaps; ++i) lost += stops[i] - starts[i];
    REQUIRE(gaps == 1 && rows > 0 && rows + lost == salvage.rows());
    return 0;
}
