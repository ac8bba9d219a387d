//! A lock-free single-producer single-consumer byte ring.

#![allow(unsafe_code)]
