//! The BCSV file format: bytes to rows and columns. No sockets, no Python.
//!
//! Layers, from the bytes up: `vle`, `checksum`, `packet`, `footer`, [`Header`]; row codecs (`row/`) turn one row
//! into bytes; file codecs (`file/`) frame, compress and check them; readers and writers on top.
//!
//! # Writing
//!
//! - [`RowWriter`]: rows to any [`std::io::Write`], on the calling thread. `new(sink, &schema, &options)`,
//!   `write_row(&[Value])`, `flush()`, `finish() -> sink`, `rows_written()`, `bytes_written()`.
//! - [`FileWriter`]: a file with its whole life. `open(path, &schema, WriteMode::{New, Replace, Append},
//!   &WriteOptions, &FileOptions { max_loss, threads, .. })`; `row_buffer() -> RowBuffer` (fill it with `set_f32(column, v)`
//!   and friends), `write_row(&RowBuffer)`, `write_packed(&[u8])`, `write_batch(&BatchView)`, `flush(sync: bool)`,
//!   `finish()`, `rows_written()`. Constant time per row; batch packets are compressed and stored by another thread.
//! - [`BatchView`] `{ rows, columns: Vec<ColumnView> }` borrows Arrow-compatible buffers: `ColumnView::{Bool { bits, offset },
//!   BoolBytes(&[u8]), UInt8(&[u8]), .., Float(&[f32]), Double(&[f64]), String { offsets: &[i32], bytes },
//!   LargeString { offsets: &[i64], bytes }}`.
//!
//! # Reading
//!
//! - [`Reader`]: `Reader::open(path, ReadOptions { on_corrupt: OnCorrupt::{Raise, Skip}, follow, limits, any_flags })`, or
//!   `Reader::from_source(Arc<dyn ReadAt>, options)`. `Send + Sync`; all reading takes `&self`.
//! - `header()`, `schema()`, `num_rows()`, `complete() -> Option<bool>`, `packets() -> Vec<PacketInfo>`, `gaps() ->
//!   Vec<(u64, u64)>`; `poll() -> Result<Poll { new_rows, closed }>` for follow mode.
//! - `read(&Selection { columns: Option<Vec<usize>>, start, stop: Option<u64>, threads }) -> Result<Vec<Batch>>`: one batch
//!   per packet touched, decoded in parallel. `batches(selection, batch_rows)`: an iterator of `Result<Batch>` that owns what
//!   it needs and holds one packet per thread. `row(i) -> Result<Batch>` with one row.
//! - `Batch { first_row, rows, columns: Vec<Column> }`; `Column::{Bool(Bitmap { bytes, len }), UInt8(Vec<u8>), ..,
//!   Float(Vec<f32>), Double(Vec<f64>), String(StringColumn { offsets: Vec<i32>, bytes: Vec<u8> })}`: each buffer becomes an
//!   Arrow buffer without a copy. `batch.value(column, row) -> Value`.
//! - [`validate`]`(path, limits) -> Report`, [`repair`]`(path, out, limits) -> Report`.
//!
//! # Errors
//!
//! One [`Error`] with a [`ErrorKind`], the place in the file and the good rows before it; [`Error::class`] sorts kinds into
//! the families that the Python exceptions mirror.

#![forbid(unsafe_code)]

mod background;
mod batch;
mod bulk;
mod checksum;
mod cursor;
mod error;
mod file;
mod file_writer;
mod footer;
mod header;
mod index;
mod limits;
mod packet;
mod pool;
mod random;
mod reader;
mod recover;
mod resync;
mod row;
mod scan_stream;
mod schema;
mod source;
mod storage;
mod threads;
mod value;
mod view;
mod vle;
mod writer;

pub use batch::{Batch, Bitmap, Column, StringColumn};
pub use checksum::xxh64;
pub use error::{Error, ErrorClass, ErrorKind, Result};
pub use file_writer::{FileOptions, FileWriter, WriteMode};
pub use footer::IndexEntry;
pub use header::{FileCodec, FormatVersion, Header, RowCodec};
pub use limits::{Limits, MAX_COLUMNS, MAX_ROW_BYTES, MAX_STRING_BYTES};
pub use reader::{Batches, OnCorrupt, PacketInfo, Poll, ReadOptions, Reader, Selection};
pub use recover::{Depth, Problem, Report, repair, validate, validate_reader, validate_to};
pub use schema::{ColumnSpec, ColumnType, Schema};
pub use source::ReadAt;
pub use storage::{Disk, Storage, StoredFile};
pub use threads::{spawn_helpers, thread_count};
pub use value::{RowBuffer, Value};
pub use view::{BatchView, ColumnView};
pub use writer::{RowWriter, WriteOptions};
