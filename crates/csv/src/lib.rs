//! Text tables: CSV to columns and columns to CSV or JSON lines.
//!
//! Layers, from the bytes up: `records` (where cells and records end), `number` (decimal text to numbers, and whether
//! a number keeps its text's value), `infer` (which type holds all cells of a column), `sniff` (delimiter, header),
//! `parse` (a chunk of whole records to columns), [`TextWriter`] (columns to text). They see slices only. On top,
//! [`import`] and [`scan`] read a file in chunks on several threads, and [`export`] writes one.
//!
//! The rule of the crate: **no value changes silently**. A column gets the smallest type that holds each of its cells
//! without loss; every cell is checked while it is converted, and a cell that does not fit widens its column in a
//! second pass, or stops the conversion with its line and column.

#![forbid(unsafe_code)]

mod chunks;
mod columns;
mod error;
mod export;
mod import;
mod infer;
mod number;
mod parse;
mod print;
mod records;
mod sniff;
mod text;

pub use chunks::Cancel;
pub use error::{Error, ErrorKind, Place, Result};
pub use export::{ExportOptions, ExportReport, RowRange, export};
pub use import::{ColumnReport, ImportOptions, ImportReport, Rows, Scan, import, scan};
pub use infer::{EmptyCells, Summary, Types};
pub use number::{exact_f32, exact_f64};
pub use parse::Ragged;
pub use sniff::{Dialect, DialectOptions, Header};
pub use text::{TextFormat, TextWriter};
