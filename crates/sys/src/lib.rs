//! Operating-system calls with a portable path.

#![allow(unsafe_code)]
