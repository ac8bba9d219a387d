//! The BCSV file format: bytes to rows and columns.

#![forbid(unsafe_code)]
