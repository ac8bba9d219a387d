/* Wrong calls are refused with a status and a text, and good ones go on working. Argument: a path for a file. */
#include "tapeline_bcsv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void expect(int line, int32_t found, int32_t wanted) {
    if (found != wanted || (wanted < 0 && tlb_last_error()[0] == 0)) {
        fprintf(stderr, "line %d: status %d instead of %d: %s\n", line, (int)found, (int)wanted, tlb_last_error());
        exit(1);
    }
}
#define EXPECT(CALL, WANTED) expect(__LINE__, CALL, WANTED)

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    const char *path = argv[1];
    const char *names[2] = {"n", "text"};
    const int32_t types[2] = {TLB_INT32, TLB_STRING};
    tlb_writer *writer = NULL;
    tlb_reader *reader = NULL;
    tlb_batch *batch = NULL;
    tlb_scan *scan = NULL;
    struct { tlb_write_options options; uint64_t newer; } wide;
    memset(&wide, 0, sizeof wide);

    EXPECT(tlb_reader_open("/does/not/exist", NULL, &reader), TLB_IO);
    tlb_error_place place;
    place.struct_size = sizeof place;
    EXPECT(tlb_last_error_place(&place), TLB_OK);
    if (place.os_error != 2 || place.offset != UINT64_MAX) return 1;
    place.struct_size = 4;
    EXPECT(tlb_last_error_place(&place), TLB_MISUSE);

    EXPECT(tlb_writer_open(NULL, TLB_NEW, names, types, 2, NULL, &writer), TLB_MISUSE);
    EXPECT(tlb_writer_open(path, 9, names, types, 2, NULL, &writer), TLB_MISUSE);
    EXPECT(tlb_writer_open(path, TLB_NEW, NULL, types, 2, NULL, &writer), TLB_MISUSE);
    EXPECT(tlb_writer_open(path, TLB_NEW, names, types, 2, NULL, NULL), TLB_MISUSE);
    EXPECT(tlb_writer_open(path, TLB_NEW, names, types, 2, &wide.options, &writer), TLB_MISUSE); /* size 0 */
    wide.options.struct_size = sizeof wide;
    wide.newer = 1;
    EXPECT(tlb_writer_open(path, TLB_NEW, names, types, 2, &wide.options, &writer), TLB_UNSUPPORTED);
    wide.newer = 0;
    wide.options.row_codec = "none";
    EXPECT(tlb_writer_open(path, TLB_NEW, names, types, 2, &wide.options, &writer), TLB_UNSUPPORTED);
    wide.options.row_codec = "zoh";
    EXPECT(tlb_writer_open(path, TLB_NEW, names, types, 2, &wide.options, &writer), TLB_OK);

    EXPECT(tlb_writer_set_double(writer, 0, 1.0), TLB_SCHEMA);
    EXPECT(tlb_writer_set_int32(writer, 2, 1), TLB_SCHEMA);
    EXPECT(tlb_writer_set_int32(NULL, 0, 1), TLB_MISUSE);
    EXPECT(tlb_writer_set_string(writer, 1, NULL, 3), TLB_MISUSE);
    EXPECT(tlb_writer_set_int32(writer, 0, -7), TLB_OK);
    EXPECT(tlb_writer_set_string(writer, 1, "one", 3), TLB_OK);
    EXPECT(tlb_writer_write_row(writer), TLB_OK);
    const int64_t falling[2] = {0, -1};
    const int32_t number = 5;
    tlb_column_values values[2] = {{TLB_INT32, 0, &number, NULL}, {TLB_STRING, 0, "x", falling}};
    EXPECT(tlb_writer_write_columns(writer, values, 2, 1), TLB_MISUSE);
    EXPECT(tlb_writer_write_columns(writer, values, 1, 1), TLB_SCHEMA);
    EXPECT(tlb_reader_rows((const tlb_reader *)writer, &place.offset), TLB_MISUSE); /* another kind */
    EXPECT(tlb_writer_finish(writer, 0), TLB_OK);
    EXPECT(tlb_writer_finish(writer, 0), TLB_OK);
    EXPECT(tlb_writer_write_row(writer), TLB_CLOSED);
    EXPECT(tlb_writer_free(writer), TLB_OK);
    EXPECT(tlb_writer_free(NULL), TLB_OK);

    EXPECT(tlb_writer_open(path, TLB_NEW, names, types, 2, NULL, &writer), TLB_IO);
    if (writer != NULL) return 1;
    EXPECT(tlb_writer_open(path, TLB_APPEND, names, types, 2, NULL, &writer), TLB_OK);
    EXPECT(tlb_writer_set_int32(writer, 0, 8), TLB_OK);
    EXPECT(tlb_writer_write_row(writer), TLB_OK);
    EXPECT(tlb_writer_finish(writer, 1), TLB_OK);
    EXPECT(tlb_writer_free(writer), TLB_OK);

    uint64_t rows = 0;
    size_t column = 9, gaps = 9;
    int32_t complete = 9;
    EXPECT(tlb_reader_open(path, NULL, &reader), TLB_OK);
    EXPECT(tlb_reader_rows(reader, &rows), TLB_OK);
    EXPECT(tlb_reader_find(reader, "text", &column), TLB_OK);
    EXPECT(tlb_reader_complete(reader, &complete), TLB_OK);
    EXPECT(tlb_reader_gaps(reader, NULL, NULL, 0, &gaps), TLB_OK);
    if (rows != 2 || column != 1 || complete != 1 || gaps != 0) return 1;
    EXPECT(tlb_reader_find(reader, "none", &column), TLB_SCHEMA);
    EXPECT(tlb_reader_row(reader, 2, &batch), TLB_RANGE);
    column = 2;
    EXPECT(tlb_reader_scan(reader, &column, 1, 0, 9, 9, &scan), TLB_RANGE);
    column = 1;
    EXPECT(tlb_reader_read(reader, &column, 1, 0, UINT64_MAX, 2, &scan), TLB_OK);
    EXPECT(tlb_reader_free(reader), TLB_OK); /* a scan may outlive its reader */
    EXPECT(tlb_scan_next(scan, &batch), TLB_OK);
    tlb_column_data data;
    memset(&data, 0, sizeof data);
    EXPECT(tlb_batch_column(batch, 0, &data), TLB_MISUSE);
    data.struct_size = sizeof data;
    EXPECT(tlb_batch_column(batch, 1, &data), TLB_RANGE);
    EXPECT(tlb_batch_column(batch, 0, &data), TLB_OK);
    if (data.type_code != TLB_STRING || data.offsets[1] != 3 || memcmp(data.values, "one", 3) != 0) return 1;
    EXPECT(tlb_batch_free(batch), TLB_OK);
    while (tlb_scan_next(scan, &batch) == TLB_OK) EXPECT(tlb_batch_free(batch), TLB_OK);
    EXPECT(tlb_scan_next(scan, &batch), TLB_END);
    EXPECT(tlb_scan_free(scan), TLB_OK);
    return 0;
}
