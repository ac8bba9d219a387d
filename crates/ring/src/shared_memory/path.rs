//! Names of rings.

use std::path::{Path, PathBuf};

/// Where rings without a path are: memory that has names.
const DIRECTORY: &str = "/dev/shm";

/// The file of a ring: a plain name is one in `/dev/shm`, what has a slash is a path.
pub fn path_of(name: &str) -> PathBuf {
    if name.contains('/') {
        PathBuf::from(name)
    } else {
        Path::new(DIRECTORY).join(name)
    }
}
