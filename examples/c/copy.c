/* Copy a BCSV file through the C interface: copy MODE SRC DST ROW_CODEC FILE_CODEC
 * MODE is "columns" (batches of columns) or "rows" (each row by random access, set value by value).
 * Compiles as C99 and as C++17. */
#include "tapeline_bcsv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_COLUMNS 64

static void check(int32_t status) {
    if (status < 0) {
        fprintf(stderr, "status %d: %s\n", (int)status, tlb_last_error());
        exit(1);
    }
}

static tlb_column_data column_of(const tlb_batch *batch, size_t column) {
    tlb_column_data data;
    memset(&data, 0, sizeof data);
    data.struct_size = sizeof data;
    check(tlb_batch_column(batch, column, &data));
    return data;
}

static void put_columns(tlb_writer *writer, const tlb_batch *batch, size_t columns) {
    tlb_column_values values[MAX_COLUMNS];
    int64_t *offsets[MAX_COLUMNS];
    size_t rows = 0;
    check(tlb_batch_rows(batch, &rows, NULL));
    for (size_t k = 0; k < columns; k++) {
        tlb_column_data data = column_of(batch, k);
        memset(&values[k], 0, sizeof values[k]);
        values[k].type_code = data.type_code;
        values[k].values = data.values;
        offsets[k] = NULL;
        if (data.type_code == TLB_STRING) {
            offsets[k] = (int64_t *)malloc((rows + 1) * sizeof(int64_t));
            if (offsets[k] == NULL) exit(1);
            for (size_t i = 0; i <= rows; i++) offsets[k][i] = data.offsets[i];
            values[k].offsets = offsets[k];
        }
    }
    check(tlb_writer_write_columns(writer, values, columns, rows));
    for (size_t k = 0; k < columns; k++) free(offsets[k]);
}

#define SET(CODE, NAME, TYPE) \
    case CODE: \
        check(tlb_writer_set_##NAME(writer, k, *(const TYPE *)data.values)); \
        break

static void put_row(tlb_writer *writer, const tlb_batch *batch, size_t columns) {
    for (size_t k = 0; k < columns; k++) {
        tlb_column_data data = column_of(batch, k);
        switch (data.type_code) {
            SET(TLB_BOOL, bool, uint8_t);
            SET(TLB_UINT8, uint8, uint8_t);
            SET(TLB_UINT16, uint16, uint16_t);
            SET(TLB_UINT32, uint32, uint32_t);
            SET(TLB_UINT64, uint64, uint64_t);
            SET(TLB_INT8, int8, int8_t);
            SET(TLB_INT16, int16, int16_t);
            SET(TLB_INT32, int32, int32_t);
            SET(TLB_INT64, int64, int64_t);
            SET(TLB_FLOAT, float, float);
            SET(TLB_DOUBLE, double, double);
        default:
            check(tlb_writer_set_string(writer, k, (const char *)data.values + data.offsets[0],
                                        (size_t)(data.offsets[1] - data.offsets[0])));
        }
    }
    check(tlb_writer_write_row(writer));
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: copy columns|rows SRC DST ROW_CODEC FILE_CODEC\n");
        return 2;
    }
    tlb_reader *reader = NULL;
    check(tlb_reader_open(argv[2], NULL, &reader));
    size_t columns = 0;
    check(tlb_reader_columns(reader, &columns));
    if (columns > MAX_COLUMNS) return 2;
    const char *names[MAX_COLUMNS];
    int32_t types[MAX_COLUMNS];
    for (size_t k = 0; k < columns; k++) check(tlb_reader_column(reader, k, &names[k], &types[k]));

    tlb_write_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.row_codec = argv[4];
    options.file_codec = argv[5];
    tlb_writer *writer = NULL;
    check(tlb_writer_open(argv[3], TLB_NEW, names, types, columns, &options, &writer));

    uint64_t total = 0;
    check(tlb_reader_rows(reader, &total));
    tlb_batch *batch = NULL;
    if (strcmp(argv[1], "rows") == 0) {
        for (uint64_t row = 0; row < total; row++) {
            check(tlb_reader_row(reader, row, &batch));
            put_row(writer, batch, columns);
            check(tlb_batch_free(batch));
        }
    } else {
        tlb_scan *scan = NULL;
        int32_t status;
        check(tlb_reader_scan(reader, NULL, 0, 0, UINT64_MAX, 100, &scan));
        while ((status = tlb_scan_next(scan, &batch)) == TLB_OK) {
            put_columns(writer, batch, columns);
            check(tlb_batch_free(batch));
        }
        check(status);
        check(tlb_scan_free(scan));
    }
    check(tlb_writer_flush(writer, 0));
    check(tlb_writer_finish(writer, 0));
    uint64_t written = 0;
    check(tlb_writer_rows(writer, &written));
    check(tlb_writer_free(writer));
    check(tlb_reader_free(reader));
    printf("%llu rows\n", (unsigned long long)written);
    return written == total ? 0 : 1;
}
