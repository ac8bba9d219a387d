//! A safe face of the LZ4 block format: linked blocks, HC, bounded decoding.

#![allow(unsafe_code)]
